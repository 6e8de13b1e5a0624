"""`taskq worker` as operators start it: a process in a session of its own, ended by pid, nothing of it left behind.

with WorkerProcess(url, folder) as worker:      started, and known to its store
    worker.kill()                               or stop(), freeze(), thaw()
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from taskq.connect import open_store
from taskq.errors import BackendUnavailable
from tests import processes
from tests.scripts import environment
from tests.variants import PROCESSES
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from taskq.store import WorkerRecord

#: What of Python's own the tests submit: an operator would have to name each of these.
PYTHONS = (
    *("abs", "bool", "bytes", "complex", "dict", "dict.fromkeys", "divmod", "float", "hex", "int", "len", "list"),
    *("max", "min", "ord", "pow", "print", "repr", "set", "sorted", "str", "str.upper", "sum", "tuple"),
)

#: What the workers of tests are told to trust: the tests' own tasks, and what of Python they submit.
IMPORTS = (
    *("tests.sample_tasks", "tests.sample_errors", "tests.sample_retries", "tests.ledger"),
    "tests.sample_tasks:Arithmetic.tripled",
    *(f"builtins:{name}" for name in PYTHONS),
    *("math:factorial", "math:gcd", "math:sqrt", "_operator:add", "_operator:mul", "_operator:neg", "_operator:sub"),
    *("time:sleep", "time:time", "posix:_exit", "posix:getpid", "posix:kill"),
)

_numbers = itertools.count()


def _begin() -> None:
    processes.die_with_parent()
    processes.take_signals()


class WorkerProcess:
    """One worker daemon; leaving the `with` block ends it and whatever is left of its session."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        processes: int = PROCESSES,
        queues: Sequence[str] = (),
        imports: Sequence[str] = IMPORTS,
        arguments: Sequence[str] = (),
        name: str | None = None,
        prefix: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        look_at: str | None = None,
    ) -> None:
        """Prepare it.

        `prefix`: the command behind which it is started, as `ip netns exec NAME`; `look_at`: the store's URL as this
        process reaches it, where that is another.
        """
        self.url = url
        self.name = name or f"worker-{os.getpid()}-{next(_numbers)}"
        self.folder = folder
        self.look_at = look_at or url
        self._variables = dict(variables or {})
        self.command = [
            *prefix,
            *(sys.executable, "-m", "taskq", "worker", "--url", url),
            *("--processes", str(processes), "--name", self.name),
            *(word for module in imports for word in ("--import", module)),
            *(("--queues", ",".join(queues)) if queues else ()),
            *arguments,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._session = 0

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- its life

    def start(self) -> None:
        """Start it, without waiting for anything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment(TMPDIR=str(self.folder), **self._variables),
                start_new_session=True,
                preexec_fn=_begin,  # noqa: PLW1509 - it makes system calls, no more
            )
        self._session = self._process.pid
        processes.servers.add(self._session)

    def wait_until_ready(self) -> None:
        """Return when the store knows it."""
        eventually(self._is_known, f"worker {self.name} to sign on")

    def _is_known(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.command} ended with {self._process.returncode}:\n{self.log()}")
        return self.record() is not None

    def record(self) -> WorkerRecord | None:
        """Return what the store says of it; None: the store does not know it, or cannot be asked."""
        store = open_store(self.look_at)
        try:
            return next((found for found in store.workers() if found.name == self.name), None)
        except BackendUnavailable:
            return None
        finally:
            store.close()

    def signal(self, number: int) -> None:
        """Send the daemon a signal."""
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self._process.pid, number)

    def stop(self, limit: float = PATIENCE) -> int:
        """Tell it to stop (SIGTERM), and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(limit)

    def wait(self, limit: float = PATIENCE) -> int:
        """Return its exit code once it has ended."""
        assert self._process is not None
        try:
            return self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command} did not end in {limit:g} s:\n{self.log()}") from None

    def kill(self) -> None:
        """Kill the daemon, and only it: its children have to notice by themselves."""
        self.signal(signal.SIGKILL)
        self.wait()

    def kill_machine(self) -> None:
        """Kill the daemon and all its children at once, as when the plug is pulled."""
        processes.end(self.left())
        self.wait()

    def freeze(self) -> None:
        """Stop the daemon and its children by SIGSTOP, as when a machine sleeps."""
        for seen in self.left():
            os.kill(seen.pid, signal.SIGSTOP)
        eventually(lambda: all(processes.is_frozen(seen.pid) for seen in self.left()), "the worker to freeze")

    def thaw(self) -> None:
        """Let all of it go on after `freeze`."""
        for seen in self.left():
            os.kill(seen.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and whatever is left of its session, at once."""
        if self._process is None:
            return
        processes.end(self.left())
        self._process.wait()
        eventually(lambda: not self.left(), f"the processes of {self.name} to go after SIGKILL")
        self._reap()
        processes.servers.discard(self._session)
        self._process = None

    def _reap(self) -> None:
        """Take the exit status of its orphans, which this process adopted."""
        for seen in processes.everyone():
            if seen.session == self._session and seen.parent == os.getpid():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(seen.pid, os.WNOHANG)

    # -- what tests ask of it

    @property
    def pid(self) -> int:
        """Return the pid of the daemon."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Return whether the daemon is there."""
        return self._process is not None and self._process.poll() is None

    def left(self) -> list[processes.Seen]:
        """Return the living processes of its session, the daemon included."""
        return processes.of_session(self._session)

    def assert_gone(self, within: float = 20.0) -> None:
        """Fail unless every process of its session ends."""
        eventually(lambda: not self.left(), f"the processes of {self.name} to end; log:\n{self.log()}", within)

    def log(self) -> str:
        """Return what it has said."""
        path = self.folder / f"{self.name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
