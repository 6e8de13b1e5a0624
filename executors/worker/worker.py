"""The worker daemon: takes jobs from any store, runs them on its pool, tells the store what became of them.

              poll  ┌──────────────┐ claims   ┌──────┐ accept   ┌────────────┐ runs  ┌────────────┐
    store ◀───────▶ │ StoreSession │ ───────▶ │ Loop │ ───────▶ │ ClaimTable │ ────▶ │ PoolRunner │ ◀──▶ children
                    └──────────────┘ ◀─────── └──────┘ ◀─────── └────────────┘ ◀──── └────────────┘
                                     outcomes          collect                 ended
`Worker` has its settings, and its life from the first process to the last.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, closing
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskq import perform
from taskq.envelope import MAX_BYTES
from taskq.errors import ConfigError
from taskq.executors.worker.health import Health
from taskq.executors.worker.loop import CLEAN, Loop, WorkerOptions
from taskq.executors.worker.orphans import reaped
from taskq.executors.worker.runs import PoolRunner
from taskq.locks import hangups_blocked
from taskq.log import get_logger
from taskq.names import check_name
from taskq.serving import DEFAULT, USUAL, Serving

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taskq.store import Store

__all__ = ["Worker"]


log = get_logger("taskq.worker")

#: Seconds that the first child may take to be ready, with its imports, until that is worth a warning.
_START_LONG: Final = 10.0


class Worker:
    """Serve a store's queues. `run` does it in the calling thread; `stop` may be called from anywhere.

    - `queues`: in the order in which their jobs are taken.
    - `processes`: how many jobs run at once; None: one per CPU that this program may use.
    - `imports`: modules whose functions may be run; `allow_commands`: shell commands too.
    - `burst`: end when nothing waits or runs; `drain`: nor is to be run again later.
    - `max_jobs`: end after so many jobs. `only`: run this one job and end.
    - `grace`: seconds that running jobs get at a stop; `interrupts`: KeyboardInterrupt is raised in them at its begin.
    - `start_method`, `max_tasks_per_child`: as in `TaskQueue`.
    - `capture`: keep what jobs print, for `taskq logs`; else it goes where this process's output goes.
    - `serving`: the order of its queues, and what holds for jobs of other programs.
    - `exception_handlers`: functions by name, called with each of those that fails, and its error.
    - `health_port`: where /health and /metrics answer, on `health_host`.
    """

    def __init__(  # the settings of a daemon, by name
        self,
        store: Store,
        *,
        queues: Sequence[str] = ("default",),
        processes: int | None = None,
        imports: Iterable[str] = (),
        allow_commands: bool = False,
        burst: bool = False,
        drain: bool = False,
        max_jobs: int | None = None,
        name: str | None = None,
        grace: float = 30.0,
        only: str | None = None,
        start_method: str | None = None,
        max_tasks_per_child: int | None = None,
        health_port: int | None = None,
        health_host: str = "127.0.0.1",
        capture: bool = True,
        interrupts: bool = False,
        serving: Serving = USUAL,
        exception_handlers: Iterable[str] = (),
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}" if name is None else check_name("name", name)
        for queue in queues:
            check_name("queue", queue)
        self._store = store
        self._options = WorkerOptions(
            name=self.name,
            queues=tuple(queues),
            burst=burst,
            drain=drain,
            max_jobs=max_jobs,
            grace=grace,
            only=only,
            interrupts=interrupts,
            serving=serving,
        )
        limit = getattr(store, "max_bytes", MAX_BYTES)
        self._pool: dict[str, Any] = {
            "processes": processes,
            "queues": tuple(queues) if serving.strategy == DEFAULT else None,
            "start_method": start_method,
            "max_tasks_per_child": max_tasks_per_child,
            "capture": capture,
            "initializer": perform.allow,
            "initargs": (tuple(imports), allow_commands, limit, store.source, store.keys, tuple(exception_handlers)),
        }
        self._health = None if health_port is None else (health_host, health_port)
        self._stops = 0
        #: Its loop, once its pool has begun.
        self.loop: Loop | None = None

    def stop(self) -> None:
        """End in an orderly way; called again: at once. Safe in signal handlers."""
        self._stops += 1
        if self.loop is not None:
            self.loop.stop()

    def run(self) -> int:
        """Serve until stopped; return the exit code: 0 for a clean end, 1 for a forced one, 3 without the store.

        Raises:
            ConfigError: a module cannot be imported, or no process can be started.
            BackendUnavailable: the store cannot be reached at the start.
        """
        with ExitStack() as resources:
            resources.enter_context(reaped())
            health = None if self._health is None else resources.enter_context(closing(Health(*self._health)))
            with hangups_blocked():
                runner = resources.enter_context(closing(PoolRunner(**self._pool)))
            if not self._wait_for(runner):
                return CLEAN
            self.loop = Loop(self._store, runner, self._options)
            if health is not None:
                health.source = self.loop.report
            for _ in range(self._stops):
                self.loop.stop()
            return self.loop.run()

    def _wait_for(self, runner: PoolRunner) -> bool:
        """Return whether a process is ready for work, once one is or a stop was asked for."""
        began, told = monotonic(), False
        while not runner.is_ready():
            if not told and monotonic() - began > _START_LONG:
                told = True
                log.warning("worker_not_ready", name=self.name, seconds=_START_LONG, imports=self._pool["initargs"][0])
            if self._stops:
                return False
            if runner.broken is not None:
                raise ConfigError(_why(runner.broken))
        return True


def _why(text: str) -> str:
    """Return the sentence in what the pool says of children that do not start."""
    first = text.partition("\n")[0]
    return first.partition("taskq.errors.ConfigError: ")[2] or first
