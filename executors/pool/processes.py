"""The Process classes that `multiprocessing.Pool` starts for us, and the context that makes it use them.

Pool creates, names, reaps and replaces its processes in a thread of its own; it offers no hook. A context whose
`Process` is ours gives two: `start` survives what would kill that thread, and `join` tells the exit code. Its queues,
which no child uses, are ours too: they need no semaphores of the system. Only public names of multiprocessing are used.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.context
import multiprocessing.queues
import os
import sys
import tempfile
import threading
import time
import weakref
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol

from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext

#: Seconds before the first new try of a start that failed, doubled up to the second figure.
_BACKOFF, _BACKOFF_MAX = 0.01, 2.0
#: The exit code of a process that could not be started.
_EXIT_NOT_STARTED = 255


#: The exit code of a child whose program makes a pool while the child imports it.
NO_GUARD: Final = 114


def refuse_while_importing() -> None:
    """Start no pool in a process that is still importing the program that started it.

    Raises:
        ConfigError: the process was started by another library's pool; one of ours ends, and its parent says why.
    """
    process = multiprocessing.current_process()
    if not getattr(process, "_inheriting", False):
        return
    if "TaskqPoolWorker" in process.name:
        os._exit(NO_GUARD)
    raise ConfigError(
        "a child process is importing this program, which makes a queue as it is imported: put that under "
        '`if __name__ == "__main__":`'
    )


class Watcher(Protocol):
    """Hear of processes, in Pool's thread."""

    def exited(self, pid: int | None, exitcode: int | None) -> None:
        """Note that a process has ended and was reaped. `pid` None: it could not be started."""


class StartPolicy:
    """What the processes of one pool share in the parent: who watches, and how failing starts are met."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher: Watcher | None = watcher
        #: While the pool is made, a start that fails is the caller's error; later it is tried again.
        self.lenient = False
        self._failures = 0
        # The sentinel of a process that could not be started: readable for ever. Made while there are descriptors. One
        # such process at a time has it, which is enough: Pool, woken by one, joins all that have ended.
        self.at_its_end, write_end = os.pipe()
        os.close(write_end)
        self._free = weakref.finalize(self, os.close, self.at_its_end)
        self._free.atexit = False
        self.failed_to_start: object | None = None
        self._started: weakref.WeakSet[BaseProcess] = weakref.WeakSet()

    def close(self) -> None:
        """Free what it uses, when there are no more processes."""
        self._free()

    def remember(self, process: BaseProcess) -> None:
        """Keep a process findable as long as Pool keeps it."""
        self._started.add(process)

    def any_alive(self, within: float) -> bool:
        """Return whether a process has not ended; wait up to so many seconds for one that does."""
        alive = [process for process in list(self._started) if process.is_alive()]
        if alive:
            wait([process.sentinel for process in alive], within)
        return bool(alive)

    def kill_all(self) -> None:
        """Kill every process that was not reaped, also one that never said hello."""
        for process in list(self._started):
            with contextlib.suppress(OSError, ValueError):
                process.kill()

    def begin(self, start: Callable[[], None]) -> bool:
        """Call `start`; return whether it worked. A failure delays the next try, ever longer."""
        if self._failures:
            time.sleep(min(_BACKOFF * 2 ** (self._failures - 1), _BACKOFF_MAX))
        try:
            start()
        except Exception as error:  # whatever it was, it must not kill Pool's thread: fork EAGAIN, EMFILE, EPIPE
            _close_left_pipes(error)
            if not self.lenient:
                raise
            self._failures += 1
            return False
        self._failures = 0
        return True


def _close_left_pipes(error: Exception) -> None:
    """Close the pipes that CPython (3.11 to 3.13) leaves open when a start fails on its way.

    `popen_fork._launch` does so when `os.fork` fails or its second pipe, `forkserver.connect_to_new_process` when its
    second pipe does: it closes what it has only after it has all.
    """
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        where = frame.f_globals.get("__name__"), frame.f_code.co_name
        left = [frame.f_locals[name] for name in _PIPE_NAMES if name in frame.f_locals]
        if where == ("multiprocessing.popen_fork", "_launch") or (
            where == ("multiprocessing.forkserver", "connect_to_new_process") and len(left) < len(_PIPE_NAMES)
        ):
            for fd in left:
                os.close(fd)
        trace = trace.tb_next


#: The descriptors of a start, as CPython's functions name them.
_PIPE_NAMES: Final = ("parent_r", "child_w", "child_r", "parent_w")


class _MainProgram:
    """The main module of a program that multiprocessing does not import in children: of a package, folder or zip file.

    When it is unpickled, it is imported, under the name that multiprocessing gives to others.
    """

    def __reduce__(self) -> Any:
        main = sys.modules["__main__"]
        name = getattr(getattr(main, "__spec__", None), "name", None) or ""
        place = os.path.dirname(os.path.abspath(getattr(main, "__file__", None) or ""))  # noqa: PTH100, PTH120
        if name == "__main__":
            return _import_main, ("", place)
        return (_import_main, (name, "")) if name.endswith(".__main__") else (str, ())


def _import_main(name: str, place: str) -> None:
    """Run the main module in a child, without what stands under `if __name__ == "__main__":`."""
    if sys.modules["__main__"].__name__ == "__mp_main__":  # imported before
        return
    import runpy  # noqa: PLC0415  # few programs need it

    main = ModuleType("__mp_main__")
    content = (
        runpy.run_module(name, run_name="__mp_main__", alter_sys=True)
        if name
        else runpy.run_path(place, run_name="__mp_main__")
    )
    main.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


class _Watched:
    """Mixed into the Process class of each start method."""

    policy: StartPolicy | None
    _stillborn = False
    _owner: int | None = None
    #: Whether the kernel tells us of its end; a fork server's children are not ours.
    _is_our_child = True
    #: A descriptor that tells of its end, and how it is closed.
    _death: int | None = None
    _forget_death: weakref.finalize[..., Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the parent's side behind when a process object is sent to its process."""
        return {"main": _MainProgram(), **self.__dict__, "policy": None}  # in this order: the rest may be of its names

    def start(self) -> None:
        assert self.policy is not None  # noqa: S101  # set by the context, kept in the parent
        self._owner = os.getpid()
        if not self.policy.begin(super().start):  # type: ignore[misc]
            self._stillborn = True
            self.policy.failed_to_start = self.policy.failed_to_start or self
        else:
            self._watch_death()
            self.policy.remember(self)  # type: ignore[arg-type]

    def _watch_death(self) -> None:
        """Open what tells of its end whoever else lives on: a process that a job forks keeps multiprocessing's pipe."""
        if self._is_our_child and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # no descriptors left: then by that pipe
                self._death = os.pidfd_open(self.pid)  # type: ignore[attr-defined]
                self._forget_death = weakref.finalize(self, os.close, self._death)
                self._forget_death.atexit = False

    def _is_foreign(self) -> bool:
        """Tell whether this is the copy in a process that the program forked: these are not its children."""
        return self._owner is not None and self._owner != os.getpid()

    @property
    def daemon(self) -> bool:
        """Whether multiprocessing ends it at exit. A forked copy of the parent must not end its siblings."""
        return not self._is_foreign() and bool(BaseProcess.daemon.fget(self))  # type: ignore[attr-defined]

    @daemon.setter
    def daemon(self, value: bool) -> None:
        BaseProcess.daemon.fset(self, value)  # type: ignore[attr-defined]

    def join(self, timeout: float | None = None) -> None:
        if self._is_foreign():
            return
        if self._stillborn:
            if self.policy is not None and self.policy.failed_to_start is self:
                self.policy.failed_to_start = None
            self._tell(None, _EXIT_NOT_STARTED)
            return
        super().join(timeout)  # type: ignore[misc]
        if self.exitcode is not None:
            if self._forget_death is not None:
                self._death = None
                self._forget_death()
            self._tell(self.pid, self.exitcode)  # type: ignore[attr-defined]

    def _tell(self, pid: int | None, exitcode: int) -> None:
        if self.policy is not None and self.policy.watcher is not None:
            self.policy.watcher.exited(pid, exitcode)

    @property
    def exitcode(self) -> int | None:
        if self._stillborn:
            return _EXIT_NOT_STARTED
        found: int | None = super().exitcode  # type: ignore[misc]
        return found

    @property
    def sentinel(self) -> int:
        if self._stillborn:
            if self.policy is None or self.policy.failed_to_start is not self:
                raise AttributeError("it was not started, and another one tells Pool so")
            return self.policy.at_its_end
        if self._death is not None:
            return self._death
        found: int = super().sentinel  # type: ignore[misc]
        return found

    def terminate(self) -> None:
        if not self._stillborn:
            super().terminate()  # type: ignore[misc]


class ForkTaskqProcess(_Watched, multiprocessing.context.ForkProcess):
    """A child made by fork; Pool names it ForkTaskqPoolWorker-N."""


class SpawnTaskqProcess(_Watched, multiprocessing.context.SpawnProcess):
    """A child made by spawn."""


class ForkServerTaskqProcess(_Watched, multiprocessing.context.ForkServerProcess):
    """A child made by forkserver."""

    _is_our_child = False

    def start(self) -> None:
        with _one_at_a_time:
            with contextlib.suppress(Exception):  # the start itself will say what is wrong
                _start_server()
            super().start()


_one_at_a_time = threading.Lock()


def _in_forked_process() -> None:
    """Have a lock of our own, since the thread that may hold the old one is not here, and a fork server of our own.

    The old server is no child of this process, which multiprocessing (3.11 to 3.13) takes for granted: it could start
    nothing more by it.
    """
    global _one_at_a_time  # noqa: PLW0603  # as said
    _one_at_a_time = threading.Lock()
    server: Any = forkserver._forkserver  # noqa: SLF001  # see _connect_by_descriptor
    server._lock = threading.Lock()  # noqa: SLF001  # as above
    if server._forkserver_pid is not None:  # noqa: SLF001  # as above
        server._forkserver_pid = server._forkserver_address = None  # noqa: SLF001  # as above
        alive, server._forkserver_alive_fd = server._forkserver_alive_fd, None  # noqa: SLF001  # as above
        with contextlib.suppress(OSError, TypeError):
            os.close(alive)  # the server lives as long as somebody has it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)

#: A descriptor that leads to the fork server's socket.
_way_to_server: int | None = None


def _start_server() -> None:
    """Start the fork server if it does not run, and leave no trace of it among the temporary files.

    multiprocessing makes a folder for the server's socket, which would stay when this program is killed. Here it is
    given one, which goes at once: the socket needs no name once there is a descriptor to connect by. Linux only.
    """
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001
    if not hasattr(os, "O_PATH") or not os.path.isdir("/proc/self/fd") or config.get("tempdir"):  # noqa: PTH112
        return
    with tempfile.TemporaryDirectory(prefix="pymp-") as folder:
        config["tempdir"] = folder
        try:
            forkserver.ensure_running()
            _connect_by_descriptor(folder)
        finally:
            config["tempdir"] = None


def _connect_by_descriptor(folder: str) -> None:
    global _way_to_server  # one fork server for each program
    server: Any = forkserver._forkserver  # noqa: SLF001  # it has no public way to its address
    address = server._forkserver_address  # noqa: SLF001  # as above
    if not address.startswith(f"{folder}/"):  # it ran before
        return
    old, _way_to_server = _way_to_server, os.open(address, os.O_PATH)
    server._forkserver_address = f"/proc/self/fd/{_way_to_server}"  # noqa: SLF001  # as above
    if old is not None:
        os.close(old)


class _Patient(Connection):
    """A pipe's read end whose reader sleeps in `select`, which gevent replaces, not in `read`, which stops it whole."""

    def recv(self) -> Any:
        """Return the next object."""
        wait([self])
        return super().recv()


class _NotSent:
    """Stand for an end of a queue in a child, which has no use for it."""

    def close(self) -> None:
        """Do nothing."""

    poll = close  # SimpleQueue asks for it


class _IdleQueue(multiprocessing.queues.SimpleQueue[Any]):
    """A queue of Pool's whose locks are those of this process.

    Named semaphores stay in /dev/shm when everything is killed at once, and some systems have none.
    """

    _reader: Any
    _poll: Any

    #: What SimpleQueue asks its context for.
    Lock = threading.Lock

    def __init__(self) -> None:
        super().__init__(ctx=self)
        with self._reader as plain:
            self._reader = _Patient(os.dup(plain.fileno()), writable=False)
        self._poll = self._reader.poll

    def __getstate__(self) -> Any:
        """Leave everything behind when a queue is sent to a child, which takes nothing from it."""
        return _NotSent(), _NotSent(), None, None


_CLASSES: dict[str, Any] = {
    "fork": ForkTaskqProcess,
    "spawn": SpawnTaskqProcess,
    "forkserver": ForkServerTaskqProcess,
}


def default_start_method() -> str:
    """Return the safest start method here: forkserver where there is one (safe in threaded programs), else spawn."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def watched_context(start_method: str, policy: StartPolicy) -> BaseContext:
    """Return a multiprocessing context whose processes follow `policy`."""
    context = type(multiprocessing.get_context(start_method))()
    process_class = _CLASSES[start_method]

    def make(*args: Any, **kwargs: Any) -> Any:
        process = process_class(*args, **kwargs)
        process.policy = policy
        return process

    context.Process = make  # type: ignore[attr-defined]
    context.SimpleQueue = _IdleQueue  # type: ignore[method-assign]
    return context
