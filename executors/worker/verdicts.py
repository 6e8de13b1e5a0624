"""What a worker tells its store of a job that has come to an end in its hands. The rules are taskq's.

bytes                                    succeeded
failure    unknown task                  left to workers that may know it; failed after 10 min without any
           its policy retries it         scheduled
           else                          failed
dropped    somebody cancelled it         cancelled
           the worker gave it back       back to the front of the queue; a start that was cut short is not counted
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from taskq.failure import Failure
from taskq.retry import after_error
from taskq.states import Reason, State
from taskq.store import JobOutcome

if TYPE_CHECKING:
    from taskq.executors.worker.errand import Errand
    from taskq.store import Claim

__all__ = ["REFUSED_FOR", "given_back", "outcome_of", "refused"]

#: Seconds for which a job of an unknown task waits for a worker that knows it, before it is failed.
REFUSED_FOR: Final = 600.0
#: Seconds after which a refused job is looked at again: as many as it has waited so far, within these bounds.
LOOK_AGAIN: Final = (1.0, 15.0)


def outcome_of(errand: Errand) -> JobOutcome:
    """Return what becomes of the job of an errand that has ended."""
    claim = errand.claim
    if errand.dropped:
        return _dropped(errand)
    returned = errand.returned()
    if not isinstance(returned, Failure):
        return JobOutcome(
            id=claim.id,
            token=claim.token,
            state=State.SUCCEEDED,
            result=returned,
            attempts=errand.attempt,
            crashes=errand.crashes - claim.crashes,
            seconds=errand.ran_ns / 1e9,
        )
    return _failed(errand, returned)


def _failed(errand: Errand, failure: Failure) -> JobOutcome:
    claim = errand.claim
    if failure.reason is Reason.UNKNOWN_TASK or _is_unread(claim, failure):
        return refused(claim, failure)
    delay = after_error(errand.retry, claim.retries, failure, random.random)
    state = State.FAILED if delay is None else State.SCHEDULED
    if errand.unwanted and delay is not None:
        state = State.CANCELLED
    return JobOutcome(
        id=claim.id,
        token=claim.token,
        state=state,
        failure=failure,
        delay=delay or 0.0,
        attempts=errand.attempt,
        crashes=errand.crashes - claim.crashes,
        seconds=errand.ran_ns / 1e9,
    )


def _is_unread(claim: Claim, failure: Failure) -> bool:
    """Tell whether it is another's job that this worker cannot read: a stock one may have the serializer for it."""
    return claim.foreign is not None and failure.reason is Reason.UNDECODABLE


def refused(claim: Claim, failure: Failure) -> JobOutcome:
    """Leave a job to others; where there are none fail it, one of an unknown task after it has waited for some."""
    if claim.refused_for >= REFUSED_FOR or failure.reason is not Reason.UNKNOWN_TASK:
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


def _dropped(errand: Errand) -> JobOutcome:
    claim = errand.claim
    if not errand.unwanted:
        return given_back(claim, crashes=errand.crashes - claim.crashes)
    started = errand.attempt > 0
    return JobOutcome(
        id=claim.id,
        token=claim.token,
        state=State.CANCELLED,
        started=started,
        attempts=max(errand.attempt, 1),
        crashes=errand.crashes - claim.crashes,
    )


def given_back(claim: Claim, crashes: int = 0) -> JobOutcome:
    """Put a job back to the front of its queue; of its starts here only those count that ended in a crash."""
    return JobOutcome(
        id=claim.id,
        token=claim.token,
        state=State.QUEUED,
        started=crashes > 0,
        attempts=max(crashes, 1),
        crashes=crashes,
    )
