"""A pytest plugin for RQ's own tests: whatever its workers are told to do is done by a `taskq worker`.

`BaseWorker.work` is replaced; all else of RQ's classes stays. Which tests have called it is written down, as only those
tell something about the worker. RQ_SUITE_WORKER=stock leaves RQ's own in place, and writes the same list.
RQ_SUITE_PORT: of a redis-server of its own; RQ's tests ask for 6379.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis.connection import Connection
from rq.job import Job
from rq.worker import BaseWorker

PORT = int(os.environ["RQ_SUITE_PORT"])
STOCK = os.environ.get("RQ_SUITE_WORKER") == "stock"
CALLED = Path(os.environ["RQ_SUITE_CALLED"])

#: Seconds that a burst may take.
LIMIT = 50

_open = Connection.__init__
_work = BaseWorker.work


def connect(self: Any, *args: Any, **kwargs: Any) -> None:
    """Connect to the server of this run in place of the one that RQ's tests expect."""
    if kwargs.get("port", 6379) == 6379:  # the port of Redis
        kwargs["port"] = PORT
    _open(self, *args, **kwargs)


def work(self: Any, burst: bool = False, *args: Any, **kwargs: Any) -> bool:
    """Do what a worker was told, by a `taskq worker`; return whether it has run something."""
    with CALLED.open("a") as file:
        file.write(os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0] + "\n")
    if STOCK:
        done: bool = _work(self, burst, *args, **kwargs)
        return done
    command = _command(self, burst=burst, max_jobs=kwargs.get("max_jobs"))
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    if not burst and multiprocessing.parent_process() is not None:
        os.execve(command[0], command, environment)  # noqa: S606  # the process that RQ's test has made for its worker
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            log = process.communicate(timeout=LIMIT)[1]
        except BaseException:
            process.terminate()
            raise
    sys.stderr.write(log)
    return _has_run_something(log)


def _command(worker: Any, *, burst: bool, max_jobs: int | None) -> list[str]:
    options = worker.connection.connection_pool.connection_kwargs
    url = f"redis://127.0.0.1:{PORT}/{options.get('db', 0)}?allow_pickle=1&allow_callbacks=1"
    command = [sys.executable, "-m", "taskq", "worker", "--url", url, "--queues", ",".join(worker.queue_names())]
    command += ["--name", worker.name, "--processes", "1", "--log-format", "json", "--grace", "5"]
    for name in ("tests.fixtures", *sorted(_names(worker))):
        command += ["--import", name]
    return [*command, *(["--burst"] if burst else []), *(["--max-jobs", str(max_jobs)] if max_jobs else [])]


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
    names += [job._success_callback_name, job._failure_callback_name, job._stopped_callback_name]
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
    Connection.__init__ = connect  # type: ignore[method-assign]
    BaseWorker.work = work  # type: ignore[method-assign, assignment]
