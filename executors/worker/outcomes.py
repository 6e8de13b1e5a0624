"""The outcome that a worker reports for a job that has ended here. The rules are taskq's.

bytes                                    succeeded
failure    unknown task                  left to workers that may know it; failed after 10 min without any
           its policy retries it, or
           it asks to run again          scheduled
           else                          failed
dropped    somebody cancelled it         cancelled
           the worker requeued it        back to the front of the queue; a start that was cut short is not counted
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from taskq.executors.worker.progress import printable
from taskq.failure import Failure
from taskq.log import get_logger
from taskq.retry import after_error
from taskq.states import Reason, State
from taskq.store import JobOutcome

if TYPE_CHECKING:
    from taskq.executors.worker.runs import Run
    from taskq.store import Claim

__all__ = ["REFUSED_FOR", "log_outcome", "outcome_of", "refused", "requeued"]

log = get_logger("taskq.worker")

#: Seconds for which a job of an unknown task waits for a worker that knows it, before it is failed.
REFUSED_FOR: Final = 600.0
#: Why a job is not run here that another worker may know: its task, or the key by which it is signed.
MAY_BE_KNOWN: Final = (Reason.UNKNOWN_TASK, Reason.UNSIGNED)
#: Seconds after which a refused job is looked at again: as many as it has waited so far, within these bounds.
LOOK_AGAIN: Final = (1.0, 15.0)


def outcome_of(run: Run) -> JobOutcome:
    """Return what becomes of the job of a run that has ended."""
    claim = run.claim
    if run.dropped:
        return _dropped(run)
    returned = run.returned()
    if not isinstance(returned, Failure):
        return JobOutcome(
            id=claim.id,
            token=claim.token,
            state=State.SUCCEEDED,
            result=returned,
            attempts=run.attempt,
            crashes=run.crashes - claim.crashes,
            seconds=run.ran_ns / 1e9,
        )
    return _failed(run, returned)


def _failed(run: Run, failure: Failure) -> JobOutcome:
    claim = run.claim
    if failure.reason is Reason.UNKNOWN_TASK or _is_unread(claim, failure):
        return refused(claim, failure)
    decided = failure if failure.again is None else failure.changed(again=None)
    again = after_error(run.policy, claim.retries, failure if claim.foreign is None else decided, random.random)
    state = State.FAILED if again is None else State.SCHEDULED
    if run.unwanted and again is not None:
        state = State.CANCELLED
    return JobOutcome(
        id=claim.id,
        token=claim.token,
        state=state,
        failure=decided,
        delay=0.0 if again is None else again.delay,
        counted=again is None or again.counted,
        attempts=run.attempt,
        crashes=run.crashes - claim.crashes,
        seconds=run.ran_ns / 1e9,
    )


def _is_unread(claim: Claim, failure: Failure) -> bool:
    """Tell whether it is another's job that this worker cannot read: a stock one may have the serializer for it."""
    return claim.foreign is not None and failure.reason is Reason.UNDECODABLE


def refused(claim: Claim, failure: Failure) -> JobOutcome:
    """Leave a job to others; where there are none fail it, one of an unknown task after it has waited for some."""
    if claim.refused_for >= REFUSED_FOR or failure.reason not in MAY_BE_KNOWN:
        return JobOutcome(
            id=claim.id, token=claim.token, state=State.FAILED, failure=failure, refused=True, started=False
        )
    soonest, latest = LOOK_AGAIN
    return JobOutcome(
        id=claim.id,
        token=claim.token,
        state=State.QUEUED,
        failure=failure,
        refused=True,
        started=False,
        delay=min(max(claim.refused_for, soonest), latest),
    )


def _dropped(run: Run) -> JobOutcome:
    claim = run.claim
    if not run.unwanted:
        return requeued(claim, crashes=run.crashes - claim.crashes)
    started = run.attempt > 0
    return JobOutcome(
        id=claim.id,
        token=claim.token,
        state=State.CANCELLED,
        started=started,
        attempts=max(run.attempt, 1),
        crashes=run.crashes - claim.crashes,
    )


def requeued(claim: Claim, crashes: int = 0) -> JobOutcome:
    """Put a job back to the front of its queue; of its starts here only those count that ended in a crash."""
    return JobOutcome(
        id=claim.id,
        token=claim.token,
        state=State.QUEUED,
        started=crashes > 0,
        attempts=max(crashes, 1),
        crashes=crashes,
    )


def log_outcome(run: Run, outcome: JobOutcome) -> None:
    """Log an end that somebody may want to look into."""
    failure = outcome.failure
    about = {"job": outcome.id, "queue": run.claim.queue, "task": run.task}
    trace = {}
    if failure is not None and failure.traceback and run.claim.foreign is None:  # RQ's own code has printed it
        trace["exception"] = printable(failure.traceback.rstrip())
    if failure is not None:
        about |= {"reason": str(failure.reason), "error": f"{failure.type}: {failure.message}"}
    if outcome.refused:
        log.warning("job_refused", **about)
    elif outcome.state is State.SCHEDULED:
        log.info("job_retried", **about, **trace, delay_s=round(outcome.delay, 3), attempt=run.claim.attempt)
    elif outcome.state is State.FAILED:
        log.warning("job_failed", **about, **trace, attempt=run.claim.attempt)
    elif outcome.state is State.CANCELLED:
        log.info("job_cancelled", **about)
    else:
        log.info("job_given_back", **about)
