"""What a pool does about children that are slow, stuck, unwanted or dead.

Every tick, for each busy child:
    early results   nothing reported for a tick: read its journal, so that no finished job waits behind a slow one
    taking back     its running job is long and others wait behind it: stop it from starting more, take the rest back;
                    of a run of short jobs, the ones behind the long one are released by the child at a signal
    sharing         another child has nothing to do: take back what this one has in store, for both to go on with
    requests        a job past its timeout, or cancelled with kill: take back the rest, then kill

    STOP is set ──▶ [milliseconds later] read journal, then CLAIM ──▶ everything from CLAIM on is ours again
                                                       │
                                                       └──▶ the condemned job still runs: kill the child
Nothing innocent can be hit, because nothing may start behind the job that is condemned. The child writes its CLAIM
before it looks at STOP; the parent sets STOP, waits milliseconds, and then reads CLAIM: one of the two always sees the
other.

A death, whatever caused it: read what is still in the socket and in the journal; then PHASE and CLAIM tell which job
was running. That one counts a crash; all others go back to the front of the backlog, and their callers notice nothing.
"""

from __future__ import annotations

from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Final

from taskq.executors.pool import payloads, protocol, shared_page
from taskq.executors.pool.batches import CallBatch, MapChunk
from taskq.executors.pool.output import last_words, output_of, trim
from taskq.executors.pool.processes import NO_GUARD
from taskq.failure import describe_exit
from taskq.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.batches import Batch, WorkItem
    from taskq.executors.pool.child_handle import ChildHandle, InFlight
    from taskq.executors.pool.dispatcher import Dispatcher
    from taskq.executors.pool.jobs import LocalJob

log = get_logger(__name__)

#: Seconds between two looks at busy children: they bound how late a timeout is noticed, and how long a job may run
#: before the journal is read, and before what waits behind it is taken back.
TICK: Final = 0.02
#: Seconds from the order to stop until a child's CLAIM tells for certain what it has started.
_OBEYED: Final = 0.002
#: Nanoseconds of work that a child must have in store before an idle one takes half of it.
_WORTH_TAKING: Final = 4_000_000
#: Ticks that a child gets to release the jobs of a run that it has not started.
_RELEASE_TICKS: Final = 2
#: Seconds to wait for Pool to tell a dead child's exit code before its job is failed without.
_MOURN: Final = 0.5
#: Nanoseconds for which a child imports, or runs its initializer, until that is worth a warning.
_IMPORTS_LONG_NS: Final = 10 * 10**9
#: Children in a row that may die before they are ready; deaths by an outside SIGKILL or SIGTERM weigh less.
_START_FAILURES: Final = 3.0
_WEIGHT_OF_OUTSIDE_KILL: Final = 0.1
_OUTSIDE_KILLS: Final = (-9, -15)


class KillRequest:
    """A running job that must be ended, and why: at its timeout, or because it was cancelled."""

    def __init__(
        self,
        seq: int,
        *,
        timed_out: bool,
        job: LocalJob | None = None,
        answer: Callable[[bool], None] = lambda _: None,
        kill: bool = True,
        expired: bool = False,
    ) -> None:
        self.seq = seq
        self.timed_out = timed_out
        self.job = job
        self.answer = answer
        self.kill = kill
        #: Whether the job fails as expired if it had not started; else it goes on.
        self.expired = expired
        self.patience = _RELEASE_TICKS


class AwaitingExit:
    """A job that died with its process and is only failed when the exit code is known, or at `until`."""

    def __init__(self, batch: Batch, at: int, until: float) -> None:
        self.batch = batch
        self.at = at
        self.until = until


class Supervisor:
    """Watch over the children of one dispatcher; in its thread only."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._books = dispatcher.books
        self._kill_requests: dict[ChildHandle, list[KillRequest]] = {}
        self._awaiting_exit: dict[int, AwaitingExit] = {}
        self._exit_codes: dict[int, int | None] = {}
        self._start_failures = 0.0
        #: Children that were ready, or whose failing start was counted, until they are reaped.
        self._met: set[int] = set()
        #: Whether the pool is ending: then children that go before they were ready are nothing strange.
        self.ending = False

    @property
    def awaits_exit(self) -> bool:
        """Whether a job still waits for its process's exit code."""
        return bool(self._awaiting_exit)

    # -- starts

    def became_ready(self, child: ChildHandle) -> None:
        """Take note that a child is ready."""
        self._met.add(child.connection.pid)
        self._start_failures = 0.0

    def expect_exit(self, pid: int) -> None:
        """Take note that a child had to go because of us: its end counts as no failure."""
        self._met.add(pid)

    def start_failed(self, child: ChildHandle, body: bytes) -> None:
        """Take note that the initializer raised in a child."""
        self._met.add(child.connection.pid)
        failure, _ = payloads.unpack_failure(body)
        what = f"{failure.type}: {failure.message}\n{failure.traceback}"
        self._count_start_failure(1.0, f"the initializer failed in child {child.connection.pid}: {what}")

    def _count_start_failure(self, weight: float, message: str) -> None:
        self._start_failures += 0.0 if self.ending else weight
        if self._start_failures >= _START_FAILURES:
            self._dispatcher.on_broken(message)

    def reaped(self, pid: int | None, exitcode: int | None) -> None:
        """Hear from Pool that a child was reaped; `pid` None: it could not even be started, and Pool tries again."""
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
        elif pid in self._awaiting_exit:
            self._fail_crashed(pid, exitcode)

    def _last_words_of(self, pid: int) -> ChildHandle | None:
        """Hear all that a child has said, so that it is judged by that; return its child."""
        self._dispatcher.accept_children()
        child = next((child for child in self._books.children.values() if child.connection.pid == pid), None)
        if child is not None:
            self._dispatcher.read(child)
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
        """Let a child end its work that Pool has lost sight of (its fork server died) and has replaced by a new one."""
        child.retiring = child.orphan = True
        if not child.frames:
            self._dispatcher.forget(child)

    # -- the tick

    def tick(self) -> None:
        """Look at every busy child."""
        now = monotonic()
        for child in list(self._books.children.values()):
            self._warn_of_import(child)
            if child.connection.page.words[shared_page.INTERRUPT] == shared_page.ASKED:
                child.connection.ask_to_release()
            if child.frames:
                self._look_at(child, now)
                trim(child.connection.output)
        for pid in [pid for pid, mourning in self._awaiting_exit.items() if mourning.until <= now]:
            self._fail_crashed(pid, None)

    def _warn_of_import(self, child: ChildHandle) -> None:
        """Say that a child does not come to work, since no time limit counts what it imports."""
        began = child.connection.page.words[shared_page.IMPORTING]
        warned, child.warned = child.warned, began > 0 and monotonic_ns() - began > _IMPORTS_LONG_NS
        if child.warned and not warned:
            task = child.frames[0].batch.function.name if child.frames else None
            log.warning("import_hangs", pid=child.connection.pid, task=task, seconds=_IMPORTS_LONG_NS // 10**9)

    def _look_at(self, child: ChildHandle, now: float) -> None:
        commit = child.connection.page.words[shared_page.COMMIT]
        child.stalled = commit == child.seen_commit
        child.seen_commit = commit
        if child.stalled:
            self._read_early(child)
        self._check_deadline(child)
        if child.stopping is None:
            if child in self._kill_requests or self._blocks_others(child) or self._can_share(child):
                self.stop(child)
        elif child.stopping <= now:
            self._reclaim(child)
            if not child.dead and child.claim - child.done > 1:
                child.connection.ask_to_release()

    def _read_early(self, child: ChildHandle) -> bool:
        """Settle what the child has committed but not yet sent; return whether that could be read."""
        records = child.journal()
        if records:
            self._dispatcher.settle(child, records)
        return records is not None

    def _check_deadline(self, child: ChildHandle) -> None:
        """Condemn the running job if it is past its timeout."""
        timeout = child.frames[0].batch.options.timeout
        started = child.connection.page.words[shared_page.START]
        if timeout is None or not started or monotonic_ns() - started < timeout * 1e9:
            return
        requests = self._kill_requests.setdefault(child, [])
        if not any(request.timed_out and request.seq == child.done for request in requests):
            requests.append(KillRequest(seq=child.done, timed_out=True))

    def _blocks_others(self, child: ChildHandle) -> bool:
        """Tell whether jobs wait behind one that has been running for long, or at a child that does not begin."""
        if not child.stalled or child.has_unsent:
            return False
        words = child.connection.page.words
        running = words[shared_page.PHASE] in (shared_page.DECODING, shared_page.DEFINING) or child.claim > child.done
        return child.end_seq > child.done + running

    def _can_share(self, child: ChildHandle) -> bool:
        """Tell whether an idle child could do part of what this one has in store."""
        if self._books.backlog or child.end_seq <= child.done + 1:
            return False
        store = (child.end_seq - child.done - 1) * (child.frames[-1].batch.function.sizer.ns or 0.0)
        return store > _WORTH_TAKING and any(other.is_free for other in self._books.children.values())

    # -- taking back

    def stop(self, child: ChildHandle) -> None:
        """Have a child start nothing more of what it has."""
        if child.stopping is None and child.frames:
            child.connection.page.words[shared_page.STOP] = 1
            child.stopping = monotonic() + _OBEYED
            self._dispatcher.tick_at(child.stopping)

    def went_idle(self, child: ChildHandle) -> None:
        """Let a child that has finished all it had start again."""
        for request in self._kill_requests.pop(child, ()):  # the jobs ended by themselves, or were taken back
            self._answer(request)
        child.stopping = None
        child.connection.page.words[shared_page.STOP] = 0

    def _reclaim(self, child: ChildHandle) -> None:
        """Read what is done, take back what was not started, and carry out the requests on what runs."""
        self._dispatcher.read(child)
        if child.dead or not child.frames or child.stopping is None or not self._read_early(child):
            return
        being_written = child.has_unsent and child not in self._kill_requests
        if being_written or child.connection.page.words[shared_page.PHASE] == shared_page.DECODING:
            boundary = child.frames[0].first + len(child.frames[0].batch)
        else:
            boundary = max(
                child.claim, child.done + (child.connection.page.words[shared_page.PHASE] == shared_page.DEFINING)
            )
        self._books.backlog.put_back(_in_halves(child.reclaim(boundary)))
        if child.is_unsure and child.end_seq == child.done:
            child.connection.kill()  # it was never sent anything, and nobody can tell whether it still will be
        self._carry_out(child, boundary)

    def _carry_out(self, child: ChildHandle, boundary: int) -> None:
        requests = self._kill_requests.get(child, [])
        for request in list(requests):
            if not child.done <= request.seq < boundary:
                requests.remove(request)
                self._answer(request)
            elif boundary - child.done > 1 and request.patience:
                request.patience -= 1  # of a run of short jobs the child is asked to release the others first
            elif request.kill:
                child.connection.kill()
            else:
                if not request.expired:
                    child.connection.page.words[shared_page.CANCEL] = request.seq + 1
                requests.remove(request)
                request.answer(False)

    @staticmethod
    def _answer(request: KillRequest) -> None:
        """Tell who asked: a job that was taken back can be dropped; one that has ended stays as it ended."""
        if request.job is not None:
            if not request.job.done() and request.expired:
                request.job.expire()
            elif not request.job.done():
                request.job.withdraw()
            request.answer(request.job.cancelled())

    def cancel(
        self, child: ChildHandle, seq: int, job: LocalJob, answer: Callable[[bool], None], *, kill: bool
    ) -> None:
        """Cancel a job that is in a child's hands."""
        job.stop_requested = True
        request = KillRequest(seq=seq, timed_out=False, job=job, answer=answer, kill=kill)
        self._kill_requests.setdefault(child, []).append(request)
        self.stop(child)

    def expire(self, child: ChildHandle, seq: int, job: LocalJob) -> None:
        """Fail a job that is in a child's hands, unless it has started."""
        if seq >= max(child.claim, child.done):
            request = KillRequest(seq=seq, timed_out=False, job=job, kill=False, expired=True)
            self._kill_requests.setdefault(child, []).append(request)
            self.stop(child)

    # -- deaths

    def handle_death(self, child: ChildHandle) -> None:
        """Settle everything that a dead child had in its hands."""
        dispatcher = self._dispatcher
        child.dead = True
        dispatcher.read(child)
        self._read_early(child)
        phase, claim, done = child.connection.page.words[shared_page.PHASE], child.claim, child.done
        requests = self._kill_requests.pop(child, [])
        printed = last_words(child.connection.output)
        dispatcher.forget(child)
        if child.ready and not child.retiring and not self.ending:
            log.info("child_died", pid=child.connection.pid, jobs=child.busy_jobs)
        if child.frames:
            running = {
                shared_page.RUNNING: claim - done,
                shared_page.DECODING: len(child.frames[0].batch),
                shared_page.DEFINING: 1,  # its first job is charged with what kills the process during the import
            }.get(phase, 0)
            if printed is not None and running == 1 and isinstance(child.frames[0].batch, CallBatch):
                output_of(child.frames[0].batch.jobs[child.frames[0].settled]).take(protocol.PRINTED, *printed)
            self._requeue(child, running, requests)
        for request in requests:
            self._answer(request)
        self._exit_codes.pop(child.connection.pid, None)

    def _requeue(self, child: ChildHandle, running: int, requests: list[KillRequest]) -> None:
        """Blame the one job that ran; run several that may have run one by one; put the rest back."""
        head = child.frames[0]
        start = head.settled
        suspects = min(max(running, 0), head.cut - start)
        entries = [*head.batch.part(start + suspects, head.cut)]
        for frame in list(child.frames)[1:]:
            entries += frame.batch.part(frame.settled, frame.cut)
        self._books.backlog.put_back(entries)
        if suspects == 1:
            self._charge_crash(child, head, start, requests)
        elif suspects:
            self._books.outcomes.suspect(head.batch, start, start + suspects)

    def _charge_crash(self, child: ChildHandle, frame: InFlight, at: int, requests: list[KillRequest]) -> None:
        request = next((request for request in requests if request.seq == frame.first + at), None)
        outcomes, pid = self._books.outcomes, child.connection.pid
        if request is not None and request.timed_out:
            outcomes.timed_out(frame.batch, at)
        elif request is not None and request.kill:
            frame.batch.drop(at)
        elif not outcomes.is_last_crash(frame.batch, at):
            outcomes.crashed(frame.batch, at, None)
        else:
            self._awaiting_exit[pid] = AwaitingExit(frame.batch, at, monotonic() + _MOURN)
            if pid in self._exit_codes:
                self._fail_crashed(pid, self._exit_codes[pid])

    def _fail_crashed(self, pid: int, exitcode: int | None) -> None:
        mourning = self._awaiting_exit.pop(pid)
        self._books.outcomes.crashed(mourning.batch, mourning.at, exitcode)


def _in_halves(entries: list[WorkItem]) -> list[WorkItem]:
    """Cut a single chunk in two, so that two children can go on with it."""
    if len(entries) == 1 and isinstance(entries[0], MapChunk):
        chunk, half = entries[0], len(entries[0]) // 2
        return [*chunk.part(0, half), *chunk.part(half, len(chunk))]
    return entries
