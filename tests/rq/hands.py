"""A worker without a loop, for tests: each step when the test says so."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from taskq.codec import encode
from taskq.envelope import CALL, Template
from taskq.failure import Failure
from taskq.ids import new_id
from taskq.options import JobOptions
from taskq.states import State
from taskq.store import JobOutcome, NewJob, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.executors.rq.session import RQSession
    from taskq.executors.rq.store import RQStore
    from taskq.store import Claim, PollResult

#: A task that a stock worker can run too.
TASK = "operator:add"


def new_job(*args: Any, depends_on: Sequence[str] = (), task: str = TASK, **options: Any) -> NewJob:
    """Return a job that adds its two arguments."""
    chosen = JobOptions(**options)
    envelope = Template(CALL, task, chosen).pack(encode(list(args or (1, 2))), encode({}))
    return NewJob(
        id=chosen.job_id or new_id(),
        task=task,
        envelope=envelope,
        options=chosen,
        depends_on=tuple(depends_on),
        label="add(1, 2)",
    )


def succeeded(claim: Claim, value: Any = 3) -> JobOutcome:
    """Return the outcome that a claimed job has this value."""
    return JobOutcome(id=claim.id, token=claim.token, state=State.SUCCEEDED, result=encode(value), seconds=0.25)


def failed(claim: Claim, error: Exception | None = None) -> JobOutcome:
    """Return the outcome that a claimed job has failed."""
    failure = Failure.from_exception(error or ValueError("no good"))
    return JobOutcome(id=claim.id, token=claim.token, state=State.FAILED, failure=failure)


def given_back(claim: Claim, **fields: Any) -> JobOutcome:
    """Return the outcome that a claimed job was not begun."""
    return JobOutcome(id=claim.id, token=claim.token, state=State.QUEUED, started=False, **fields)


def again(claim: Claim, delay: float = 0.0) -> JobOutcome:
    """Return the outcome that a claimed job failed and is to be tried again."""
    failure = Failure.from_exception(ValueError("not yet"))
    return JobOutcome(id=claim.id, token=claim.token, state=State.SCHEDULED, failure=failure, delay=delay)


class Hands:
    """One worker."""

    def __init__(self, store: RQStore, name: str, queues: tuple[str, ...]) -> None:
        self.store = store
        self.record = WorkerRecord(
            name=name, host=socket.gethostname(), pid=os.getpid(), queues=queues, processes=2, version="1.0"
        )
        self.session: RQSession = store.join(self.record)  # type: ignore[assignment]

    def take(self, want: int = 10) -> list[Claim]:
        """Claim jobs."""
        return list(self.session.poll([], [], want).claims)

    def tell(self, *outcomes: JobOutcome) -> PollResult:
        """Say what became of jobs."""
        return self.session.poll(outcomes, [], 0)

    def run(self, want: int = 10, value: Any = 3) -> list[str]:
        """Claim jobs and let them succeed; return their ids."""
        claims = self.take(want)
        assert not self.tell(*(succeeded(claim, value) for claim in claims)).fenced
        return [claim.id for claim in claims]

    def die(self) -> None:
        """Let its lease run out, as if it had been dead for long."""
        self.store.client.command("ZADD", self.store.redis_keys.LEASES, 1, self.record.name)

    def run_maintenance(self) -> int:
        """Sweep as a worker that trusts what it sees; a server of tests has only just been started."""
        return int(self.store.client.call(self.store.address.scripts.sweep, [1, list(self.record.queues)]))

    def close(self) -> None:
        """Sign off, and close its connections."""
        try:
            self.session.leave()
        except (RuntimeError, ConnectionError):
            self.session.notifications.close()
