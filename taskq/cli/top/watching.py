"""A thread that looks at the store, so that a slow one never freezes the screen.

    app ── order(...), detail ──▶ Watcher's thread ──▶ store
        ◀── latest, message ────  └── changed() after each look: wakes the app

Orders are done in the order of the keys; one that fails for an absent store is tried again with the next look.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

from taskq.cli.exits import sentence
from taskq.cli.top.model import Detail, Snapshot, Throughput, look
from taskq.errors import BackendUnavailable, TaskqError
from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from taskq.cli.top.state import Order
    from taskq.store import Store

__all__ = ["Watcher"]

#: Bytes of a log that are kept for the screen.
LOG_KEPT = 1 << 16

#: Seconds that the thread gets to end; one that hangs in a store does not keep the program.
JOIN = 2.0


class Watcher:
    """Look at a store every so many seconds while inside `with`. `latest` and `message` are new after `changed`."""

    def __init__(self, store: Store, every: float, changed: Callable[[], None]) -> None:
        self._store = store
        self._every = every
        self._changed = changed
        self._throughput = Throughput()
        self._orders: deque[Order] = deque()
        self._wake, self._ended = Event(), False
        self._detail: str | None = None
        self._log_of: str | None = None
        self._log, self._offset = b"", 0
        self.latest = Snapshot(url=store.url, now=time.time(), trouble="looking ...")
        self.message = ""
        self._thread = Thread(target=self._run, name="taskq-top", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join(JOIN)

    def order(self, order: Order) -> None:
        """Have this done soon, and look again."""
        self._orders.append(order)
        self._wake.set()

    def show(self, job_id: str | None) -> None:
        """Look at this job closely from now on; None: at none."""
        if job_id != self._detail:
            self._detail = job_id
            self._wake.set()

    def _run(self) -> None:
        while not self._ended:
            self._wake.clear()
            try:
                self._turn()
            except TaskqError as exc:
                self.latest = replace(self.latest, trouble=sentence(exc))
            self._changed()
            self._wake.wait(self._every)

    def _turn(self) -> None:
        while self._orders:
            try:
                self.message = self._obey(self._orders[0])
            except BackendUnavailable:
                raise
            except TaskqError as exc:
                self.message = sentence(exc)
            self._orders.popleft()
        self.latest = look(self._store, self._throughput, self._look_closely())

    def _obey(self, order: Order) -> str:
        """Do what a key asks for; return what came of it."""
        name = order.target
        if order.verb in ("pause", "resume"):
            (self._store.pause if order.verb == "pause" else self._store.resume)(name)
            return f"queue {name} is {'paused' if order.verb == 'pause' else 'running again'}"
        if order.verb == "retry":
            (again,) = self._store.retry([name])
            return f"{name} is queued again" if again else f"{name} has neither failed nor been cancelled"
        (state,) = self._store.cancel([name], kill=order.verb == "kill")
        if state is State.RUNNING:
            return f"{name} was {'told to die' if order.verb == 'kill' else 'asked to stop; K kills it'}"
        return f"{name} is {state or 'gone'}"

    def _look_closely(self) -> Detail | None:
        job_id = self._detail
        if job_id is None:
            return None
        if job_id != self._log_of:
            self._log_of, self._log, self._offset = job_id, b"", 0
        (record,) = self._store.get([job_id])
        piece = self._store.log(job_id, self._offset)
        self._offset += len(piece)
        self._log = (self._log + piece)[-LOG_KEPT:]
        return Detail(record=record, log=self._log)
