"""A pytest plugin for RQ's own tests: whatever its workers are told to do is done by a `taskq worker`.

`BaseWorker.work` is replaced; all else of RQ's classes stays. Which tests have called it is written down, as only those
tell something about the worker. RQ_SUITE_WORKER=stock leaves RQ's own in place, and writes the same list.
RQ_SUITE_PORT: of a redis-server of its own; RQ's tests ask for 6379.

A `taskq worker` starts an interpreter, which takes longer than a fork: a process that a test starts for a worker counts
as started once that listens, and one that is to send a command after a quarter of a second waits until then.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.connection import ConnectionPool
from rq.job import Job
from rq.worker import BaseWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PORT = int(os.environ["RQ_SUITE_PORT"])
STOCK = os.environ.get("RQ_SUITE_WORKER") == "stock"
CALLED = Path(os.environ["RQ_SUITE_CALLED"])

#: Seconds that a burst may take.
LIMIT = 100

#: Seconds that a worker may take to listen.
START = 30

#: Seconds that it may take to begin a job, if there is one.
BEGIN = 3

_open = ConnectionPool.__init__
_work = BaseWorker.work
_start = BaseProcess.start
_run = BaseProcess.run


def open_pool(self: Any, *args: Any, **kwargs: Any) -> None:
    """Connect to the server of this run in place of the one that RQ's tests expect; so do jobs that are told of it."""
    _open(self, *args, **kwargs)
    if self.connection_kwargs.get("port", 6379) == 6379:  # the port of Redis
        self.connection_kwargs["port"] = PORT


def start(self: Any) -> None:
    """Start a process; if it is to be a worker, return once that listens, and runs a job if it finds one."""
    name = getattr(self._target, "__name__", "")
    before = set(_everywhere(_channels))
    _start(self)
    if name.startswith("start_work") or name == "run_worker":
        _wait(lambda: set(_everywhere(_channels)) - before or not self.is_alive(), START)
        _wait(lambda: _everywhere(_running) or not self.is_alive(), BEGIN)


def run(self: Any) -> None:
    """Run a process; one that acts on a worker waits until there is what it acts on."""
    name = getattr(self._target, "__name__", "")
    if name.startswith("_send_"):
        _wait(lambda: _everywhere(_channels), START)
    if name in ("_send_kill_horse_command", "kill_horse"):
        _wait(lambda: _everywhere(_running), START)
    if name == "kill_horse":
        _wait(lambda: _everywhere(lambda client: client.keys(self._args[0])), START)
    _run(self)


def _wait(condition: Callable[[], Any], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.05)


def _everywhere(look: Callable[[Any], list[Any]]) -> list[Any]:
    """Return what is found in all databases of the server of this run."""
    found = []
    for database in range(16):
        with Redis(port=PORT, db=database) as client:
            found += look(client)
    return found


def _channels(client: Any) -> list[Any]:
    """Return what workers listen to for commands."""
    return list(client.pubsub_channels("rq:pubsub:*"))


def _running(client: Any) -> list[Any]:
    """Return the jobs that run."""
    jobs = [key for key in client.keys("rq:job:*") if client.type(key) == b"hash"]
    return [key for key in jobs if client.hget(key, "status") == b"started"]


def work(self: Any, burst: bool = False, *args: Any, **kwargs: Any) -> bool:
    """Do what a worker was told, by a `taskq worker`; return whether it has run something."""
    with CALLED.open("a") as file:
        file.write(os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0] + "\n")
    if STOCK:
        done: bool = _work(self, burst, *args, **kwargs)
        return done
    command = _command(self, burst=burst, max_jobs=kwargs.get("max_jobs"))
    command += _flags(self, kwargs.get("dequeue_strategy"))
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    if not burst and multiprocessing.parent_process() is not None:
        _keep_pipes()
        os.execve(command[0], command, environment)  # noqa: S606  # the process that RQ's test has made for its worker
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process, _stopped_by(process):
        try:
            log = process.communicate(timeout=LIMIT)[1]
        except BaseException:
            process.terminate()
            raise
    sys.stderr.write(log)
    return _has_run_something(log)


@contextmanager
def _stopped_by(process: subprocess.Popen[str]) -> Iterator[None]:
    """Hand on what a test sends to its own process, in which RQ's worker would run."""

    def hand_on(number: int, _frame: object) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep_pipes() -> None:
    """Keep the pipe by whose end the parent sees that of this process."""
    for fd in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{fd}"
        if int(fd) > sys.stderr.fileno() and os.path.exists(path) and os.readlink(path).startswith("pipe:"):
            os.set_inheritable(int(fd), True)


def _command(worker: Any, *, burst: bool, max_jobs: int | None) -> list[str]:
    options = worker.connection.connection_pool.connection_kwargs
    url = f"redis://127.0.0.1:{PORT}/{options.get('db', 0)}?allow_pickle=1&allow_callbacks=1"
    command = [sys.executable, "-m", "taskq", "worker", "--url", url, "--queues", ",".join(worker.queue_names())]
    command += ["--name", worker.name, "--processes", "1", "--log-format", "json", "--grace", "5"]
    for name in ("tests.fixtures", *sorted(_names(worker))):
        command += ["--import", name]
    return [*command, *(["--burst"] if burst else []), *(["--max-jobs", str(max_jobs)] if max_jobs else [])]


def _flags(worker: Any, strategy: Any) -> list[str]:
    """Return the flags that say what the worker's object says."""
    classes = {"RoundRobinWorker": "round_robin", "RandomWorker": "random"}
    chosen = classes.get(type(worker).__name__) or getattr(strategy, "value", strategy) or "default"
    flags = ["--dequeue-strategy", chosen]
    if worker.default_result_ttl is not None:
        flags += ["--results-ttl", str(worker.default_result_ttl)]
    for handler in worker._exc_handlers:  # noqa: SLF001  # RQ's own
        flags += ["--exception-handler", f"{handler.__module__}:{handler.__qualname__}"]
    return [*flags, *(["--disable-default-exception-handler"] if worker.disable_default_exception_handler else [])]


def _names(worker: Any) -> set[str]:
    """Return what an operator would open by name: the functions and callbacks of the jobs that there are."""
    client: Any = worker.connection
    found = set()
    for key in client.keys("rq:job:*"):
        if client.type(key) == b"hash":
            found |= _names_of(key.decode().removeprefix("rq:job:"), worker)
    return found


def _names_of(job_id: str, worker: Any) -> set[str]:
    try:
        job: Any = Job.fetch(job_id, connection=worker.connection, serializer=worker.serializer)
        instance = job.instance
        owner = instance if isinstance(instance, type) else type(instance)
        names = [job.func_name if instance is None else f"{owner.__module__}.{owner.__qualname__}.{job.func_name}"]
    except Exception:  # noqa: BLE001  # a job that cannot be read opens nothing
        return set()
    names += [job._success_callback_name, job._failure_callback_name, job._stopped_callback_name]  # noqa: SLF001  # RQ's own
    return {name for dotted in names if dotted and (name := _importable(dotted))}


def _importable(dotted: str) -> str:
    """Return "module:function" of what can be imported; nothing of what cannot."""
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module, name = ".".join(parts[:cut]), ".".join(parts[cut:])
        code = f"import {module} as m, operator; assert callable(operator.attrgetter({name!r})(m))"
        try:
            exec(code, {})  # noqa: S102  # names of RQ's own tests
        except Exception:  # noqa: BLE001, S112  # whatever such an import raises
            continue
        return f"{module}:{name}"
    return ""


def _has_run_something(log: str) -> bool:
    for line in reversed(log.splitlines()):
        if line.startswith("{") and (found := json.loads(line)).get("event") == "worker_stopped":
            return bool(found["succeeded"] + found["failed"])
    return False


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Put the replacements in place before RQ's tests are imported."""
    ConnectionPool.__init__ = open_pool  # type: ignore[method-assign]
    BaseWorker.work = work  # type: ignore[method-assign]
    if not STOCK:
        BaseProcess.start = start  # type: ignore[method-assign]
        BaseProcess.run = run  # type: ignore[method-assign]
