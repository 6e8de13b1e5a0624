"""The watch over children that are slow, stuck or unwanted.

Every tick, for each busy child:
    early results   nothing reported for a tick: read its journal, so that no finished job waits behind a slow one
    reclaiming      its running job is long and others wait behind it: stop it from starting more, reclaim the rest;
                    of a run of short jobs, the ones behind the long one are released by the child at a signal
    sharing         another child has nothing to do: reclaim what this one has in store, for both to go on with
    kill requests   a job past its timeout, or cancelled with kill: reclaim the rest, interrupt it if it gets a grace,
                    then kill

    STOP is set ──▶ [milliseconds later] read journal, then CLAIM ──▶ everything from CLAIM on is ours again
                                                       │
                                                       └──▶ the job to be ended still runs: kill the child
No other job can be killed: STOP keeps the child from starting another. The child writes its CLAIM before it looks at
STOP; the parent sets STOP, waits milliseconds, and then reads CLAIM: one of the two always sees the other.
"""

from __future__ import annotations

from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Final

from taskq.executors.pool import protocol
from taskq.executors.pool.batches import MapChunk
from taskq.executors.pool.child_handle import KillRequest
from taskq.executors.pool.output import trim
from taskq.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.batches import WorkItem
    from taskq.executors.pool.child_handle import ChildHandle
    from taskq.executors.pool.jobs import PoolJob
    from taskq.executors.pool.scheduler import Scheduler
    from taskq.executors.pool.supervisor import Supervisor

log = get_logger(__name__)

#: Seconds between two looks at busy children: they bound how late a timeout is noticed, and how long a job may run
#: before the journal is read, and before what waits behind it is reclaimed.
TICK: Final = 0.02
#: Seconds from the order to stop until a child's CLAIM tells for certain what it has started.
_OBEYED: Final = 0.002
#: Nanoseconds of work that a child must have in store before an idle one takes half of it.
_WORTH_TAKING: Final = 4_000_000
#: Nanoseconds for which a child imports, or runs its initializer, before a warning is logged.
_IMPORTS_LONG_NS: Final = 10 * 10**9


class Watchdog:
    """Watch the children of one supervisor; in the dispatcher's thread only."""

    def __init__(self, scheduler: Scheduler, supervisor: Supervisor) -> None:
        self._scheduler = scheduler
        self._supervisor = supervisor
        #: When the next tick is due, by the monotonic clock, while one is needed.
        self.next_tick = 0.0

    def tick(self, now: float) -> None:
        """Look at every busy child."""
        self.next_tick = now + TICK
        for child in list(self._supervisor.children.values()):
            self._warn_of_import(child)
            if child.connection.page.words[protocol.INTERRUPT] == protocol.ASKED:
                child.connection.ask_to_release()
            if child.in_flight:
                self._look_at(child, now)
                trim(child.connection.output)
        self._supervisor.fail_late(now)

    @staticmethod
    def _warn_of_import(child: ChildHandle) -> None:
        """Say that a child does not come to work, since no time limit counts what it imports."""
        began = child.connection.page.words[protocol.IMPORTING]
        warned, child.warned = child.warned, began > 0 and monotonic_ns() - began > _IMPORTS_LONG_NS
        if child.warned and not warned:
            task = child.in_flight[0].batch.function.name if child.in_flight else None
            log.warning("import_hangs", pid=child.connection.pid, task=task, seconds=_IMPORTS_LONG_NS // 10**9)

    def _look_at(self, child: ChildHandle, now: float) -> None:
        commit = child.connection.page.words[protocol.COMMIT]
        child.stalled = commit == child.seen_commit
        child.seen_commit = commit
        if child.stalled:
            self._supervisor.read_early(child)
        _check_deadline(child)
        if child.stopping is None:
            if child.kill_requests or _blocks_others(child) or self._can_share(child):
                self.stop(child)
        elif child.stopping <= now:
            self._reclaim(child)
            if not child.dead and child.claim - child.done > 1:
                child.connection.ask_to_release()

    def _can_share(self, child: ChildHandle) -> bool:
        """Tell whether an idle child could do part of what this one has in store."""
        if self._scheduler.backlog or child.unsent or child.end_seq <= child.done + 1:
            return False  # what is being written is not taken back
        store = (child.end_seq - child.done - 1) * (child.in_flight[-1].batch.function.sizer.ns or 0.0)
        return store > _WORTH_TAKING and any(other.is_free for other in self._supervisor.children.values())

    # -- reclaiming

    def stop(self, child: ChildHandle) -> None:
        """Tell a child to start no further jobs of its current batch."""
        if child.stopping is None and child.in_flight:
            child.connection.page.words[protocol.STOP] = 1
            child.stopping = monotonic() + _OBEYED
            self.next_tick = min(self.next_tick, child.stopping)

    def _reclaim(self, child: ChildHandle) -> None:
        """Read what is done, reclaim what was not started, and carry out the kill requests on what runs."""
        self._supervisor.read(child)
        if child.dead or not child.in_flight or child.stopping is None or not self._supervisor.read_early(child):
            return
        words = child.connection.page.words
        being_written = child.unsent and not child.kill_requests
        if being_written or words[protocol.PHASE] == protocol.DECODING:
            boundary = child.in_flight[0].first + len(child.in_flight[0].batch)
        else:
            boundary = max(child.claim, child.done + (words[protocol.PHASE] == protocol.DEFINING))
        self._scheduler.backlog.put_back(_in_halves(child.reclaim(boundary)))
        if child.is_unsure and child.end_seq == child.done:
            child.connection.kill()  # it was never sent anything, and may still be
        _carry_out(child, boundary)

    # -- wishes

    def cancel(
        self,
        found: tuple[ChildHandle, int],
        job: PoolJob,
        answer: Callable[[bool], None],
        *,
        kill: bool,
        grace: float = 0.0,
    ) -> None:
        """Cancel a job that is in a child's hands; `kill` and `grace`: see `KillRequest`."""
        child, seq = found
        job.stop_requested = True
        child.kill_requests.append(KillRequest(seq, job=job, answer=answer, by_force=kill, grace=grace))
        self.stop(child)

    def expire(self, found: tuple[ChildHandle, int], job: PoolJob) -> None:
        """Fail a job that is in a child's hands, unless it has started."""
        child, seq = found
        if seq >= max(child.claim, child.done):
            child.kill_requests.append(KillRequest(seq, job=job, by_force=False, expired=True))
            self.stop(child)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the jobs that run."""
        for child in self._supervisor.children.values():
            if child.in_flight:
                child.in_flight[0].batch.ask_to_stop()
                child.connection.page.words[protocol.INTERRUPT] = protocol.ASKED
                child.connection.ask_to_release()


def _check_deadline(child: ChildHandle) -> None:
    """Have the running job ended if it is past its timeout."""
    timeout = child.in_flight[0].batch.options.timeout
    started = child.connection.page.words[protocol.START]
    if timeout is None or not started or monotonic_ns() - started < timeout * 1e9:
        return
    if not any(request.timed_out and request.seq == child.done for request in child.kill_requests):
        child.kill_requests.append(KillRequest(child.done, timed_out=True))


def _blocks_others(child: ChildHandle) -> bool:
    """Tell whether jobs wait behind one that has been running for long, or at a child that does not begin."""
    if not child.stalled or child.unsent:
        return False
    phase = child.connection.page.words[protocol.PHASE]
    running = phase in (protocol.DECODING, protocol.DEFINING) or child.claim > child.done
    return child.end_seq > child.done + running


def _carry_out(child: ChildHandle, boundary: int) -> None:
    """End what still runs; answer for what does not."""
    for request in list(child.kill_requests):
        if not child.done <= request.seq < boundary:
            child.kill_requests.remove(request)
            request.conclude()
        elif boundary - child.done > 1 and request.patience:
            request.patience -= 1  # of a run of short jobs the child is asked to release the others first
        elif request.by_force:
            request.enforce(child, alone=boundary - child.done == 1)
        else:
            if not request.expired:
                child.connection.page.words[protocol.CANCEL] = request.seq + 1
            child.kill_requests.remove(request)
            request.answer(False)


def _in_halves(items: list[WorkItem]) -> list[WorkItem]:
    """Cut a single chunk in two, so that two children can go on with it."""
    if len(items) == 1 and isinstance(items[0], MapChunk):
        chunk, half = items[0], len(items[0]) // 2
        return [*chunk.part(0, half), *chunk.part(half, len(chunk))]
    return items
