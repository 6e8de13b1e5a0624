"""`taskq transfer`: waiting jobs moved to another store; killed anywhere and repeated, each is there once.

    1  pause the queues of the old store        nobody starts a job that is about to be in both
    2  list what waits, oldest first            but for jobs that need results which stay behind
    3  put all into the new store               the same id: a second put changes nothing; what others need comes first
    4  remove all from the old one              what needs others goes first: whole families move together
    5  again from 2 until nothing waits         what running jobs give back comes along
    6  resume the queues that 1 has paused, or a transfer before this one that was killed

Killed between putting and removing, a job is in both stores; but its old queue is paused, so that it runs in the new
one only, and the next transfer removes it from the old one.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.exits import Exit
from taskq.cli.stores import opened_store
from taskq.cli.tell import emit_document, emit_line, say
from taskq.envelope import head
from taskq.errors import ConfigError, DecodeError, UnknownTask
from taskq.ids import new_id
from taskq.progress import Progress
from taskq.states import State
from taskq.store import NewJob
from taskq.survey import in_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from taskq.options import JobOptions
    from taskq.store import JobRecord, Store

__all__ = ["WAITING", "Moved", "Transfer", "transfer"]

HELP = """Move the jobs that wait from one store to another, with their ids and options, in their order.

While it runs the queues of the old store are paused. It is safe to interrupt and to repeat: a job is never lost,
and runs in one of the two only. Prints how many jobs were moved. What runs, or needs the result of a job that has
run, stays; clients that wait for a moved job find it at the new URL.

\b
Examples:
  taskq transfer sqlite:///home/ann/queue.db redis://queue-host/0
  taskq transfer redis://queue-host/0 sqlite:///home/ann/queue.db --no-progress --json
"""

#: Ids that a message names.
NAMED = 5


@click.command("transfer", help=HELP, short_help="Move waiting jobs to another store.")
@click.argument("from_url", metavar="FROM_URL")
@click.argument("to_url", metavar="TO_URL")
@click.option("--progress/--no-progress", default=None, help="Show how far it is; default: on a terminal.")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="Form of messages on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Output and errors as JSON, for programs.")
def transfer(from_url: str, to_url: str, *, progress: bool | None, **flags: Any) -> int:
    """Run the command."""
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(opened_store(flags, from_url))
        new = stack.enter_context(opened_store(flags, to_url, mode="rwc"))
        bar = stack.enter_context(Progress(None, "transfer", progress))
        mover = Transfer(old, new, _on(bar))
        try:
            moved = mover.run()
        except BaseException:
            if mover.begun:
                say("transfer: not finished, and the queues of the old store stay paused: run it again", error=True)
            raise
    _tell(moved, as_json=flags["as_json"])
    return Exit.OK


def _on(bar: Progress) -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        bar.total = total
        bar.advance(done - bar.done)

    return advance


def _tell(moved: Moved, *, as_json: bool) -> None:
    total = moved.jobs.total()
    if as_json:
        emit_document(
            {
                "moved": total,
                "queues": dict(moved.jobs),
                "merged": moved.merged,
                "stayed": [{"id": job_id, "why": why} for job_id, why in moved.stayed.items()],
                "running": moved.running,
                "paused": moved.still_paused,
            }
        )
        return
    emit_line(str(total))
    if moved.merged:
        say(f"{moved.merged:,} of them had the key of a job in the new store, and were merged with it")
    for job_id, why in list(moved.stayed.items())[:NAMED]:
        say(f"{job_id} stays: {why}")
    if len(moved.stayed) > NAMED:
        say(f"{len(moved.stayed) - NAMED:,} more stay for such reasons")
    if moved.running:
        say(
            f"{moved.running:,} jobs run there; transfer again when they have ended, to move those that will be retried"
        )
    if moved.still_paused:
        names = " ".join(moved.still_paused)
        say(f"paused there, before this transfer or by one that was interrupted: {names} (taskq resume {names})")


#: The states of jobs that are moved.
WAITING = (State.QUEUED, State.SCHEDULED, State.BLOCKED)

#: Jobs of one step: one commit in each store.
BATCH = 500

#: What begins the names of the marks by which a later transfer knows the queues that a killed one has paused.
MARK = "transfer-paused-"

#: Rounds after which what keeps coming back is left where it is.
ROUNDS = 20


@dataclass(slots=True, kw_only=True)
class Moved:
    """What a transfer has done: jobs moved, by queue; ids that stay, with why; queues that stay paused."""

    jobs: Counter[str] = field(default_factory=Counter)
    #: Jobs whose key a job of the new store had already: the two are one.
    merged: int = 0
    stayed: dict[str, str] = field(default_factory=dict)
    running: int = 0
    still_paused: list[str] = field(default_factory=list)


class Transfer:
    """Move waiting jobs from one store to another. `advance` is called with the jobs moved so far and in total."""

    def __init__(self, old: Store, new: Store, advance: Callable[[int, int], None]) -> None:
        self._old, self._new = old, new
        self._advance = advance
        self._paused: set[str] = set()
        #: The jobs that are in the new store, with their queues, in the order in which they were put; and those of them
        #: that were taken out of the old one.
        self._put: dict[str, str] = {}
        self._removed: set[str] = set()
        #: Whether it has begun, and the queues of the old store are paused.
        self.begun = False
        self.moved = Moved()

    def run(self) -> Moved:
        """Move everything that can be moved.

        Raises:
            ConfigError: both are the same store.
            QueueFull, BackendUnavailable: as they come; what was moved until then is moved.
        """
        self._refuse_same_store()
        self.begun = True
        self._find_interrupted()
        self._pause()
        for _ in range(ROUNDS):
            waiting = self._movable()
            fresh = [job_id for job_id in waiting if job_id not in self._put]
            self._put_all(fresh)
            self._pause()  # queues that have come meanwhile
            if not any(waiting[job_id] for job_id in fresh):  # else look once more: others may have come that need them
                self._remove_all()
                if not fresh:
                    break
        self._remove_all()
        self._resume()
        self.moved.running = len(list(in_pages(self._old, (State.RUNNING,))))
        return self.moved

    def _refuse_same_store(self) -> None:
        """Leave a mark in one store and look for it in the other: two URLs may mean one place."""
        mark = f"transfer-{new_id()}"
        self._old.pause(mark)
        try:
            same = any(record.name == mark for record in self._new.queues())
        finally:
            self._old.resume(mark)
        if same:
            raise ConfigError(f"{self._old.url} and {self._new.url} are the same store: there is nothing to move")

    # -- pausing

    def _find_interrupted(self) -> None:
        """Take over the queues that a transfer has paused which was killed: they are resumed at the end of this one."""
        for record in self._old.queues():
            if record.paused and record.name.startswith(MARK):
                self._paused.add(record.name.removeprefix(MARK))

    def _pause(self) -> None:
        for record in self._old.queues():
            if record.paused or record.name in self._paused or record.name.startswith(MARK):
                continue
            self._old.pause(MARK + record.name)  # first: a kill in between must not leave the queue paused for ever
            self._old.pause(record.name)
            self._paused.add(record.name)

    def _resume(self) -> None:
        for name in self._paused:
            self._old.resume(name)
            self._old.resume(MARK + name)
        self.moved.still_paused = [record.name for record in self._old.queues() if record.paused]

    # -- which

    def _movable(self) -> dict[str, tuple[str, ...]]:
        """Return the ids of the jobs to move with what they need: whole families, each job behind all that it needs."""
        waiting = {record.id: record.depends_on for record in in_pages(self._old, WAITING)}
        self._leave_unreadable(waiting)
        for job_id in self.moved.stayed:
            waiting.pop(job_id, None)
        while bound := [
            job_id for job_id, depends_on in waiting.items() if any(need not in waiting for need in depends_on)
        ]:
            self._leave(bound, waiting, "needs the result of a job that has run, or runs, in the old store")
            wanted = {need for job_id in bound for need in waiting[job_id]}
            self._leave(wanted, waiting, "a job that stays needs its result")
            for job_id in self.moved.stayed:
                waiting.pop(job_id, None)
        return _in_order(waiting)

    def _leave_unreadable(self, waiting: dict[str, tuple[str, ...]]) -> None:
        """Leave the jobs of families that cannot be moved, before any of their family is."""
        related = {job_id for job_id, depends_on in waiting.items() if depends_on}
        related |= {need for job_id in related for need in waiting[job_id]}
        ids = [job_id for job_id in waiting if job_id in related and job_id not in self._put]
        for start in range(0, len(ids), BATCH):
            for record in self._old.get(ids[start : start + BATCH], payload=True):
                if record is not None:
                    self._as_new(record)

    def _leave(self, ids: Iterable[str], waiting: dict[str, tuple[str, ...]], why: str) -> None:
        for job_id in ids:
            if job_id in waiting:
                self.moved.stayed.setdefault(job_id, why)

    # -- how

    def _put_all(self, ids: Sequence[str]) -> None:
        """Put jobs into the new store; they stay in the old one, where their queues are paused."""
        for start in range(0, len(ids), BATCH):
            found = self._old.get(ids[start : start + BATCH], payload=True)
            self._put_batch([record for record in found if record is not None and record.state in WAITING])
            self._advance(min(len(ids), start + BATCH), len(ids))

    def _put_batch(self, records: Sequence[JobRecord]) -> None:
        jobs = {record.id: job for record in records if (job := self._as_new(record)) is not None}
        if not jobs:
            return
        stand = self._new.put(list(jobs.values()))
        self.moved.merged += sum(job_id != under for job_id, under in zip(jobs, stand, strict=True))
        self._put.update((record.id, record.queue) for record in records if record.id in jobs)

    def _remove_all(self) -> None:
        """Remove from the old store what is in the new one, dependents first, so that no job misses what it needs."""
        ids = [job_id for job_id in reversed(self._put) if job_id not in self._removed]
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            for job_id, gone in zip(part, self._old.remove(part), strict=True):
                if gone:
                    self._removed.add(job_id)
                    self.moved.jobs[self._put[job_id]] += 1

    def _as_new(self, record: JobRecord) -> NewJob | None:
        """Return a job as if submitted now; None for one that cannot be, which is noted."""
        try:
            options = _options(record, head(record.envelope).options)
        except (DecodeError, UnknownTask, ConfigError) as exc:  # the last: names from before there was a grammar
            self.moved.stayed[record.id] = f"it was not made by this version of taskq: {exc}"
            return None
        return NewJob(
            id=record.id,
            task=record.task,
            envelope=record.envelope,
            options=options,
            depends_on=record.depends_on,
            label=record.label,
        )


def _in_order(waiting: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return jobs, given newest first, oldest first, but each behind all that it needs."""
    found: dict[str, tuple[str, ...]] = {}
    for first in reversed(waiting):
        path = [first]
        while path:
            job_id = path[-1]
            ahead = [need for need in waiting[job_id] if need not in found and job_id not in found]
            if ahead:
                path += ahead
            else:
                found.setdefault(path.pop(), waiting[job_id])
    return found


def _options(record: JobRecord, carried: JobOptions) -> JobOptions:
    """Return a waiting job's options: those in its envelope and those that the store keeps."""
    now = time.time()
    due = record.due_at if record.due_at is not None and record.due_at > now else None
    return carried.changed(
        queue=record.queue,
        priority=record.priority,
        key=record.key,
        delay=None,
        at=None if due is None else datetime.fromtimestamp(due, UTC),
        expires=None if record.expires_at is None else max(0.001, record.expires_at - now),
        job_id=record.id,
        if_exists="return",
    )
