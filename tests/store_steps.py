"""What the tests of the queue file share: jobs, workers, outcomes in one line each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from taskq.options import JobOptions
from taskq.states import State
from taskq.store import JobOutcome, NewJob, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.store import Claim, Ended, JobRecord, Store, WorkerSession

#: Seconds for which a subscription is listened to in vain before a test gives up.
PATIENCE = 20.0


def job(name: str, /, *, envelope: bytes = b"envelope", depends_on: Sequence[str] = (), **options: Any) -> NewJob:
    """Return a new job; keywords are its options."""
    return NewJob(
        id=name,
        task="tests:nothing",
        envelope=envelope,
        options=JobOptions(**options),
        depends_on=tuple(depends_on),
        label="x()",
    )


def worker(name: str = "w", queues: Sequence[str] = ("default",), **more: Any) -> WorkerRecord:
    """Return what a worker says of itself."""
    return WorkerRecord(name=name, host="here", pid=os.getpid(), queues=tuple(queues), processes=2, **more)


def said(claim: Claim, state: State = State.SUCCEEDED, **fields: Any) -> JobOutcome:
    """Return an outcome on a claimed job; a success has its id as result."""
    if state is State.SUCCEEDED:
        fields.setdefault("result", claim.id.encode())
    return JobOutcome(id=claim.id, token=claim.token, state=state, **fields)


def take(member: WorkerSession, want: int = 10) -> list[Claim]:
    """Claim jobs."""
    return list(member.poll([], [], want).claims)


def tell(member: WorkerSession, *outcomes: JobOutcome) -> list[str]:
    """Tell outcomes; return what was fenced."""
    return list(member.poll(outcomes, [], 0).fenced)


def see(store: Store, job_id: str) -> JobRecord:
    """Return a job that must be there."""
    found = store.get([job_id], payload=True)[0]
    assert found is not None, f"job {job_id} is not there"
    return found


def state_of(store: Store, job_id: str) -> State:
    """Return the state of a job that must be there."""
    return see(store, job_id).state


def hear(subscription: Any, count: int) -> dict[str, Ended]:
    """Listen until so many jobs have ended."""
    found: dict[str, Ended] = {}
    while len(found) < count:
        news = subscription.wait(PATIENCE)
        assert news, f"heard only of {sorted(found)}"
        found.update((one.id, one) for one in news)
    return found
