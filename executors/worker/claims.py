"""The table of what a worker has claimed, from claim to outcome, and the limit of what it claims ahead.

    accept(claims) ──▶ runs, or a chunk's ──▶ PoolRunner ──▶ collect() ──▶ outcomes
    a job that has crashed, or may have, or must not once, waits for a free process, and until the store knows that it
    begins: if we die, only what has begun counts a crash
    cancel, requeue, forget, kill_all         what ends without an outcome comes out of `collect` too

Only the thread of the loop uses it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from taskq.envelope import CHUNK, head, pack_results
from taskq.errors import NotSigned, UnknownTask
from taskq.executor import LEAVING_GRACE
from taskq.executors.pool.jobs import DEFAULTS
from taskq.executors.worker.chunks import ChunkRun
from taskq.executors.worker.outcomes import REFUSED_FOR, log_outcome, outcome_of, refused, requeued
from taskq.executors.worker.progress import echo
from taskq.executors.worker.runs import UNKNOWN_NS, Run
from taskq.failure import Failure
from taskq.log import get_logger
from taskq.options import JobOptions
from taskq.perform import perform_call
from taskq.states import Reason, State
from taskq.store import JobOutcome, ends_by_a_crash

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taskq.executors.worker.runs import PoolRunner
    from taskq.store import Claim, Foreign, Order

__all__ = ["ClaimTable", "PrefetchLimit"]

log = get_logger("taskq.worker")

#: Unknown tasks that are told by name at the most.
_UNKNOWN_MAX: Final = 1_000

#: Seconds for which jobs of a task are refused unseen after a child has refused one: thousands of them may stand before
#: others. Then the next one is tried, since what runs in a child may make tasks known to it.
_UNSEEN: Final = 1.0

#: Why a job is left to workers that may run it.
REFUSALS: Final = {UnknownTask: Reason.UNKNOWN_TASK, NotSigned: Reason.UNSIGNED}

#: What jobs of stock RQ say of crashes.
NO_OPTIONS: Final = JobOptions()

#: Nanoseconds of work that each process may have in hand.
_AHEAD_NS: Final = 150_000_000.0
#: Jobs that one poll takes at the most: bounds how long it keeps the store busy.
_CLAIM_MAX: Final = 500
#: Jobs that one poll takes while all that it brings is refused unseen: thousands may stand before one that can run.
_PASSING: Final = 300
#: Jobs held at the most: bounds what a worker's death makes run again.
_HELD_MAX: Final = 2_000
#: Weight of the newest claims in the mean of what a job costs.
_WEIGHT: Final = 0.3

Holding: TypeAlias = "Run | ChunkRun"


class ClaimTable:
    """What is claimed, and what runs it."""

    def __init__(self, runner: PoolRunner, prefetch: PrefetchLimit) -> None:
        self.held: dict[str, Holding] = {}
        self.succeeded = 0
        self.failed = 0
        #: Jobs that were taken and not given back.
        self.begun = 0
        #: Jobs that begin only when the store knows it, with what runs them.
        self.announced: deque[tuple[Claim, list[Run]]] = deque()
        self._alone = ""
        self._unknown: set[str] = set()
        #: Until when jobs of a task are refused unseen, and why.
        self._refused: dict[str, tuple[float, Failure]] = {}
        self._runner = runner
        self._prefetch = prefetch

    # -- claims in

    def accept(self, claims: Sequence[Claim]) -> list[JobOutcome]:
        """Have claimed jobs run; return the outcomes of those that cannot."""
        runs: list[Run] = []
        refusals: list[JobOutcome] = []
        unseen = 0
        for claim in claims:
            if claim.id in self.held:  # it was lost to a lapse of ours, and came back
                self.forget([claim.id])
            try:
                if claim.refusal is not None:
                    refusals.append(self._refuse(claim, claim.refusal))
                    continue
                if self._refused and (known := self._known_refusal(claim)) is not None:
                    refusals.append(refused(claim, known))
                    unseen += 1
                    continue
                mine: list[Run] = []
                limit = self.accept_one(claim, mine)
                if claim.suspect or claim.crashes or limit == 1:
                    self._put_off(claim, mine, limit)
                else:
                    runs += mine
            except Exception as error:  # noqa: BLE001  # whatever its bytes make go wrong is this job's failure alone
                refusals.append(self._refuse(claim, error))
        self.begun += len(claims) - len(refusals)
        self._prefetch.observe(runs)
        self._prefetch.passes = 0 < unseen == len(claims)
        self._runner.start(runs)
        return refusals

    def _known_refusal(self, claim: Claim) -> Failure | None:
        """Return why a child would refuse a job, where it has just refused another one of its task."""
        if claim.foreign is not None:
            return None
        task = head(claim.envelope).task
        until, failure = self._refused.get(task, (0.0, None))
        if until <= monotonic():
            self._refused.pop(task, None)
            return None
        return failure

    def _put_off(self, claim: Claim, runs: list[Run], limit: int) -> None:
        self.announced.append((claim, runs))
        self._runner.ahead_ns += sum(run.cost for run in runs)
        if claim.crashes and ends_by_a_crash(claim.crashes, limit):
            self._alone = claim.id

    @property
    def is_alone(self) -> bool:
        """Whether a job is held beside which no other one may run."""
        return self._alone in self.held

    def ready(self) -> list[tuple[str, str]]:
        """Return the id and token of those that could begin now, if the store knew it."""
        free = self._runner.processes - (len(self.held) - len(self.announced))
        return [(claim.id, claim.token) for claim, _ in islice(self.announced, max(0, free))]

    def begin(self, ready: Sequence[tuple[str, str]], lost: Sequence[str]) -> None:
        """Have those run that are `ready`, as the store knows it now, but for those that it has `lost`."""
        begun = [self.announced.popleft() for _ in ready]
        self.note_told(ready)
        self.forget(lost)
        for _, runs in begun:
            self._runner.ahead_ns -= sum(run.cost for run in runs)
        self._runner.start([run for claim, runs in begun if claim.id in self.held for run in runs])

    def untold(self, running: Iterable[Run]) -> list[tuple[str, str]]:
        """Return the id and token of those of these that the store does not know to have begun."""
        claims = {run.claim.id: run.claim for run in running if run.outcome is None}
        found = [self.held[job_id] for job_id, claim in claims.items() if job_id in self.held]
        return [(one.claim.id, one.claim.token) for one in found if not one.told and one.claim is claims[one.claim.id]]

    def note_told(self, begun: Iterable[tuple[str, str]]) -> None:
        """Take note that the store knows that these have begun."""
        for job_id, _ in begun:
            if (found := self.held.get(job_id)) is not None:
                found.told = True

    def requeue(self, *, everything: bool) -> None:
        """Give back what has not begun. Not `everything`: only what never began."""
        while self.announced:
            _drop(self.announced.popleft()[1])
        self._runner.requeue(everything=everything)

    def accept_one(self, claim: Claim, runs: list[Run]) -> int:
        """Hold a claim; return how many crashes it may have."""
        if claim.foreign is not None:
            return self._accept_foreign(claim, claim.foreign, runs)
        found = head(claim.envelope)
        if found.kind == CHUNK:
            chunk = ChunkRun(self._runner, claim, found)
            runs += chunk.begin()
            self.held[claim.id] = chunk
            return found.options.max_crashes
        options = found.options
        args = (claim.envelope, claim.id, claim.attempt, pack_results(claim.results))
        self._add(
            claim,
            self._runner.new_run(perform_call, found.task, args, _pool_options(options, claim.queue)),
            options,
            runs,
        )
        return options.max_crashes

    def _accept_foreign(self, claim: Claim, foreign: Foreign, runs: list[Run]) -> int:
        fn, args, options = foreign.order(last=claim.refused_for >= REFUSED_FOR)
        run = self._runner.new_run(fn, foreign.task, args, _pool_options(options, claim.queue))
        self._add(claim, run, options, runs)
        return NO_OPTIONS.max_crashes

    def _add(self, claim: Claim, run: Run, options: JobOptions, runs: list[Run]) -> None:
        run.claim = claim
        if options.retry is not None:
            run.policy = options.retry
        if claim.crashes or claim.suspect:
            run.crashes = claim.crashes
            run.isolated = True
        if claim.meta:
            run.remember(claim.meta)
        self.held[claim.id] = run
        runs.append(run)

    def _refuse(self, claim: Claim, error: Exception) -> JobOutcome:
        reason = next((word for kind, word in REFUSALS.items() if isinstance(error, kind)), Reason.UNDECODABLE)
        failure = Failure.from_exception(error, reason)
        if reason is not Reason.UNSIGNED or self._is_news(claim.id):
            log.warning("job_refused", job=claim.id, queue=claim.queue, reason=str(reason), error=failure.message)
        if reason in REFUSALS.values() or claim.foreign is not None:
            return refused(claim, failure)
        return JobOutcome(id=claim.id, token=claim.token, state=State.FAILED, failure=failure, started=False)

    # -- outcomes out

    def collect(self, outcomes: list[JobOutcome]) -> int:
        """Append the outcomes of all that has ended; return how many came from a process that did something."""
        ended, held = self._runner.ended, self.held
        worked = 0
        while ended:
            run = self._runner.take()
            worked += not run.dropped
            if run.output is not None:
                echo(run, ended=True)
            job_id = run.claim.id
            if run.chunk is None:
                if held.get(job_id) is run:
                    told = run.outcome or _with_last_words(run, self._judged(run, outcome_of(run)))
                    if not self._calls_back(run, told):
                        del held[job_id]
                        outcomes.append(told)
                continue
            outcome = run.chunk.ended(run)
            if outcome is not None and held.get(job_id) is run.chunk:
                del held[job_id]
                outcomes.append(self._judged(run, outcome))
        return worked

    def _calls_back(self, run: Run, outcome: JobOutcome) -> bool:
        """Tell whether something is to be called before an outcome is told; if so, have it run."""
        claim = run.claim
        if run.outcome is not None:
            if not run.dropped and isinstance(failure := run.returned(), Failure):
                log.warning("callback_failed", job=claim.id, error=f"{failure.type}: {failure.message}")
            return False
        order = None if claim.foreign is None else _callback_of(claim.foreign, outcome)
        if order is None:
            return False
        fn, args, options = order
        callback = self._runner.new_run(fn, run.task, args, _pool_options(options, claim.queue))
        callback.claim, callback.outcome = claim, outcome
        self.held[claim.id] = callback
        self._runner.start([callback])
        return True

    def _judged(self, run: Run, outcome: JobOutcome) -> JobOutcome:
        state = outcome.state
        if state is State.SUCCEEDED:
            self.succeeded += 1
            return outcome
        if self._runner.broken is not None:
            outcome, state = requeued(run.claim), State.QUEUED
        if state is State.QUEUED or outcome.refused:
            self.begun -= 1
        elif state is State.FAILED:
            self.failed += 1
        if outcome.refused and run.claim.foreign is None:
            self._remember_refusal(run.task, outcome.failure)
        if not outcome.refused or self._is_news(run.task):
            log_outcome(run, outcome)
        return outcome

    def _remember_refusal(self, task: str, failure: Failure | None) -> None:
        if failure is not None and len(self._refused) < _UNKNOWN_MAX:
            self._refused[task] = (monotonic() + _UNSEEN, failure)

    def _is_news(self, task: str) -> bool:
        """Tell whether this task, or job, is refused for the first time: there may be thousands, again and again."""
        if task in self._unknown or len(self._unknown) >= _UNKNOWN_MAX:
            return False
        self._unknown.add(task)
        return True

    # -- ends that come from outside

    def cancel(self, job_id: str, *, kill: bool) -> None:
        """Carry out a request: drop a job that has not begun, ask a running one to stop, or kill it."""
        found = self.held.get(job_id)
        if found is not None:
            found.unwanted = True
            _stop(found)
            for run in _runs_of(found):
                run.unwanted = True
            self._take_out(job_id)
            grace = LEAVING_GRACE if isinstance(found, ChunkRun) else 0.0  # a map was left, by Ctrl-C or an error
            self._runner.cancel(_runs_of(found), kill=kill, grace=grace)

    def _take_out(self, job_id: str) -> None:
        """Drop a job that has not begun because the store does not know it yet."""
        for entry in self.announced:
            if entry[0].id == job_id:
                self.announced.remove(entry)
                _drop(entry[1])
                return

    def forget(self, job_ids: Iterable[str]) -> None:
        """End jobs that are not ours any more, without a word about them."""
        for job_id in job_ids:
            found = self.held.pop(job_id, None)
            self._take_out(job_id)
            if found is not None:
                _stop(found)
                log.warning("job_lost", job=job_id, reason="the lease ran out; another worker has it")
                self._runner.cancel(_runs_of(found), kill=True)

    def kill_all(self) -> None:
        """Kill whatever runs: all of it goes back to its queues."""
        for found in self.held.values():
            _stop(found)
            self._runner.cancel(_runs_of(found), kill=True)

    def requeue_rest(self) -> list[JobOutcome]:
        """Return the outcomes of everything that is still held: it goes back, unless its end was only to be told."""
        outcomes = [_outcome_of(found) or requeued(found.claim) for found in self.held.values()]
        self.held.clear()
        self.announced.clear()
        return outcomes

    def tokens(self) -> list[tuple[str, str]]:
        """Return the id and token of all that is held."""
        return [(found.claim.id, found.claim.token) for found in self.held.values()]


def _callback_of(foreign: Foreign, outcome: JobOutcome) -> Order | None:
    """Return what a job of another's wants called when its process was killed, or died."""
    failure = outcome.failure
    if outcome.state is State.CANCELLED and outcome.started:
        return foreign.after_stop()
    if outcome.state is State.FAILED and failure is not None and failure.reason in (Reason.CRASHED, Reason.TIMEOUT):
        return foreign.after_death(failure)
    return None


def _drop(runs: Iterable[Run]) -> None:
    for run in runs:
        run.drop()


def _with_last_words(run: Run, outcome: JobOutcome) -> JobOutcome:
    """Add what the job has said and the store was not told."""
    if run.output is None and run.last_progress is None:
        return outcome
    news = run.news()
    return outcome if news is None else replace(outcome, progress=news.progress, meta=news.meta, log=news.log)


def _outcome_of(found: Holding) -> JobOutcome | None:
    return found.outcome if isinstance(found, Run) else None


def _runs_of(found: Holding) -> list[Run]:
    return [found] if isinstance(found, Run) else list(found.runs)


def _stop(found: Holding) -> None:
    """Have no more runs made for a chunk."""
    if isinstance(found, ChunkRun):
        found.stop()


@lru_cache(maxsize=1024)
def _pool_options_of(timeout: float | None, soft_timeout: float | None, max_crashes: int, queue: str) -> JobOptions:
    options = JobOptions(timeout=timeout, soft_timeout=soft_timeout, max_crashes=max_crashes, queue=queue)
    return DEFAULTS if options == DEFAULTS else options


def _pool_options(options: JobOptions, queue: str) -> JobOptions:
    """Return what the pool has to know: it runs a job once, and again only if its process dies."""
    return _pool_options_of(options.timeout, options.soft_timeout, options.max_crashes, queue)


class PrefetchLimit:
    """How many more jobs to claim: measured in time, not in jobs.

    Enough that no process waits for the store, little enough that what is claimed starts within moments: a job that
    waits here behind a long one could be running elsewhere. It is told all that it needs.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._mean_ns = UNKNOWN_NS
        #: Whether all that was claimed last was refused unseen.
        self.passes = False

    def observe(self, runs: Sequence[Run]) -> None:
        """Take note of what the jobs taken last are thought to cost."""
        if runs:
            mean = sum(run.cost for run in runs) / len(runs)
            self._mean_ns += _WEIGHT * (mean - self._mean_ns)

    def want(self, held: int, ahead_ns: float) -> int:
        """Return how many jobs to take, when `held` are in hand that are thought to take `ahead_ns` together."""
        free_ns = self._processes * _AHEAD_NS - ahead_ns
        by_time = int(-(-free_ns // self._mean_ns)) if free_ns > 0 else 0
        if self.passes and by_time > 0:
            by_time = max(by_time, _PASSING)
        return max(0, min(max(by_time, self._processes - held), _CLAIM_MAX, _HELD_MAX - held))

    def has_plenty(self, ahead_ns: float, seconds: float) -> bool:
        """Tell whether every process has work for longer than so many seconds."""
        return ahead_ns > 2e9 * seconds * self._processes
