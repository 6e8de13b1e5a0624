"""The child processes of one pool: made, replaced and ended by a `multiprocessing.Pool`.

Pool's own queues stay empty for all its life: `serve` is its initializer and does not return, so no job and no lock
ever goes through them (a process killed in `get` or `put` would take their lock with it, and the Pool would hang).
"""

from __future__ import annotations

from multiprocessing.pool import Pool
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import ConfigError
from taskq.executors.pool.child import ChildSettings, serve
from taskq.executors.pool.processes import StartPolicy, Watcher, watched_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.connection import HandshakeListener

#: Seconds a child gets to run its exit handlers before it is killed.
_GRACE: Final = 2.0
#: Seconds between two looks at whether the children have ended.
_LOOK: Final = 0.05


class ProcessGroup:
    """Own the Pool. Every method may be called from any thread, each once."""

    def __init__(
        self, processes: int, start_method: str, settings: ChildSettings, watcher: Watcher, listener: HandshakeListener
    ) -> None:
        """Start the processes.

        Raises:
            ConfigError: the folder for temporary files has too long a path for the fork server's socket.
            OSError, RuntimeError: they cannot be started at all; nothing is left behind.
        """
        self._policy = StartPolicy(watcher)
        try:
            self._pool: Any = Pool(
                processes,
                initializer=serve,
                initargs=(listener.child_end, settings),
                context=watched_context(start_method, self._policy),
            )
        except BaseException as exc:
            self._policy.close()
            if isinstance(exc, OSError) and "AF_UNIX path too long" in str(exc):
                from tempfile import gettempdir  # noqa: PLC0415  # no start needs it that goes well

                raise ConfigError(
                    f"child processes do not start: {gettempdir()} is too long a path for the sockets in it: set "
                    "TMPDIR to a shorter one"
                ) from exc
            raise
        self._policy.lenient = True

    def end(self, disconnect: Callable[[], None], kill: Callable[[], None]) -> None:
        """Replace no child any more, have them hang up and exit, and kill those that have not when the grace is over.

        `disconnect` closes the connections of children that have one now; it is called again for those that come late.
        """
        pool = self._pool
        pool.close()
        deadline = monotonic() + _GRACE
        disconnect()
        while not self._have_ended(_LOOK):
            disconnect()
            if monotonic() >= deadline:
                kill()
                self._policy.kill_all()
        pool.join()
        pool.terminate()  # nothing left to end: this drops what multiprocessing keeps for its exit
        self._policy.watcher = None
        self._policy.close()
        self._pool = None

    def _have_ended(self, within: float) -> bool:
        """Return whether no process is left, and none will come; wait up to so many seconds for the next step to it.

        In this thread: while the interpreter ends, Python 3.12 starts none any more that could wait in `Pool.join`.
        """
        starter = self._pool._worker_handler  # noqa: SLF001  # as Pool.join: first it, which starts and reaps processes
        starter.join(within)
        return not starter.is_alive() and not self._policy.any_alive(within)
