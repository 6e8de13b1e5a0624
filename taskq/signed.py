"""SignedStore: in front of any store, it signs what goes in and checks what comes out.

    put, cancel                    ──▶ signed ──▶  the store
    outcomes, updates of workers  ──▶ signed ──▶    │
    claims, requests, ends, records ◀── checked ◀───┘

A job that is not signed is never run: it is left to others that may know its key, and fails in the end, UNSIGNED. An
outcome that is not signed fails its job for the client; news of one is dropped, and the job's record looked at. What
stores themselves write of an end (expired, its worker died, a job that it waits for failed) is not signed: who can
write there can end or delete any job.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from taskq.codec import decode, encode
from taskq.envelope import head
from taskq.errors import (
    BackendUnavailable,
    DecodeError,
    DependencyFailed,
    JobCrashed,
    JobExpired,
    JobLost,
    NotSigned,
    QueueFull,
    UnknownTask,
)
from taskq.failure import Failure
from taskq.log import get_logger
from taskq.names import qualified_name
from taskq.redact import KEYS_VARIABLE
from taskq.signing import ASK, ENVELOPE, FAILURE, KILL, META, RESULT, Signer, is_sealed, read_keys
from taskq.states import TERMINAL, Reason, State
from taskq.store import Claim, Ended, Finding, JobRecord, News, PollResult, Store, Subscription, WorkerSession
from taskq.wait_book import ended_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from taskq.store import (
        ControlRequest,
        JobOutcome,
        JobQuery,
        NewJob,
        ProgressUpdate,
        QueueRecord,
        Remains,
        WorkerRecord,
    )

__all__ = ["SignedStore"]

log = get_logger("taskq.signing")

#: Seconds for which the request that a running job ends holds: longer than a worker is away from its store.
REQUEST_HOLDS: Final = 3600.0

#: Refusals that are told by the job's id; there may be any number of them.
TOLD_MAX: Final = 1_000

#: Classes of failures that stores themselves make, which know no key.
OF_STORES: Final = {
    qualified_name(cls): reason
    for cls, reason in (
        (JobExpired, Reason.EXPIRED),
        (JobCrashed, Reason.CRASHED),
        (JobLost, Reason.LOST),
        (DependencyFailed, Reason.ERROR),
        (DecodeError, Reason.UNDECODABLE),
    )
}
#: Characters of what they say that are shown.
WORDS_MAX: Final = 1_000


# --- what is checked


class _Border:
    """Sign what goes into a store and check what comes out of it, in place."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self.store = store
        self.signer = signer
        self._told: set[tuple[str, str]] = set()

    def tell(self, event: str, job_id: str, problem: object) -> None:
        """Log a refusal, once for each job."""
        if (event, job_id) not in self._told and len(self._told) < TOLD_MAX:
            self._told.add((event, job_id))
            log.warning(event, job=job_id, reason=str(problem))

    # -- failures

    def sign_failure(self, failure: Failure, job_id: str, seconds: float) -> Failure:
        """Return a failure with its signature."""
        return failure.changed(seal=self.signer.mark(FAILURE, _data_of(failure), job_id, seconds))

    def failure(self, failure: Failure, job_id: str) -> Failure:
        """Return a failure that was signed, or that stores make themselves.

        Raises:
            NotSigned: it is neither.
        """
        if failure.seal or OF_STORES.get(failure.type) is not failure.reason:
            self.signer.check(FAILURE, failure.seal, _data_of(failure), job_id)
            return failure.changed(seal=b"")
        return Failure(
            reason=failure.reason,
            type=failure.type,
            message=failure.message[:WORDS_MAX],
            mro=(failure.type, *BASES),
            exitcode=failure.exitcode,
            crashes=failure.crashes,
        )

    def refusal(self, failure: Failure | None, job_id: str) -> Failure | None:
        """Return why a worker did not run a job, None where nobody says so who may."""
        try:
            return None if failure is None else self.failure(failure, job_id)
        except NotSigned:
            return None

    # -- records

    def record(self, record: JobRecord, *, payload: bool) -> JobRecord:
        """Check all of a record; a job whose outcome is not signed has failed for whoever reads it."""
        try:
            record.meta = self.signer.open(META, record.meta, record.id) if record.meta else b""
        except NotSigned:
            record.meta = b""
        foreign = payload and not record.envelope
        try:
            record.envelope = record.envelope and self.signer.open(ENVELOPE, record.envelope, record.id, record.queue)
        except NotSigned:
            record.envelope = b""
        record.refusal = self.refusal(record.refusal, record.id)
        try:
            if record.failure is not None:
                record.failure = self.failure(record.failure, record.id)
            if payload and record.state is State.SUCCEEDED and not (foreign and self.store.takes_unsigned):
                record.result = self.signer.open(RESULT, record.result or b"", record.id)
        except NotSigned as exc:
            record.failure, record.result, record.state = _unsigned("outcome", record.id, exc), None, State.FAILED
        return record

    def ended(self, ended: Ended) -> Ended:
        """Check the news of an end.

        Raises:
            NotSigned: it is not signed.
        """
        if ended.state is State.SUCCEEDED:
            ended.result = self.signer.open(RESULT, ended.result or b"", ended.id)
        elif ended.failure is not None and ended.failure.seal:
            ended.failure = self.failure(ended.failure, ended.id)
        else:
            raise NotSigned("it is an end of which stores tell, without a signature")
        return ended

    # -- claims

    def claim(self, claim: Claim) -> Claim:
        """Check a claimed job and the results that it needs; one that must not be run says so."""
        try:
            claim.meta = self.signer.open(META, claim.meta, claim.id) if claim.meta else b""
        except NotSigned as exc:
            claim.meta = b""
            self.tell("meta_refused", claim.id, exc)
        if claim.foreign is not None:
            if not self.store.takes_unsigned:
                claim.refusal = NotSigned(
                    f"job {claim.id} is one of stock RQ, which signs nothing: start the worker with "
                    "?allow_unsigned_rq=1 in its URL to run such jobs"
                )
            return claim
        try:
            claim.envelope = self.signer.open(ENVELOPE, claim.envelope, claim.id, claim.queue)
        except NotSigned as exc:
            claim.refusal = claim.refusal or _refused("job", claim.id, exc)
        for need, result in claim.results.items():
            try:
                claim.results = {**claim.results, need: self.signer.open(RESULT, result, need)}
            except NotSigned as exc:
                claim.refusal = claim.refusal or _refused(f"the result that job {claim.id} needs, of job", need, exc)
        return claim

    def holds(self, request: ControlRequest) -> bool:
        """Tell whether a request is to be obeyed: it is signed, or one that the store's URL lets through."""
        if request.foreign or request.job_id is None:
            return request.foreign
        try:
            self.signer.check(KILL if request.kill else ASK, request.seal, b"", request.job_id)
        except NotSigned as exc:
            self.tell("request_refused", request.job_id, exc)
            return False
        return True


def _data_of(failure: Failure) -> bytes:
    """Return a failure as it reads when it has gone through a store."""
    return encode(Failure.from_data(decode(encode(failure.changed(seal=b"").to_data()))).to_data())


#: What every failure of a store counts as.
BASES: Final = ("taskq.errors.JobError", "taskq.errors.TaskqError", "Exception", "BaseException")


def _refused(what: str, job_id: str, problem: NotSigned) -> NotSigned:
    return NotSigned(f"{what} {job_id} must not be run: {problem}; {KEYS_VARIABLE} must be the same everywhere")


def _unsigned(what: str, job_id: str, problem: NotSigned) -> Failure:
    error = NotSigned(f"the {what} of job {job_id} cannot be believed: {problem}")
    return Failure.from_exception(error, Reason.UNSIGNED).changed(traceback="")


# --- the store


class SignedStore(Store):
    """Stand in front of a store: sign all that goes in, and check all that comes out.

    Raises:
        ConfigError: the keys are none.
    """

    def __init__(self, store: Store) -> None:
        self.keys = read_keys()
        self._inner = store
        self._border = _Border(store, Signer(self.keys))
        self.url, self.source = store.url, store.source
        self.lease, self.heartbeat_every = store.lease, store.heartbeat_every
        self.max_bytes, self.labels = store.max_bytes, store.labels
        self.signed_for, self.takes_unsigned = store.signed_for, store.takes_unsigned
        self.runs_foreign = store.runs_foreign
        store.demand_signatures()

    def __repr__(self) -> str:
        return f"<SignedStore {self.url}>"

    # -- jobs

    def put(self, jobs: Sequence[NewJob], *, reply_to: str = "") -> list[str]:
        for job in jobs:
            if not is_sealed(job.envelope):
                seconds = self.signed_for + _wait_of(job)
                job.envelope = self._border.signer.seal(ENVELOPE, job.envelope, job.id, seconds, job.options.queue)
        return self._inner.put(jobs, reply_to=reply_to)

    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        found = self._inner.get(ids, payload=payload)
        return [None if record is None else self._border.record(record, payload=payload) for record in found]

    def cancel(
        self, ids: Sequence[str], *, kill: bool = False, seals: Mapping[str, bytes] | None = None
    ) -> list[State | None]:
        kind = KILL if kill else ASK
        marks = {job_id: self._border.signer.mark(kind, b"", job_id, REQUEST_HOLDS) for job_id in ids}
        return self._inner.cancel(ids, kill=kill, seals=seals or marks)

    def retry(self, ids: Sequence[str]) -> list[bool]:
        return self._inner.retry(ids)

    def remove(self, ids: Sequence[str]) -> list[bool]:
        return self._inner.remove(ids)

    def log(self, job_id: str, offset: int = 0) -> bytes:
        return self._inner.log(job_id, offset)

    # -- queues and workers

    def queues(self) -> list[QueueRecord]:
        return self._inner.queues()

    def some_queues(self, most: int, first: Collection[str] = ()) -> tuple[list[QueueRecord], int]:
        return self._inner.some_queues(most, first)

    def workers(self) -> list[WorkerRecord]:
        return self._inner.workers()

    def pause(self, queue: str) -> None:
        self._inner.pause(queue)

    def resume(self, queue: str) -> None:
        self._inner.resume(queue)

    def doctor(self) -> list[Finding]:
        count = len(self.keys)
        known = "1 key is known" if count == 1 else f"{count} keys are known, of which the first signs"
        text = f"jobs, results and commands are signed; {known}"
        return [*self._inner.doctor(), Finding(topic="signing", level="ok", text=text)]

    def risks(self) -> list[Finding]:
        return self._inner.risks()

    # -- for clients and workers

    def subscribe(self) -> Subscription:
        return _SignedSubscription(self, self._inner.subscribe(), self._border)

    def join(self, record: WorkerRecord) -> WorkerSession:
        return _SignedSession(self._inner.join(record), self._border, self.signed_for)

    def close(self) -> None:
        self._inner.close()

    def find(self, query: JobQuery) -> list[JobRecord]:
        return [self._border.record(record, payload=False) for record in self._inner.find(query)]


def _wait_of(job: NewJob) -> float:
    """Return the seconds until a job may start."""
    at = job.options.at
    return max(0.0, at.timestamp() - time.time()) if at is not None else job.options.delay or 0.0


class _SignedSubscription(Subscription):
    """Believe only news that is signed; of all other, look at the job itself."""

    def __init__(self, store: SignedStore, subscription: Subscription, border: _Border) -> None:
        self.reply_to = subscription.reply_to
        self.ask_most = subscription.ask_most
        self.waits_here = subscription.waits_here
        self._store = store
        self._subscription = subscription
        self._border = border

    def ask(self, ids: Collection[str]) -> None:
        self._subscription.ask(ids)

    def forget(self, ids: Collection[str]) -> None:
        self._subscription.forget(ids)

    def wait(self, timeout: float | None) -> News:
        return self._believed(self._subscription.wait(timeout))

    def wait_here(self, job_id: str, timeout: float | None) -> News:
        return self._believed(self._subscription.wait_here(job_id, timeout))

    def wake(self) -> None:
        self._subscription.wake()

    def close(self) -> None:
        self._subscription.close()

    def _believed(self, news: News) -> News:
        told, news.ended = news.ended, []
        for ended in told:
            try:
                news.ended.append(self._border.ended(ended))
            except NotSigned as exc:
                if ended.state is State.SUCCEEDED or (ended.failure is not None and ended.failure.seal):
                    self._border.tell("news_refused", ended.id, exc)
                self._look_at(ended.id, news)
        return news

    def _look_at(self, job_id: str, news: News) -> None:
        """Say how a job stands by its own record."""
        try:
            (record,) = self._store.get([job_id], payload=True)
        except (BackendUnavailable, QueueFull):
            news.unread.append(job_id)
            return
        if record is None:
            news.missing.append(job_id)
        elif record.state in TERMINAL:
            news.ended.append(ended_of(job_id, record))
        else:
            news.waiting.append(job_id)


class _SignedSession(WorkerSession):
    """Take only jobs and control requests that are signed; sign what is told of jobs."""

    def __init__(self, session: WorkerSession, border: _Border, signed_for: float) -> None:
        self._inner = session
        self._border = border
        self._signed_for = signed_for
        #: The tokens of held jobs whose results are not signed, and for how long those of others are kept.
        self._foreign: set[str] = set()
        self._kept_for: dict[str, float] = {}

    def poll(self, outcomes: Sequence[JobOutcome], updates: Sequence[ProgressUpdate], want: int) -> PollResult:
        for outcome in outcomes:
            self._sign_outcome(outcome)
        for update in updates:
            if update.meta and not is_sealed(update.meta):
                update.meta = self._border.signer.seal(META, update.meta, update.id, self._signed_for)
        found = self._inner.poll(outcomes, updates, want)
        for outcome in outcomes:
            self._foreign.discard(outcome.token)
            self._kept_for.pop(outcome.token, None)
        return PollResult(
            claims=[self._take(claim) for claim in found.claims],
            control_requests=[request for request in found.control_requests if self._border.holds(request)],
            fenced=found.fenced,
        )

    def _sign_outcome(self, outcome: JobOutcome) -> None:
        """Sign what an outcome brings; in place, as one that is told again must be the same."""
        signer, job_id = self._border.signer, outcome.id
        seconds = max(self._signed_for, self._kept_for.get(outcome.token, 0.0))
        if outcome.result is not None and not is_sealed(outcome.result) and outcome.token not in self._foreign:
            outcome.result = signer.seal(RESULT, outcome.result, job_id, seconds)
        if outcome.failure is not None and not outcome.failure.seal:
            outcome.failure = self._border.sign_failure(outcome.failure, job_id, seconds)
        if outcome.meta and not is_sealed(outcome.meta):
            outcome.meta = signer.seal(META, outcome.meta, job_id, seconds)

    def _take(self, claim: Claim) -> Claim:
        self._border.claim(claim)
        if claim.foreign is not None:
            self._foreign.add(claim.token)
        elif claim.refusal is None and (kept := _kept_for(claim.envelope)) > self._signed_for:
            self._kept_for[claim.token] = kept
        return claim

    def claim_one(self, job_id: str) -> Claim | None:
        claim = self._inner.claim_one(job_id)
        return None if claim is None else self._take(claim)

    def begin(self, claims: Sequence[tuple[str, str]]) -> list[str]:
        return self._inner.begin(claims)

    def heartbeat(self, record: WorkerRecord, held: Collection[tuple[str, str]]) -> list[str]:
        return self._inner.heartbeat(record, held)

    def remains(self) -> Remains:
        return self._inner.remains()

    def run_maintenance(self) -> int:
        return self._inner.run_maintenance()

    def wait(self, timeout: float, wake_fd: int) -> None:
        self._inner.wait(timeout, wake_fd)

    def leave(self) -> None:
        self._inner.leave()


def _kept_for(envelope: bytes) -> float:
    """Return for how long the outcome of a job is kept, as far as it says so."""
    try:
        return head(envelope).options.result_ttl or 0.0
    except (DecodeError, UnknownTask):  # whoever runs it says so
        return 0.0
