"""A worker without a loop, for tests: each step when the test says so."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from taskq.codec import encode
from taskq.envelope import CALL, Template
from taskq.ids import new_id
from taskq.options import JobOptions
from taskq.result import Failure
from taskq.states import State
from taskq.store import NewJob, Verdict, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.executors.rq.membership import RQMembership
    from taskq.executors.rq.store import RQStore
    from taskq.store import Claim, Exchange

#: A task that a stock worker can run too.
TASK = "operator:add"


def new_job(*args: Any, needs: Sequence[str] = (), task: str = TASK, **options: Any) -> NewJob:
    """Return a job that adds its two arguments."""
    chosen = JobOptions(**options)
    envelope = Template(CALL, task, chosen).pack(encode(list(args or (1, 2))), encode({}))
    return NewJob(
        id=chosen.job_id or new_id(),
        task=task,
        envelope=envelope,
        options=chosen,
        needs=tuple(needs),
        label="add(1, 2)",
    )


def succeeded(claim: Claim, value: Any = 3) -> Verdict:
    """Return the verdict that a claimed job has this value."""
    return Verdict(id=claim.id, token=claim.token, state=State.SUCCEEDED, result=encode(value), seconds=0.25)


def failed(claim: Claim, error: Exception | None = None) -> Verdict:
    """Return the verdict that a claimed job has failed."""
    failure = Failure.from_exception(error or ValueError("no good"))
    return Verdict(id=claim.id, token=claim.token, state=State.FAILED, failure=failure)


def given_back(claim: Claim, **fields: Any) -> Verdict:
    """Return the verdict that a claimed job was not begun."""
    return Verdict(id=claim.id, token=claim.token, state=State.QUEUED, started=False, **fields)


def again(claim: Claim, delay: float = 0.0) -> Verdict:
    """Return the verdict that a claimed job failed and is to be tried again."""
    failure = Failure.from_exception(ValueError("not yet"))
    return Verdict(id=claim.id, token=claim.token, state=State.SCHEDULED, failure=failure, delay=delay)


class Hands:
    """One worker."""

    def __init__(self, store: RQStore, name: str, queues: tuple[str, ...]) -> None:
        self.store = store
        self.record = WorkerRecord(
            name=name, host=socket.gethostname(), pid=os.getpid(), queues=queues, processes=2, version="1.0"
        )
        self.membership: RQMembership = store.join(self.record)  # type: ignore[assignment]

    def take(self, want: int = 10) -> list[Claim]:
        """Claim jobs."""
        return list(self.membership.exchange([], [], want).claims)

    def tell(self, *verdicts: Verdict) -> Exchange:
        """Say what became of jobs."""
        return self.membership.exchange(verdicts, [], 0)

    def run(self, want: int = 10, value: Any = 3) -> list[str]:
        """Claim jobs and let them succeed; return their ids."""
        claims = self.take(want)
        assert not self.tell(*(succeeded(claim, value) for claim in claims)).fenced
        return [claim.id for claim in claims]

    def die(self) -> None:
        """Let its lease run out, as if it had been dead for long."""
        self.store.line.command("ZADD", self.store.layout.LEASES, 1, self.record.name)

    def sweep(self) -> int:
        """Sweep as a worker that trusts what it sees; a server of tests has only just been started."""
        return int(self.store.line.call(self.store.address.scripts.sweep, [1]))

    def close(self) -> None:
        """Sign off, and close its connections."""
        try:
            self.membership.leave()
        except (RuntimeError, ConnectionError):
            self.membership._watch.close()
