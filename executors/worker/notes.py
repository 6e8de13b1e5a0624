"""What running jobs say of themselves, gathered now and then for the store.

    child's page, socket, output file ──▶ dispatcher: `told` and `said` of each job ──▶ ProgressUpdate, what is new
    what is new when a job has ended goes with its outcome

The same for every store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskq.context import awaited_in
from taskq.executors.pool.batches import CallBatch
from taskq.executors.pool.output import output_of, peek
from taskq.executors.worker.echo import echo
from taskq.executors.worker.errand import Errand
from taskq.log import get_logger

if TYPE_CHECKING:
    from taskq.executors.pool.child_handle import ChildHandle
    from taskq.executors.worker.hands import Hands
    from taskq.store import ProgressUpdate

__all__ = ["Notes"]

#: Seconds between two looks at running jobs.
_EVERY: Final = 0.25
#: Jobs named in a warning.
_NAMED: Final = 10

log = get_logger("taskq.worker")


class Notes:
    """Gather what is new of running jobs. Used by the worker's thread."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        #: When to look next, by the monotonic clock.
        self.next_at = 0.0
        #: Of the last warning: which job waits for which.
        self._waits: dict[str, str] = {}

    def gather(self, now: float) -> list[ProgressUpdate]:
        """Return what jobs have said since they were asked last; nothing when that was just now."""
        if now < self.next_at:
            return []
        self.next_at = now + _EVERY
        nobody: list[Errand] = []
        running = self._hands.dispatcher.ask(self._look, nobody)
        for errand in running:
            echo(errand, ended=False)
        self._judge(running)
        return [update for errand in running if (update := errand.news()) is not None]

    def _judge(self, running: list[Errand]) -> None:
        """Say it when every process is taken by a job that waits for another: perhaps none of them can ever end."""
        waits = {
            errand.claim.id: awaited
            for errand in running
            if errand.output is not None and (awaited := awaited_in(errand.output.all()))
        }
        if len(waits) < self._hands.processes or waits == self._waits:
            return
        self._waits = waits
        log.warning(
            "jobs_wait_for_jobs",
            waits={job: waits[job] for job in sorted(waits)[:_NAMED]},
            processes=self._hands.processes,
            cure="every process is taken by a job that waits for another one: give that one as an argument instead, "
            "or a queue with workers of its own",
        )

    def _look(self) -> list[Errand]:
        """Bring what is known of running jobs up to date; in the dispatcher's thread."""
        found = []
        for child in self._hands.dispatcher.books.children.values():
            errand = _running(child)
            if errand is not None:
                errand.last_progress = child.progress_at(child.done) or errand.last_progress
                _peek(child, errand)
                found.append(errand)
        return found


def _running(child: ChildHandle) -> Errand | None:
    """Return the job that a child is running, if that is beyond doubt."""
    if not child.frames or child.claim - child.done != 1:
        return None
    head = child.frames[0]
    job = head.batch.jobs[head.settled] if isinstance(head.batch, CallBatch) else None
    return job if isinstance(job, Errand) and job.chunk is None else None  # a chunk is no job of a user's


def _peek(child: ChildHandle, errand: Errand) -> None:
    """Read what a running job has printed, unless the next one has begun at this very moment."""
    if child.connection.output is None:
        return
    printed = peek(child.connection.output, errand)
    if printed and child.claim - child.done == 1:
        output_of(errand).live += printed
