"""A worker's place in a queue file.

    join ─▶ a slot, a FIFO, a row ─▶ poll · heartbeat · run_maintenance · wait ... ─▶ leave: all three are gone
                                     │
            needs work (the last poll brought less than was wanted): a submit wakes it      else: only a request does

The FIFOs are those of `wakeups`, the rows those of `schema`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from taskq.errors import BackendUnavailable, ConfigError, StoreFull
from taskq.executors.sqlite.claims import claim, claim_one, claims_of, is_work, next_due
from taskq.executors.sqlite.jobs import prune
from taskq.executors.sqlite.maintenance import detach_jobs, is_dead, remains, requeue_held, sweep
from taskq.executors.sqlite.outcomes import (
    SMALL,
    apply_outcomes,
    apply_updates,
    begin,
    bytes_of,
    drop_arguments,
    envelope_size,
    no_longer_held,
    without_log,
    without_payload,
)
from taskq.executors.sqlite.page import AWAKE, OWN
from taskq.executors.sqlite.refusals import Refuser, forget_refusals
from taskq.executors.sqlite.wakeups import is_readable
from taskq.log import get_logger
from taskq.serving import QueueOrder
from taskq.store import ControlRequest, PollResult, WorkerSession

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence

    from taskq.executors.sqlite.database import Database
    from taskq.executors.sqlite.schema import Execute
    from taskq.executors.sqlite.transaction import Tx
    from taskq.executors.sqlite.wakeups import Fifo, Wakeups
    from taskq.store import Claim, JobOutcome, ProgressUpdate, Remains, WorkerRecord

__all__ = ["SQLiteSession"]

T = TypeVar("T")

#: What a poll brings: its transaction, what is found, which control requests were told, when the next job is due.
Polled: TypeAlias = "tuple[Tx, PollResult, set[tuple[str, Any]], float | None]"

log = get_logger("taskq.worker")

CONTROL_REQUESTS = (
    "SELECT wishes.n || '.' || fence, kill, id FROM wishes JOIN jobs ON jobs.n = wishes.n WHERE wishes.worker = ?"
)

#: Seconds between two looks of a worker that nobody wakeups: all that a lost wake-up costs.
LOOK_S = 1.0


def _control_request(job_id: str, how: Any) -> ControlRequest:
    """Return the request that a row tells: whether to kill, or that in one byte before its signature."""
    if type(how) is bytes:
        return ControlRequest(job_id=job_id, kill=how[:1] == b"\x01", seal=how[1:])
    return ControlRequest(job_id=job_id, kill=bool(how))


def _nothing(_: Tx) -> None:
    """Have nothing to do after a commit."""


class SQLiteSession(WorkerSession):
    """Keep a worker's slot and FIFO; made by `SQLiteStore.join`."""

    def __init__(self, database: Database, wakeups: Wakeups, record: WorkerRecord) -> None:
        self._database = database
        self._page = database.page
        self._wakeups = wakeups
        self._name = record.name
        self._queues = record.queues
        self._order = QueueOrder(record.queues, record.serving.strategy)
        self._seen = 0  # the newest change that the last poll saw
        self._needs_work = True
        self._due: float | None = None  # when the next scheduled job may start
        self._held: set[str] = set()  # the tokens of our jobs
        self._told: set[tuple[str, Any]] = set()
        self._unclear = False  # whether a call has failed that may have claimed jobs
        self._written_updates: list[ProgressUpdate] = []  # what such a call has written down
        self._heartbeat_at = self._trust_from = time.monotonic()
        self._left = False
        self._refuser: Refuser | None = None  # ourselves, once we have refused a job
        self._record = record
        self._generation = -1  # of the file in which we have signed on last
        #: Our place on the page and the FIFO by which we are woken; while it is open for reading, we live.
        self.slot = -1
        self.fifo: Fifo | None = None
        try:
            database.write(self._sign_on)
        except BaseException:
            self._close_fifo()
            raise

    def _sign_on(self, tx: Tx) -> None:
        row = tx.execute("SELECT slot, renewed FROM workers WHERE name = ?", (self._name,)).fetchone()
        if row is not None:
            if not is_dead(self._wakeups, row[0], row[1]):
                raise ConfigError(f"a worker named {self._name!r} is at work here already: choose another --name")
            detach_jobs(tx, self._name)
            tx.execute("DELETE FROM workers WHERE name = ?", (self._name,))
        forget_refusals(tx.execute, self._name)
        self._write_row(tx)

    def _take_place(self, tx: Tx) -> None:
        """Have a FIFO, in a slot that no other worker has who may live."""
        if self.fifo is not None and self.fifo.is_there():
            return
        self._close_fifo()
        rows = tx.execute("SELECT slot, renewed FROM workers WHERE name <> ?", (self._name,)).fetchall()
        taken = [slot for slot, renewed in rows if not is_dead(self._wakeups, slot, renewed)]
        self.slot, self.fifo = self._wakeups.new_worker(taken)

    def _close_fifo(self) -> None:
        if self.fifo is not None:
            self.fifo.close()
            self.fifo = None

    def _write_row(self, tx: Tx) -> None:
        """Write down, or again, that we are here."""
        self._take_place(tx)
        record = self._record
        tx.execute("DELETE FROM workers WHERE name = ? OR slot = ?", (self._name, self.slot))
        self._generation = self._database.generation
        self._seen = -1
        values = (
            self.slot,
            record.name,
            record.host,
            record.pid,
            ",".join(record.queues),
            record.processes,
            record.version,
            record.started_at or tx.now,
            tx.now,
            time.monotonic(),
            record.running,
            record.succeeded,
            record.failed,
            record.stopping,
        )
        marks = ", ".join("?" * len(values))
        tx.execute(f"INSERT OR REPLACE INTO workers VALUES ({marks})", values)
        tx.page.count_workers_change()

    # -- outcomes and claims

    def poll(self, outcomes: Sequence[JobOutcome], updates: Sequence[ProgressUpdate], want: int) -> PollResult:
        if not (outcomes or updates or want or self._unclear) and self._has_seen(self._page.changes):
            return PollResult()
        fresh = [update for update in updates if not any(update is known for known in self._written_updates)]
        if self._order.takes_turns:
            self._order.told(outcomes)
        unclear, self._unclear = self._unclear, True
        tx, found, told, due = self._polled_in_room(outcomes, fresh, want, unclear=unclear)
        self._unclear = False
        self._written_updates.clear()
        self._seen, self._due = tx.number, due
        self._needs_work = len(found.claims) < want
        self._held.difference_update([outcome.token for outcome in outcomes])
        self._held.update([one.token for one in found.claims])
        self._told = {key for key in self._told if key[0] in self._held} | told
        self._wakeups.wake_subscriptions(tx)
        return found

    def _polled_in_room(
        self, outcomes: Sequence[JobOutcome], updates: Sequence[ProgressUpdate], want: int, *, unclear: bool
    ) -> Polled:
        """Poll; where there is little room, tell the outcomes one by one first, each as it fits."""
        size = bytes_of(outcomes, updates) if outcomes or updates else 0
        if not size or self._database.disk_space.fits(size):
            try:
                return self._polled(outcomes, updates, want, unclear=unclear)
            except BackendUnavailable as exc:
                if not isinstance(exc.__cause__, StoreFull) or not outcomes:
                    raise
        fenced = [job_id for outcome in outcomes for job_id in self._tell_in_little_space(outcome)]
        updates = [without_log(update) for update in updates]
        try:
            found = self._polled((), updates, want, unclear=unclear)
        except BackendUnavailable as exc:
            if not (want and outcomes and isinstance(exc.__cause__, StoreFull)):
                raise
            # Claims would need room; what gives room back are ends, and those have been told.
            found = self._polled((), updates, 0, unclear=unclear)
        found[1].fenced = [*fenced, *found[1].fenced]
        return found

    def _tell_in_little_space(self, outcome: JobOutcome) -> list[str]:
        """Tell one outcome, with its result where that fits; return its job if it came too late."""
        size = bytes_of([without_log(outcome)], ())
        if size > SMALL:
            size -= self._database.read(lambda connection: envelope_size(connection, outcome.token))
        if size <= SMALL or self._database.disk_space.fits(size):
            try:
                return self._write(lambda tx: self._apply_in_little_space(tx, without_log(outcome)), told=True)
            except BackendUnavailable as exc:
                if not isinstance(exc.__cause__, StoreFull):
                    raise
        told = without_payload(outcome)
        if told.state is not outcome.state:
            log.warning(
                "result_dropped", job=outcome.id, bytes=len(outcome.result or b""), reason="no room on the disk"
            )
        return self._write(lambda tx: self._apply_in_little_space(tx, told), told=True)

    def _apply_in_little_space(self, tx: Tx, outcome: JobOutcome) -> list[str]:
        drop_arguments(tx, outcome)
        return apply_outcomes(tx, [outcome], self._name)

    def _polled(
        self, outcomes: Sequence[JobOutcome], updates: Sequence[ProgressUpdate], want: int, *, unclear: bool
    ) -> Polled:
        return self._write(
            lambda tx: self._poll(tx, outcomes, updates, want, unclear=unclear),
            lasting=bool(outcomes),
            after=lambda _: self._written_updates.extend(updates),
        )

    def _poll(
        self, tx: Tx, outcomes: Sequence[JobOutcome], updates: Sequence[ProgressUpdate], want: int, *, unclear: bool
    ) -> Polled:
        if self._database.generation != self._generation:
            self._write_row(tx)
        fenced = apply_updates(tx, updates) if updates else []
        if outcomes:
            if self._refuser is None and any(outcome.refused for outcome in outcomes):
                self._refuser = Refuser(self._name)
            fenced += apply_outcomes(tx, outcomes, self._name)
            prune(tx, 2 * len(outcomes))
        claims = claims_of(tx, self._name, self._held) if unclear else []
        self._begin_look(anew=unclear)
        if want > len(claims):
            claims += self._order.take(want - len(claims), lambda queues, most: self._claim(tx, queues, most))
        due = self._next_look(tx.execute) if len(claims) < want else None
        fresh = self._control_requests(tx.execute)
        control_requests = [_control_request(job_id, kill) for _, kill, job_id in fresh]
        told = {(token, kill) for token, kill, _ in fresh}
        return tx, PollResult(claims=claims, control_requests=control_requests, fenced=fenced), told, due

    def _claim(self, tx: Tx, queues: Sequence[str], want: int) -> list[Claim]:
        return claim(tx, self._name, queues, want, refuser=self._refuser)

    def _control_requests(self, execute: Execute) -> list[tuple[str, Any, str]]:
        """Return the control requests that were not told yet; each stays in the file until its job has ended."""
        rows = execute(CONTROL_REQUESTS, (self._name,)).fetchall()
        return [row for row in rows if row[:2] not in self._told]

    def claim_one(self, job_id: str) -> Claim | None:
        found = self._write(lambda tx: claim_one(tx, self._name, job_id, refuser=self._refuser), lasting=False)
        if found is not None:
            self._held.add(found.token)
        return found

    def begin(self, claims: Sequence[tuple[str, str]]) -> list[str]:
        return self._write(lambda tx: begin(tx, claims))

    def _write(
        self,
        work: Callable[[Tx], T],
        *,
        lasting: bool = True,
        after: Callable[[Tx], None] = _nothing,
        told: bool = False,
    ) -> T:
        """Write; a full disk is one more way in which the store cannot be reached now. `told`: wake who hears of it."""

        def committed(tx: Tx) -> None:
            after(tx)
            self._wakeups.after(tx)

        try:
            kept = self._wakeups.wake_subscriptions if told else None
            return self._database.write(work, lasting=lasting, after=committed, kept=kept)
        except StoreFull as exc:
            raise BackendUnavailable(str(exc)) from exc

    # -- signs of life

    def heartbeat(self, record: WorkerRecord, held: Collection[tuple[str, str]]) -> list[str]:
        now = time.monotonic()
        if now - self._heartbeat_at > self._wakeups.lease / 2:
            self._trust_from = now + self._wakeups.lease  # we were frozen ourselves; so may the others have been
        self._record = record
        lost = self._write(lambda tx: self._heartbeat(tx, held), lasting=False)
        self._heartbeat_at = now
        self._held.difference_update([token for job_id, token in held if job_id in lost])
        return lost

    def _heartbeat(self, tx: Tx, held: Collection[tuple[str, str]]) -> list[str]:
        if self._is_displaced():
            self._write_row(tx)
            return no_longer_held(tx, held)
        record = self._record
        found = tx.execute(
            "UPDATE workers SET seen = ?, renewed = ?, processes = ?, running = ?, succeeded = ?, failed = ?, "
            "stopping = ? WHERE slot = ? AND name = ?",
            (
                tx.now,
                time.monotonic(),
                record.processes,
                record.running,
                record.succeeded,
                record.failed,
                record.stopping,
                self.slot,
                self._name,
            ),
        )
        if not found.rowcount:
            self._write_row(tx)  # somebody took us for dead
        return no_longer_held(tx, held)

    def remains(self) -> Remains:
        self._begin_look(anew=True)
        return self._database.read(lambda connection: remains(connection.execute, self._queues, self._refuser))

    def _is_displaced(self) -> bool:
        """Return whether our FIFO was removed, or the file is another one."""
        there = self.fifo is not None and self.fifo.is_there()
        return not there or self._database.generation != self._generation

    def run_maintenance(self) -> int:
        try:
            trust_clock = time.monotonic() >= self._trust_from
            held = None if self._unclear else self._held
            return sweep(self._database, self._wakeups, self._name, held, trust_clock=trust_clock)
        except StoreFull as exc:
            raise BackendUnavailable(str(exc)) from exc

    # -- sleep

    def wait(self, timeout: float, wake_fd: int) -> None:
        deadline = time.monotonic() + timeout
        while not self._is_wanted(self._look_around()):
            now = time.monotonic()
            nap = min(deadline - now, LOOK_S, self._until_due())
            if self._sleep(nap, wake_fd) or nap < LOOK_S or is_readable(wake_fd):
                return

    def _look_around(self) -> int:
        """Return the number of the newest change; take a new place first, where the old one is no longer there."""
        self._database.opened()
        if self._is_displaced():
            self._write(self._write_row, lasting=False)
        return self._page.changes

    def _sleep(self, nap: float, wake_fd: int) -> bool:
        """Sleep for so long, unless something has changed since the last look; return whether we were woken."""
        page, fifo = self._page, self.fifo
        if fifo is None:
            return True
        page.flag_worker(self.slot, OWN if self._needs_work else AWAKE)
        try:
            if nap > 0 and self._has_seen(page.changes):
                fifo.wait(nap, wake_fd)
            return fifo.drain()
        finally:
            self._page.flag_worker(self.slot, AWAKE)

    def _has_seen(self, changes: int) -> bool:
        return changes == self._seen and self._database.generation == self._generation

    def _is_wanted(self, changes: int) -> bool:
        """Return whether there is work or a control request; looks only after a change."""
        if self._has_seen(changes):
            return False
        wanted, self._due = self._database.read(self._look)
        if not wanted:
            self._seen = changes
        return wanted

    def _look(self, connection: sqlite3.Connection) -> tuple[bool, float | None]:
        if self._control_requests(connection.execute):
            return True, None
        if not self._needs_work:
            return False, None
        self._begin_look()
        return is_work(connection.execute, self._queues, self._refuser), self._next_look(connection.execute)

    def _begin_look(self, *, anew: bool = False) -> None:
        """Look at the jobs that we have refused as the file and its workers are now; `anew`: at all of them."""
        if self._refuser is not None:
            self._refuser.begin((self._database.generation, self._page.workers_generation))
            if anew:
                self._refuser.clear()

    def _next_look(self, execute: Execute) -> float | None:
        """Return when the next scheduled job may start, or jobs that were passed over are to be looked at again."""
        due = next_due(execute)
        if self._refuser is None or self._refuser.look_at is None:
            return due
        look_at = time.time() + self._refuser.look_at - time.monotonic()
        return look_at if due is None else min(due, look_at)

    def _until_due(self) -> float:
        return LOOK_S if self._due is None else self._due - time.time()

    def leave(self) -> None:
        if self._left:
            return
        self._page.flag_worker(self.slot, AWAKE)
        self._write(self._sign_off)
        self._left = True
        self._close_fifo()

    def _sign_off(self, tx: Tx) -> None:
        requeue_held(tx, self._name)
        forget_refusals(tx.execute, self._name)
        tx.execute("DELETE FROM workers WHERE name = ?", (self._name,))
        tx.page.count_workers_change()
