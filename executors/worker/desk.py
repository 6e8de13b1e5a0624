"""What a worker holds: claims on their way through the pool, each until its outcome.

    accept(claims) ──▶ errands, or a chunk's ──▶ Hands ──▶ collect() ──▶ outcomes
    a job whose next crash is its last waits for a free process, and for `begin`: then it has been running if we die
    cancel, requeue, forget, kill_all                     what ends without an outcome comes out of `collect` too

It is for the thread of the loop alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from taskq.envelope import CHUNK, head, pack_results
from taskq.errors import UnknownTask
from taskq.executors.pool.jobs import DEFAULTS
from taskq.executors.worker.chunks import ChunkRun
from taskq.executors.worker.echo import echo, printable
from taskq.executors.worker.errand import Errand
from taskq.executors.worker.verdicts import given_back, outcome_of, refused
from taskq.failure import Failure
from taskq.log import get_logger
from taskq.options import JobOptions
from taskq.perform import perform_call
from taskq.states import Reason, State
from taskq.store import JobOutcome, ends_by_a_crash

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taskq.executors.worker.hands import Hands
    from taskq.executors.worker.room import Room
    from taskq.store import Claim, Foreign, Order

__all__ = ["Desk"]

log = get_logger("taskq.worker")

#: Unknown tasks that are told by name at the most.
_UNKNOWN_MAX: Final = 1_000

#: Seconds for which jobs of a task are refused unseen after a child has refused one: thousands of them may stand before
#: others. Then the next one is tried, since what runs in a child may make tasks known to it.
_UNSEEN: Final = 1.0

#: What jobs of stock RQ say of crashes.
NO_OPTIONS: Final = JobOptions()

Held: TypeAlias = "Errand | ChunkRun"


class Desk:
    """Keep the books of what is claimed. Used by the worker's thread."""

    def __init__(self, hands: Hands, room: Room) -> None:
        self.held: dict[str, Held] = {}
        self.succeeded = 0
        self.failed = 0
        #: Jobs that were taken and not given back.
        self.begun = 0
        #: Jobs that begin only when the store knows it, with what runs them.
        self._careful: deque[tuple[Claim, list[Errand]]] = deque()
        self._alone = ""
        self._unknown: set[str] = set()
        #: Until when jobs of a task are refused unseen, and why.
        self._refused: dict[str, tuple[float, Failure]] = {}
        self._hands = hands
        self._room = room

    # -- claims in

    def accept(self, claims: Sequence[Claim]) -> list[JobOutcome]:
        """Have claimed jobs run; return the outcomes of those that cannot."""
        errands: list[Errand] = []
        refusals: list[JobOutcome] = []
        unseen = 0
        for claim in claims:
            if claim.id in self.held:  # it was lost to a lapse of ours, and came back
                self.forget([claim.id])
            try:
                if self._refused and (known := self._known_refusal(claim)) is not None:
                    refusals.append(refused(claim, known))
                    unseen += 1
                    continue
                mine: list[Errand] = []
                limit = self._accept(claim, mine)
                if ends_by_a_crash(claim.crashes, limit):
                    self._put_off(claim, mine)
                else:
                    errands += mine
            except Exception as error:  # noqa: BLE001  # whatever its bytes make go wrong is this job's failure alone
                refusals.append(self._refuse(claim, error))
        self.begun += len(claims) - len(refusals)
        self._room.observe(errands)
        self._room.passes = 0 < unseen == len(claims)
        self._hands.start(errands)
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

    def _put_off(self, claim: Claim, errands: list[Errand]) -> None:
        self._careful.append((claim, errands))
        self._hands.ahead_ns += sum(errand.cost for errand in errands)
        if claim.crashes:
            self._alone = claim.id

    @property
    def is_alone(self) -> bool:
        """Whether a job is held beside which no other one may run."""
        return self._alone in self.held

    def ready(self) -> list[tuple[str, str]]:
        """Return the id and token of those that could begin now, if the store knew it."""
        if not self._careful:
            return []
        free = self._hands.processes - (len(self.held) - len(self._careful))
        return [(claim.id, claim.token) for claim, _ in islice(self._careful, max(0, free))]

    def begin(self, ready: Sequence[tuple[str, str]], lost: Sequence[str]) -> None:
        """Have those run that are `ready`, as the store knows it now, but for those that it has `lost`."""
        begun = [self._careful.popleft() for _ in ready]
        self.forget(lost)
        for _, errands in begun:
            self._hands.ahead_ns -= sum(errand.cost for errand in errands)
        self._hands.start([errand for claim, errands in begun if claim.id in self.held for errand in errands])

    def requeue(self, *, everything: bool) -> None:
        """Give back what has not begun. Not `everything`: only what never began."""
        while self._careful:
            _drop(self._careful.popleft()[1])
        self._hands.requeue(everything=everything)

    def _accept(self, claim: Claim, errands: list[Errand]) -> int:
        """Hold a claim; return how many crashes it may have."""
        if claim.foreign is not None:
            return self._accept_foreign(claim, claim.foreign, errands)
        found = head(claim.envelope)
        if found.kind == CHUNK:
            chunk = ChunkRun(self._hands, claim, found)
            errands += chunk.begin()
            self.held[claim.id] = chunk
            return found.options.max_crashes
        options = found.options
        args = (claim.envelope, claim.id, claim.attempt, pack_results(claim.results))
        self._add(
            claim, self._hands.errand(perform_call, found.task, args, _limits(options, claim.queue)), options, errands
        )
        return options.max_crashes

    def _accept_foreign(self, claim: Claim, foreign: Foreign, errands: list[Errand]) -> int:
        run, args, options = foreign.order()
        errand = self._hands.errand(run, foreign.task, args, _limits(options, claim.queue))
        self._add(claim, errand, options, errands)
        return NO_OPTIONS.max_crashes

    def _add(self, claim: Claim, errand: Errand, options: JobOptions, errands: list[Errand]) -> None:
        errand.claim = claim
        if options.retry is not None:
            errand.retry = options.retry
        if claim.crashes:
            errand.crashes = claim.crashes
            errand.isolated = True
        if claim.meta:
            errand.remember(claim.meta)
        self.held[claim.id] = errand
        errands.append(errand)

    @staticmethod
    def _refuse(claim: Claim, error: Exception) -> JobOutcome:
        unknown = isinstance(error, UnknownTask)
        failure = Failure.from_exception(error, Reason.UNKNOWN_TASK if unknown else Reason.UNDECODABLE)
        log.warning("job_refused", job=claim.id, queue=claim.queue, error=failure.message)
        if unknown or claim.foreign is not None:
            return refused(claim, failure)
        return JobOutcome(id=claim.id, token=claim.token, state=State.FAILED, failure=failure, started=False)

    # -- outcomes out

    def collect(self, outcomes: list[JobOutcome]) -> int:
        """Append the outcomes of all that has ended; return how many came from a process that did something."""
        ended, held = self._hands.ended, self.held
        worked = 0
        while ended:
            errand = self._hands.take()
            worked += not errand.dropped
            echo(errand, ended=True)
            job_id = errand.claim.id
            if errand.chunk is None:
                if held.get(job_id) is errand:
                    told = errand.outcome or _with_last_words(errand, self._judged(errand, outcome_of(errand)))
                    if not self._calls_first(errand, told):
                        del held[job_id]
                        outcomes.append(told)
                continue
            outcome = errand.chunk.ended(errand)
            if outcome is not None and held.get(job_id) is errand.chunk:
                del held[job_id]
                outcomes.append(self._judged(errand, outcome))
        return worked

    def _calls_first(self, errand: Errand, outcome: JobOutcome) -> bool:
        """Tell whether something is to be called before an outcome is told; if so, have it run."""
        claim = errand.claim
        if errand.outcome is not None:
            if not errand.dropped and isinstance(failure := errand.returned(), Failure):
                log.warning("callback_failed", job=claim.id, error=f"{failure.type}: {failure.message}")
            return False
        order = None if claim.foreign is None else _last_order(claim.foreign, outcome)
        if order is None:
            return False
        run, args, options = order
        callback = self._hands.errand(run, errand.task, args, _limits(options, claim.queue))
        callback.claim, callback.outcome = claim, outcome
        self.held[claim.id] = callback
        self._hands.start([callback])
        return True

    def _judged(self, errand: Errand, outcome: JobOutcome) -> JobOutcome:
        state = outcome.state
        if state is State.SUCCEEDED:
            self.succeeded += 1
            return outcome
        if self._hands.broken is not None:
            outcome, state = given_back(errand.claim), State.QUEUED
        if state is State.QUEUED or outcome.refused:
            self.begun -= 1
        elif state is State.FAILED:
            self.failed += 1
        if outcome.refused and errand.claim.foreign is None:
            self._remember_refusal(errand.task, outcome.failure)
        if not outcome.refused or self._is_news(errand.task):
            _tell(errand, outcome)
        return outcome

    def _remember_refusal(self, task: str, failure: Failure | None) -> None:
        if failure is not None and len(self._refused) < _UNKNOWN_MAX:
            self._refused[task] = (monotonic() + _UNSEEN, failure)

    def _is_news(self, task: str) -> bool:
        """Tell whether this is the first job of an unknown task: there may be thousands, each again and again."""
        if task in self._unknown or len(self._unknown) >= _UNKNOWN_MAX:
            return False
        self._unknown.add(task)
        return True

    # -- ends that come from outside

    def cancel(self, job_id: str, *, kill: bool) -> None:
        """Do as somebody wished: drop a job that has not begun, ask a running one to stop, or kill it."""
        found = self.held.get(job_id)
        if found is not None:
            found.unwanted = True
            _stop(found)
            for errand in _errands_of(found):
                errand.unwanted = True
            self._take_out(job_id)
            self._hands.cancel(_errands_of(found), kill=kill)

    def _take_out(self, job_id: str) -> None:
        """Drop a job that has not begun because the store does not know it yet."""
        for entry in self._careful:
            if entry[0].id == job_id:
                self._careful.remove(entry)
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
                self._hands.cancel(_errands_of(found), kill=True)

    def kill_all(self) -> None:
        """Kill whatever runs: all of it goes back to its queues."""
        for found in self.held.values():
            _stop(found)
            self._hands.cancel(_errands_of(found), kill=True)

    def abandon(self) -> list[JobOutcome]:
        """Return the outcomes of everything that is still held: it goes back, unless its end was only to be told."""
        outcomes = [_outcome_of(found) or given_back(found.claim) for found in self.held.values()]
        self.held.clear()
        self._careful.clear()
        return outcomes

    def holdings(self) -> list[tuple[str, str]]:
        """Return the id and token of all that is held."""
        return [(found.claim.id, found.claim.token) for found in self.held.values()]


def _last_order(foreign: Foreign, outcome: JobOutcome) -> Order | None:
    """Return what a job of another's wants called when its process was killed, or died."""
    failure = outcome.failure
    if outcome.state is State.CANCELLED and outcome.started:
        return foreign.after_stop()
    if outcome.state is State.FAILED and failure is not None and failure.reason in (Reason.CRASHED, Reason.TIMEOUT):
        return foreign.after_death(failure)
    return None


def _drop(errands: Iterable[Errand]) -> None:
    for errand in errands:
        errand.drop()


def _with_last_words(errand: Errand, outcome: JobOutcome) -> JobOutcome:
    """Add what the job has said and the store was not told."""
    if errand.output is None and errand.last_progress is None:
        return outcome
    news = errand.news()
    return outcome if news is None else replace(outcome, progress=news.progress, meta=news.meta, log=news.log)


def _outcome_of(found: Held) -> JobOutcome | None:
    return found.outcome if isinstance(found, Errand) else None


def _errands_of(found: Held) -> list[Errand]:
    return [found] if isinstance(found, Errand) else list(found.errands)


def _stop(found: Held) -> None:
    """Have no more runs made for a chunk."""
    if isinstance(found, ChunkRun):
        found.stop()


@lru_cache(maxsize=1024)
def _limits_of(timeout: float | None, soft_timeout: float | None, max_crashes: int, queue: str) -> JobOptions:
    options = JobOptions(timeout=timeout, soft_timeout=soft_timeout, max_crashes=max_crashes, queue=queue)
    return DEFAULTS if options == DEFAULTS else options


def _limits(options: JobOptions, queue: str) -> JobOptions:
    """Return what the pool has to know: it runs a job once, and again only if its process dies."""
    return _limits_of(options.timeout, options.soft_timeout, options.max_crashes, queue)


def _tell(errand: Errand, outcome: JobOutcome) -> None:
    """Log an end that somebody may want to look into."""
    failure = outcome.failure
    about = {"job": outcome.id, "queue": errand.claim.queue, "task": errand.task}
    trace = {}
    if failure is not None and failure.traceback and errand.claim.foreign is None:  # RQ's own code has printed it
        trace["exception"] = printable(failure.traceback.rstrip())
    if failure is not None:
        about |= {"reason": str(failure.reason), "error": f"{failure.type}: {failure.message}"}
    if outcome.refused:
        log.warning("job_refused", **about)
    elif outcome.state is State.SCHEDULED:
        log.info("job_retried", **about, **trace, delay_s=round(outcome.delay, 3), attempt=errand.claim.attempt)
    elif outcome.state is State.FAILED:
        log.warning("job_failed", **about, **trace, attempt=errand.claim.attempt)
    elif outcome.state is State.CANCELLED:
        log.info("job_cancelled", **about)
    else:
        log.info("job_given_back", **about)
