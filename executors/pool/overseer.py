"""What a pool does about children that are slow, stuck, unwanted or dead.

Every tick, for each busy child:
    early results   nothing reported for a tick: read its journal, so that no finished job waits behind a slow one
    taking back     its running job is long and others wait behind it: stop it from starting more, take the rest back;
                    of a run of short jobs, the ones behind the long one are released by the child at a signal
    sharing         another child has nothing to do: take back what this one has in store, for both to go on with
    verdicts        a job past its timeout, or cancelled with kill: take back the rest, then kill

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

from taskq.executors.pool import frames, page, values
from taskq.executors.pool.output import last_words, said_by, trim
from taskq.executors.pool.processes import NO_GUARD
from taskq.executors.pool.work import Calls, Chunk
from taskq.log import get_logger
from taskq.result import describe_exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.dispatcher import Dispatcher
    from taskq.executors.pool.jobs import LocalJob
    from taskq.executors.pool.slot import Frame, Slot
    from taskq.executors.pool.work import Batch, Entry

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


class Verdict:
    """A running job that must be ended, and why: at its timeout, or because it was cancelled."""

    def __init__(
        self,
        line: int,
        *,
        timed_out: bool,
        job: LocalJob | None = None,
        answer: Callable[[bool], None] = lambda _: None,
        kill: bool = True,
        expired: bool = False,
    ) -> None:
        self.line = line
        self.timed_out = timed_out
        self.job = job
        self.answer = answer
        self.kill = kill
        #: Whether the job fails as expired if it had not started; else it goes on.
        self.expired = expired
        self.patience = _RELEASE_TICKS


class Mourning:
    """A job that died with its process and is only failed when the exit code is known, or at `until`."""

    def __init__(self, batch: Batch, at: int, until: float) -> None:
        self.batch = batch
        self.at = at
        self.until = until


class Overseer:
    """Watch over the children of one dispatcher; in its thread only."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._books = dispatcher.books
        self._verdicts: dict[Slot, list[Verdict]] = {}
        self._mourning: dict[int, Mourning] = {}
        self._exit_codes: dict[int, int | None] = {}
        self._start_failures = 0.0
        #: Children that were ready, or whose failing start was counted, until they are reaped.
        self._met: set[int] = set()
        #: Whether the pool is ending: then children that go before they were ready are nothing strange.
        self.ending = False

    @property
    def mourns(self) -> bool:
        """Whether a job still waits for its process's exit code."""
        return bool(self._mourning)

    # -- starts

    def started_well(self, slot: Slot) -> None:
        """Take note that a child is ready."""
        self._met.add(slot.line.pid)
        self._start_failures = 0.0

    def excuse(self, pid: int) -> None:
        """Take note that a child had to go because of us: its end counts as no failure."""
        self._met.add(pid)

    def start_failed(self, slot: Slot, body: bytes) -> None:
        """Take note that the initializer raised in a child."""
        self._met.add(slot.line.pid)
        failure, _ = values.unpack_failure(body)
        what = f"{failure.type}: {failure.message}\n{failure.traceback}"
        self._count_start_failure(1.0, f"the initializer failed in child {slot.line.pid}: {what}")

    def _count_start_failure(self, weight: float, message: str) -> None:
        self._start_failures += 0.0 if self.ending else weight
        if self._start_failures >= _START_FAILURES:
            self._dispatcher.on_broken(message)

    def reaped(self, pid: int | None, exitcode: int | None) -> None:
        """Hear from Pool that a child was reaped; `pid` None: it could not even be started, and Pool tries again."""
        if pid is None:
            return
        slot = self._last_words_of(pid)
        if pid not in self._met:
            self._died_early(pid, exitcode)
        self._met.discard(pid)
        if slot is not None and slot.line.is_alive():
            self._orphaned(slot)
        elif slot is not None:
            self._exit_codes[pid] = exitcode
        elif pid in self._mourning:
            self._bury_job(pid, exitcode)

    def _last_words_of(self, pid: int) -> Slot | None:
        """Hear all that a child has said, so that it is judged by that; return its slot."""
        self._dispatcher.welcome()
        slot = next((slot for slot in self._books.slots.values() if slot.line.pid == pid), None)
        if slot is not None:
            self._dispatcher.read(slot)
        return None if slot is None or slot.dead else slot

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

    def _orphaned(self, slot: Slot) -> None:
        """Let a child end its work that Pool has lost sight of (its fork server died) and has replaced by a new one."""
        slot.retiring = slot.orphan = True
        if not slot.frames:
            self._dispatcher.forget(slot)

    # -- the tick

    def tick(self) -> None:
        """Look at every busy child."""
        now = monotonic()
        for slot in list(self._books.slots.values()):
            self._warn_of_import(slot)
            if slot.line.page.words[page.INTERRUPT] == page.ASKED:
                slot.line.ask_to_release()
            if slot.frames:
                self._look_at(slot, now)
                trim(slot.line.output)
        for pid in [pid for pid, mourning in self._mourning.items() if mourning.until <= now]:
            self._bury_job(pid, None)

    def _warn_of_import(self, slot: Slot) -> None:
        """Say that a child does not come to work, since no time limit counts what it imports."""
        began = slot.line.page.words[page.IMPORTING]
        warned, slot.warned = slot.warned, began > 0 and monotonic_ns() - began > _IMPORTS_LONG_NS
        if slot.warned and not warned:
            task = slot.frames[0].batch.function.name if slot.frames else None
            log.warning("import_hangs", pid=slot.line.pid, task=task, seconds=_IMPORTS_LONG_NS // 10**9)

    def _look_at(self, slot: Slot, now: float) -> None:
        commit = slot.line.page.words[page.COMMIT]
        slot.still = commit == slot.seen_commit
        slot.seen_commit = commit
        if slot.still:
            self._read_early(slot)
        self._check_deadline(slot)
        if slot.stopping is None:
            if slot in self._verdicts or self._blocks_others(slot) or self._can_share(slot):
                self.stop(slot)
        elif slot.stopping <= now:
            self._take_back(slot)
            if not slot.dead and slot.claim - slot.done > 1:
                slot.line.ask_to_release()

    def _read_early(self, slot: Slot) -> bool:
        """Settle what the child has committed but not yet sent; return whether that could be read."""
        records = slot.journal()
        if records:
            self._dispatcher.settle(slot, records)
        return records is not None

    def _check_deadline(self, slot: Slot) -> None:
        """Condemn the running job if it is past its timeout."""
        timeout = slot.frames[0].batch.options.timeout
        started = slot.line.page.words[page.START]
        if timeout is None or not started or monotonic_ns() - started < timeout * 1e9:
            return
        verdicts = self._verdicts.setdefault(slot, [])
        if not any(verdict.timed_out and verdict.line == slot.done for verdict in verdicts):
            verdicts.append(Verdict(line=slot.done, timed_out=True))

    def _blocks_others(self, slot: Slot) -> bool:
        """Tell whether jobs wait behind one that has been running for long, or at a child that does not begin."""
        if not slot.still or slot.has_unsent:
            return False
        words = slot.line.page.words
        running = words[page.PHASE] in (page.DECODING, page.DEFINING) or slot.claim > slot.done
        return slot.line_end > slot.done + running

    def _can_share(self, slot: Slot) -> bool:
        """Tell whether an idle child could do part of what this one has in store."""
        if self._books.backlog or slot.line_end <= slot.done + 1:
            return False
        store = (slot.line_end - slot.done - 1) * (slot.frames[-1].batch.function.pace.ns or 0.0)
        return store > _WORTH_TAKING and any(other.is_free for other in self._books.slots.values())

    # -- taking back

    def stop(self, slot: Slot) -> None:
        """Have a child start nothing more of what it has."""
        if slot.stopping is None and slot.frames:
            slot.line.page.words[page.STOP] = 1
            slot.stopping = monotonic() + _OBEYED
            self._dispatcher.tick_at(slot.stopping)

    def rested(self, slot: Slot) -> None:
        """Let a child that has finished all it had start again."""
        for verdict in self._verdicts.pop(slot, ()):  # the jobs ended by themselves, or were taken back
            self._answer(verdict)
        slot.stopping = None
        slot.line.page.words[page.STOP] = 0

    def _take_back(self, slot: Slot) -> None:
        """Read what is done, take back what was not started, and carry out the verdicts on what runs."""
        self._dispatcher.read(slot)
        if slot.dead or not slot.frames or slot.stopping is None or not self._read_early(slot):
            return
        being_written = slot.has_unsent and slot not in self._verdicts
        if being_written or slot.line.page.words[page.PHASE] == page.DECODING:
            boundary = slot.frames[0].first + len(slot.frames[0].batch)
        else:
            boundary = max(slot.claim, slot.done + (slot.line.page.words[page.PHASE] == page.DEFINING))
        self._books.backlog.put_back(_in_halves(slot.take_back(boundary)))
        if slot.is_unsure and slot.line_end == slot.done:
            slot.line.kill()  # it was never sent anything, and nobody can tell whether it still will be
        self._carry_out(slot, boundary)

    def _carry_out(self, slot: Slot, boundary: int) -> None:
        verdicts = self._verdicts.get(slot, [])
        for verdict in list(verdicts):
            if not slot.done <= verdict.line < boundary:
                verdicts.remove(verdict)
                self._answer(verdict)
            elif boundary - slot.done > 1 and verdict.patience:
                verdict.patience -= 1  # of a run of short jobs the child is asked to release the others first
            elif verdict.kill:
                slot.line.kill()
            else:
                if not verdict.expired:
                    slot.line.page.words[page.CANCEL] = verdict.line + 1
                verdicts.remove(verdict)
                verdict.answer(False)

    @staticmethod
    def _answer(verdict: Verdict) -> None:
        """Tell who asked: a job that was taken back can be dropped; one that has ended stays as it ended."""
        if verdict.job is not None:
            if not verdict.job.done() and verdict.expired:
                verdict.job.expire()
            elif not verdict.job.done():
                verdict.job.withdraw()
            verdict.answer(verdict.job.cancelled())

    def cancel(self, slot: Slot, line: int, job: LocalJob, answer: Callable[[bool], None], *, kill: bool) -> None:
        """Cancel a job that is in a child's hands."""
        job.stop_wanted = True
        verdict = Verdict(line=line, timed_out=False, job=job, answer=answer, kill=kill)
        self._verdicts.setdefault(slot, []).append(verdict)
        self.stop(slot)

    def expire(self, slot: Slot, line: int, job: LocalJob) -> None:
        """Fail a job that is in a child's hands, unless it has started."""
        if line >= max(slot.claim, slot.done):
            verdict = Verdict(line=line, timed_out=False, job=job, kill=False, expired=True)
            self._verdicts.setdefault(slot, []).append(verdict)
            self.stop(slot)

    # -- deaths

    def bury(self, slot: Slot) -> None:
        """Settle everything that a dead child had in its hands."""
        dispatcher = self._dispatcher
        slot.dead = True
        dispatcher.read(slot)
        self._read_early(slot)
        phase, claim, done = slot.line.page.words[page.PHASE], slot.claim, slot.done
        verdicts = self._verdicts.pop(slot, [])
        printed = last_words(slot.line.output)
        dispatcher.forget(slot)
        if slot.ready and not slot.retiring and not self.ending:
            log.info("child_died", pid=slot.line.pid, jobs=slot.busy_jobs)
        if slot.frames:
            running = {
                page.RUNNING: claim - done,
                page.DECODING: len(slot.frames[0].batch),
                page.DEFINING: 1,  # what kills the process while its function is imported is its first job's doing
            }.get(phase, 0)
            if printed is not None and running == 1 and isinstance(slot.frames[0].batch, Calls):
                said_by(slot.frames[0].batch.jobs[slot.frames[0].settled]).take(frames.PRINTED, *printed)
            self._requeue(slot, running, verdicts)
        for verdict in verdicts:
            self._answer(verdict)
        self._exit_codes.pop(slot.line.pid, None)

    def _requeue(self, slot: Slot, running: int, verdicts: list[Verdict]) -> None:
        """Blame the one job that ran; run several that may have run one by one; put the rest back."""
        head = slot.frames[0]
        start = head.settled
        suspects = min(max(running, 0), head.cut - start)
        entries = [*head.batch.part(start + suspects, head.cut)]
        for frame in list(slot.frames)[1:]:
            entries += frame.batch.part(frame.settled, frame.cut)
        self._books.backlog.put_back(entries)
        if suspects == 1:
            self._blame(slot, head, start, verdicts)
        elif suspects:
            self._books.outcomes.suspect(head.batch, start, start + suspects)

    def _blame(self, slot: Slot, frame: Frame, at: int, verdicts: list[Verdict]) -> None:
        verdict = next((verdict for verdict in verdicts if verdict.line == frame.first + at), None)
        outcomes, pid = self._books.outcomes, slot.line.pid
        if verdict is not None and verdict.timed_out:
            outcomes.timed_out(frame.batch, at)
        elif verdict is not None and verdict.kill:
            frame.batch.drop(at)
        elif not outcomes.is_last_crash(frame.batch, at):
            outcomes.crashed(frame.batch, at, None)
        else:
            self._mourning[pid] = Mourning(frame.batch, at, monotonic() + _MOURN)
            if pid in self._exit_codes:
                self._bury_job(pid, self._exit_codes[pid])

    def _bury_job(self, pid: int, exitcode: int | None) -> None:
        mourning = self._mourning.pop(pid)
        self._books.outcomes.crashed(mourning.batch, mourning.at, exitcode)


def _in_halves(entries: list[Entry]) -> list[Entry]:
    """Cut a single chunk in two, so that two children can go on with it."""
    if len(entries) == 1 and isinstance(entries[0], Chunk):
        chunk, half = entries[0], len(entries[0]) // 2
        return [*chunk.part(0, half), *chunk.part(half, len(chunk))]
    return entries
