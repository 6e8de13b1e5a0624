"""The children of a pool, by descriptor: they come, report, and go.

    hello ──▶ accept_children ──▶ READY ──▶ batches in flight ──▶ results: settle ──▶ idle
                   │                                  │
                   ▼                                  ▼
           dies before READY:               dies: charge_crash
           a start failure                  to the job that ran

A death, whatever caused it: read what is still in the socket and in the journal; then PHASE and CLAIM tell which job
was running. That one counts a crash; all others go back to the front of the backlog, and their callers notice nothing.
"""

from __future__ import annotations

import os
import select
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskq.executors.pool import payloads, protocol
from taskq.executors.pool.batches import CallBatch, MapChunk
from taskq.executors.pool.child_handle import TURN, ChildHandle
from taskq.executors.pool.output import last_words
from taskq.executors.pool.processes import NO_GUARD
from taskq.failure import describe_exit
from taskq.log import get_logger
from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.batches import Batch, Sink, WorkItem
    from taskq.executors.pool.child_handle import InFlight, KillRequest
    from taskq.executors.pool.connection import ChildConnection, HandshakeListener
    from taskq.executors.pool.jobs import PoolJob
    from taskq.executors.pool.scheduler import Scheduler

log = get_logger(__name__)

#: Seconds to wait for the exit code of a dead child before its job is failed without.
_EXIT_CODE_WITHIN: Final = 0.5
#: Children in a row that may die before they are ready; deaths by an outside SIGKILL or SIGTERM weigh less.
_START_FAILURES: Final = 3.0
_WEIGHT_OF_OUTSIDE_KILL: Final = 0.1
_OUTSIDE_KILLS: Final = (-9, -15)


class AwaitingExit:
    """A job that died with its process and is only failed when the exit code is known, or at `until`."""

    def __init__(self, batch: Batch, at: int, until: float) -> None:
        self.batch = batch
        self.at = at
        self.until = until


class Supervisor:
    """Keep the children of one dispatcher, and what they have in their hands; in its thread only."""

    def __init__(
        self, scheduler: Scheduler, listener: HandshakeListener, poll: select.poll, on_broken: Callable[[str], None]
    ) -> None:
        self.children: dict[int, ChildHandle] = {}  # by the socket's descriptor
        self.deaths: dict[int, ChildHandle] = {}  # by pidfd
        #: Called with the connection of each new child.
        self.on_connect: Callable[[ChildConnection], None] = lambda _: None
        #: Jobs that wait for their process's exit code, by its pid.
        self.awaiting_exit: dict[int, AwaitingExit] = {}
        #: Whether the pool is ending: then children that go before they were ready are nothing strange.
        self.ending = False
        self._scheduler = scheduler
        self._record = scheduler.outcomes.record
        self._listener = listener
        self._poll = poll
        self._on_broken = on_broken
        #: Connections of dead children to which a submitter may still send: their descriptors must stay what they are.
        self._closing: list[ChildConnection] = []
        self._exit_codes: dict[int, int | None] = {}
        self._start_failures = 0.0
        #: Children that were ready, or whose failing start was counted, until they are reaped.
        self._met: set[int] = set()

    # -- what they have

    @property
    def busy(self) -> bool:
        """Whether a child has work."""
        return any(child.in_flight for child in self.children.values())

    def find_child(self, job: PoolJob) -> tuple[ChildHandle, int] | None:
        """Return the child that has a job in its hands, and the job's sequence number there."""
        for child in self.children.values():
            if (seq := child.find_job(job)) is not None:
                return child, seq
        return None

    def state_of(self, job: PoolJob) -> State:
        """Return where a job that has not ended stands. One that its child may start any moment counts as running."""
        if job.waiting is not None:
            return job.waiting
        found = self.find_child(job)
        if found is None:
            return State.QUEUED
        child, seq = found
        return State.RUNNING if seq < max(child.claim, child.done + 1) else State.QUEUED

    def lost(self) -> set[PoolJob]:
        """Return the jobs whose process has died, while its exit code is waited for."""
        dead = [(awaiting.batch, awaiting.at) for awaiting in self.awaiting_exit.values()]
        return {batch.jobs[at] for batch, at in dead if isinstance(batch, CallBatch)}

    def in_hand(self) -> dict[PoolJob, State]:
        """Return the jobs in the hands of children, each with its state and with its progress as of now."""
        found = {}
        for child in self.children.values():
            for job, runs in child.in_hand():
                found[job] = State.RUNNING if runs else State.QUEUED
        for job in found:
            self.progress_of(job)
        return found

    def progress_of(self, job: PoolJob) -> tuple[int, int | None] | None:
        """Return what a job said last of its progress, and remember it."""
        found = self.find_child(job)
        if found is not None:
            job.last_progress = found[0].progress_at(found[1]) or job.last_progress
        return job.last_progress

    def running(self, wanted: Callable[[PoolJob], bool]) -> list[PoolJob]:
        """Return the wanted jobs that children are running for certain, with their progress and output as of now."""
        return [job for child in self.children.values() if (job := child.running_job(wanted)) is not None]

    def having(self, sink: Sink) -> list[ChildHandle]:
        """Return the children that have items of a map in their hands."""
        return [
            child
            for child in self.children.values()
            if any(isinstance(flight.batch, MapChunk) and flight.batch.sink is sink for flight in child.in_flight)
        ]

    def take_all_unfinished(self) -> list[WorkItem]:
        """Take all that has no outcome out of the hands of children that will report nothing more."""
        return [item for child in self.children.values() for item in child.take_unfinished()]

    # -- they come

    def accept_children(self) -> None:
        """Take in the children that have said hello."""
        while (connection := self._listener.accept()) is not None:
            if isinstance(connection, int):
                self._met.add(connection)  # it had to go because of us: its end counts as no failure
                continue
            child = ChildHandle(connection)
            self.on_connect(connection)
            fd = connection.sock.fileno()
            self.children[fd] = child
            self._poll.register(fd, select.POLLIN)
            if connection.pidfd is not None:
                self.deaths[connection.pidfd] = child
                self._poll.register(connection.pidfd, select.POLLIN)

    def _start_failed(self, child: ChildHandle, body: bytes) -> None:
        """Note that the initializer raised in a child."""
        pid = child.connection.pid
        self._met.add(pid)
        failure, _ = payloads.unpack_failure(body)
        what = f"{failure.type}: {failure.message}\n{failure.traceback}"
        self._count_start_failure(1.0, f"the initializer failed in child {pid}: {what}")

    def _count_start_failure(self, weight: float, message: str) -> None:
        self._start_failures += 0.0 if self.ending else weight
        if self._start_failures >= _START_FAILURES:
            self._on_broken(message)

    # -- they report

    def read(self, child: ChildHandle) -> None:
        """Take what a child has sent."""
        if child.unsent:
            self.send_on(child)
        reader = child.reports
        limit = reader.received + TURN
        while True:
            for report, body, records in reader.receive():
                child.stalled = False
                if report.kind == protocol.RESULTS:
                    child.settle(records, self._record)
                    if report.flags & protocol.END and child.in_flight:
                        self._batch_over(child, report)
                elif report.kind == protocol.READY:
                    child.ready = True
                    self._met.add(child.connection.pid)
                    self._start_failures = 0.0
                elif report.kind == protocol.INIT_FAILED:
                    self._start_failed(child, body)
                else:
                    child.keep_note(report.kind, body)
            if not reader.has_more or (reader.received >= limit and not child.dead):
                break
        if reader.ended and child.connection.pidfd is None and not child.dead:
            self.handle_death(child)

    def read_early(self, child: ChildHandle) -> bool:
        """Settle what the child has committed but not yet sent; return whether that could be read."""
        records = child.reports.journal()
        if records:
            child.settle(records, self._record)
        return records is not None

    def _batch_over(self, child: ChildHandle, report: protocol.Report) -> None:
        head = child.in_flight.popleft()
        backlog = self._scheduler.backlog
        if head.settled:
            head.batch.function.sizer.observe(head.settled, report.elapsed_ns)
        if report.flags & protocol.UNDECODABLE:
            backlog.put_back(head.batch.singles(0, head.cut))
        elif head.settled < head.cut:
            backlog.put_back(head.batch.part(head.settled, head.cut))
        if report.flags & protocol.RETIRING:
            child.retiring = True
        if child.in_flight:
            return
        requests, child.kill_requests = child.kill_requests, []
        for request in requests:  # the jobs ended by themselves, or were reclaimed
            request.conclude()
        if child.interrupted:
            child.retiring = True
            child.connection.kill()
        elif child.stopping is not None:  # it may start again
            child.stopping = None
            child.connection.page.words[protocol.STOP] = 0
        if child.retiring and child.orphan:
            self.forget(child)

    def send_on(self, child: ChildHandle) -> None:
        """Send more of what did not fit into the socket."""
        child.write_on()
        if not child.unsent:
            self._poll.modify(child.connection.sock, select.POLLIN)

    # -- they go

    def handle_death(self, child: ChildHandle) -> None:
        """Settle everything that a dead child had in its hands."""
        child.dead = True
        self.read(child)
        self.read_early(child)
        phase, claim, done = child.connection.page.words[protocol.PHASE], child.claim, child.done
        requests, child.kill_requests = child.kill_requests, []
        printed = last_words(child.connection.output)
        self.forget(child)
        if child.ready and not child.retiring and not self.ending:
            log.info("child_died", pid=child.connection.pid, jobs=child.busy_jobs)
        if child.in_flight:
            head = child.in_flight[0]
            running = {
                protocol.RUNNING: claim - done,
                protocol.DECODING: len(head.batch),
                protocol.DEFINING: 1,  # its first job is charged with what kills the process during the import
            }.get(phase, 0)
            if printed is not None and running == 1 and isinstance(head.batch, CallBatch):
                head.batch.jobs[head.settled].make_output().take(protocol.PRINTED, *printed)
            self._requeue(child, running, requests)
        for request in requests:
            request.conclude()
        self._exit_codes.pop(child.connection.pid, None)

    def _requeue(self, child: ChildHandle, running: int, requests: list[KillRequest]) -> None:
        """Charge the one job that ran; run several that may have run one by one; put the rest back."""
        head = child.in_flight[0]
        start = head.settled
        suspects = min(max(running, 0), head.cut - start)
        items = [*head.batch.part(start + suspects, head.cut)]
        for flight in list(child.in_flight)[1:]:
            items += flight.batch.part(flight.settled, flight.cut)
        self._scheduler.backlog.put_back(items)
        if suspects == 1:
            self._charge_crash(child, head, start, requests)
        elif suspects:
            self._scheduler.outcomes.suspect(head.batch, start, start + suspects)

    def _charge_crash(self, child: ChildHandle, flight: InFlight, at: int, requests: list[KillRequest]) -> None:
        request = next((request for request in requests if request.seq == flight.first + at), None)
        outcomes, pid = self._scheduler.outcomes, child.connection.pid
        if request is not None and request.timed_out:
            outcomes.timed_out(flight.batch, at)
        elif request is not None and request.by_force:
            flight.batch.drop(at)
        elif not outcomes.is_last_crash(flight.batch, at):
            outcomes.crashed(flight.batch, at, None)
        else:
            self.awaiting_exit[pid] = AwaitingExit(flight.batch, at, monotonic() + _EXIT_CODE_WITHIN)
            if pid in self._exit_codes:
                self._fail_crashed(pid, self._exit_codes[pid])

    def fail_late(self, now: float) -> None:
        """Fail the jobs of dead processes whose exit codes do not come."""
        for pid in [pid for pid, awaiting in self.awaiting_exit.items() if awaiting.until <= now]:
            self._fail_crashed(pid, None)

    def _fail_crashed(self, pid: int, exitcode: int | None) -> None:
        awaiting = self.awaiting_exit.pop(pid)
        self._scheduler.outcomes.crashed(awaiting.batch, awaiting.at, exitcode)

    def reaped(self, pid: int | None, exitcode: int | None) -> None:
        """Note that a child was reaped; `pid` None: it could not be started, and multiprocessing tries again."""
        if pid is None:
            return
        child = self._last_words_of(pid)
        if pid not in self._met:
            self._died_early(pid, exitcode)
        self._met.discard(pid)
        if child is not None and child.connection.is_alive():
            self._orphaned(child)
        elif child is not None:
            self._exit_codes[pid] = exitcode
        elif pid in self.awaiting_exit:
            self._fail_crashed(pid, exitcode)

    def _last_words_of(self, pid: int) -> ChildHandle | None:
        """Read all that a child has said, so that it is judged by that; return its handle."""
        self.accept_children()
        child = next((child for child in self.children.values() if child.connection.pid == pid), None)
        if child is not None:
            self.read(child)
        return None if child is None or child.dead else child

    def _died_early(self, pid: int, exitcode: int | None) -> None:
        if exitcode == NO_GUARD:
            self._count_start_failure(
                _START_FAILURES,
                "child processes do not start: they import this program, which makes its queue as it is imported: put "
                'the lines that make it, and what follows, under `if __name__ == "__main__":`',
            )
            return
        weight = _WEIGHT_OF_OUTSIDE_KILL if exitcode in _OUTSIDE_KILLS else 1.0
        self._count_start_failure(
            weight,
            f"child processes do not start: child {pid} {describe_exit(exitcode)} before it was ready. The usual cause "
            'is a script that starts the pool without `if __name__ == "__main__":`, or an import of it that fails; its '
            "own words are on stderr",
        )

    def _orphaned(self, child: ChildHandle) -> None:
        """Let a child end its work which multiprocessing has replaced, because its fork server has died."""
        child.retiring = child.orphan = True
        if not child.in_flight:
            self.forget(child)

    def forget(self, child: ChildHandle) -> None:
        """Let go of a child that is dead."""
        child.dead = True
        connection = child.connection
        fd = connection.sock.fileno()
        if self.children.pop(fd, None) is None:
            return
        self._poll.unregister(fd)
        if connection.pidfd is not None:
            del self.deaths[connection.pidfd]
            self._poll.unregister(connection.pidfd)
        if child.is_held:
            self._closing.append(connection)
        else:
            connection.close()

    def disconnect(self) -> None:
        """Close the connection of every child: an idle one exits by itself."""
        self.ending = True
        self.accept_children()
        for child in self.children.values():
            child.connection.disconnect()

    def kill_all(self) -> None:
        """Kill every child that there still is."""
        for child in self.children.values():
            child.connection.kill()

    def kill_busy(self) -> None:
        """Kill the children that have work: for what they run that is a crash."""
        for child in self.children.values():
            if child.in_flight:
                child.connection.kill()

    def close(self) -> None:
        """Free what is left."""
        for connection in self._closing:
            connection.close()

    def close_in_fork(self) -> None:
        """Close the descriptors that a forked copy of this process holds."""
        for connection in (*(child.connection for child in self.children.values()), *self._closing):
            connection.close_in_fork()
        os_fd = self._listener.parent_end.detach()
        if os_fd >= 0:
            os.close(os_fd)
