"""Claims, from what the claim script answers, and their outcomes, as the finish script takes them.

Whatever stands in a record, reading it must not end the worker: numbers have defaults, bytes that are no text stay what
they are, and an envelope that is none is refused by whoever runs the job.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import DecodeError
from taskq.executors.rq.keys import FIELDS, as_exc_string
from taskq.executors.rq.records import (
    NONE,
    Returned,
    envelope_of,
    horse_text,
    pack_failure,
    progress_text,
    result_of,
    whole_number,
)
from taskq.executors.rq.stock_jobs import StockJob, number_in
from taskq.states import State
from taskq.store import Claim

if TYPE_CHECKING:
    from taskq.executors.rq.client import Backend
    from taskq.failure import Failure
    from taskq.serving import Serving
    from taskq.store import JobOutcome, WorkerRecord

__all__ = ["HeldJob", "outcome_row", "read_claim", "unknown"]

#: Seconds that RQ keeps results and failures where the job does not say.
STOCK_RESULT_TTL: Final = 500
STOCK_FAILURE_TTL: Final = 31_536_000


def read_claim(store: Backend, worker: WorkerRecord, entry: list[Any], since: str) -> tuple[Claim, HeldJob]:
    """Return a claim, and what the worker remembers of it. `entry`: what the script answers; `since`: its moment.

    Of a record that cannot be read it is a claim that whoever runs it refuses.
    """
    job_id, token, queue = map(_text, entry[:3])
    try:
        return _read(store, worker, (job_id, token, queue, since), entry[3])
    except Exception:  # noqa: BLE001  # anybody may write there: one bad record is one bad record
        claim = Claim(id=job_id, token=token, envelope=NONE, queue=queue, attempt=1)
        return claim, HeldJob(id=job_id, token=token, queue=queue, since=since, whole=1)


def _read(
    store: Backend, worker: WorkerRecord, place: tuple[str, str, str, str], fields: list[Any]
) -> tuple[Claim, HeldJob]:
    job_id, token, queue, since = place
    if fields[0] == b"":
        raw = _pairs(fields[1])
        return _foreign(store, worker.name, _hold(place, raw, worker.serving), raw)
    data, _task, result_ttl, failure_ttl, reply_to, rare = fields
    held = HeldJob(
        id=job_id,
        token=token,
        queue=queue,
        since=since,
        reply_to=_text(reply_to),
        result_ttl=whole_number(result_ttl, 86_400),
        failure_ttl=whole_number(failure_ttl, 604_800),
    )
    envelope, refusal = _envelope(data, store.max_bytes)
    if rare != 0:
        claim = _rare(held, envelope, rare)
    else:
        claim = Claim(id=job_id, token=token, envelope=envelope, queue=queue, attempt=1)
    claim.refusal = refusal
    return claim, held


def _rare(held: HeldJob, envelope: bytes, rare: list[Any]) -> Claim:
    """Return the claim of a job that has what few have, see claim.lua."""
    key, refused, results, meta, attempts, crashes, retries, suspect = rare
    held.key, held.whole = _text(key), 1
    held.attempt, held.crashes, held.retries = (
        whole_number(attempts, 1),
        whole_number(crashes, 0),
        whole_number(retries, 0),
    )
    return Claim(
        id=held.id,
        token=held.token,
        envelope=envelope,
        queue=held.queue,
        attempt=held.attempt,
        crashes=held.crashes,
        suspect=suspect != b"",
        retries=held.retries,
        refused_for=float(refused),
        results={_text(results[n]): result_of(results[n + 1]) for n in range(0, len(results), 2)},
        meta=meta,
    )


def _foreign(store: Backend, worker: str, held: HeldJob, raw: dict[bytes, bytes]) -> tuple[Claim, HeldJob]:
    refused = raw.get(FIELDS["refused"].encode())
    claim = Claim(
        id=held.id,
        token=held.token,
        envelope=b"",
        queue=held.queue,
        attempt=held.attempt,
        crashes=held.crashes,
        suspect=FIELDS["suspect"].encode() in raw,
        refused_for=_waited(held.since, refused),
        foreign=StockJob(store.address, held.id, worker, raw, store.max_bytes),
    )
    return claim, held


def _waited(now: str, since: bytes | None) -> float:
    """Return the seconds since a moment, 0 where it is none."""
    try:
        return max(0.0, float(now) - float(since)) if since else 0.0
    except ValueError:
        return 0.0


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=False))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _envelope(data: bytes, limit: int) -> tuple[bytes, DecodeError | None]:
    """Return the envelope in a job's data; of one that cannot be read, bytes that are none, and why."""
    refusal = None
    try:
        found = envelope_of(data, limit)
    except DecodeError as exc:
        found, refusal = None, exc
    return (data[:64] or NONE if found is None else found), refusal


#: Kinds of the finish script.
KINDS: Final = {State.SUCCEEDED: "s", State.FAILED: "f", State.CANCELLED: "c", State.SCHEDULED: "r", State.QUEUED: "b"}
#: The kind of a failure of which nothing is kept but that it was one.
UNLISTED: Final = "q"


@dataclass(slots=True)
class HeldJob:
    """What a worker remembers of a job in its hands, so that its end needs no look at the job's record."""

    id: str
    token: str
    queue: str = "default"
    since: str = "0"
    attempt: int = 1
    crashes: int = 0
    retries: int = 0
    reply_to: str = ""
    result_ttl: int = 86_400
    failure_ttl: int = 604_800
    key: str = ""
    #: 1: it has keys that few jobs have.
    whole: int = 0
    #: It is a job of stock RQ.
    foreign: bool = False
    #: If it fails, its error is kept, and it is listed as failed.
    listed: bool = True


def outcome_row(outcome: JobOutcome, held: HeldJob, *, stopped: bool) -> list[Any]:
    """Return an outcome as the finish script takes it."""
    state = outcome.state
    attempts = held.attempt - 1 + (outcome.attempts if outcome.started else 0)
    crashes = held.crashes + outcome.crashes
    kind, text = KINDS[state], ""
    payload: str | bytes = ""
    returned: Returned | None = None
    ttl = held.result_ttl
    if state is State.SUCCEEDED:
        result = outcome.result
        if held.foreign:
            returned = Returned.unpack(result or b"\x92\xc0\xc0")
            result = returned.value
            if returned.retry:
                ttl = held.failure_ttl
        payload = "" if result is None or (result == NONE and not held.foreign) else b64encode(result).decode("ascii")
    elif outcome.failure is not None and (state is State.FAILED or outcome.refused):
        failed_as = horse_text(outcome.failure) if held.foreign else ""
        payload, text = pack_failure(outcome.failure), as_exc_string(failed_as or exc_text(outcome.failure))
        ttl = held.failure_ttl
        kind = kind if held.listed or state is not State.FAILED else UNLISTED
    elif state is State.SCHEDULED and not outcome.counted:
        kind = "u"
    elif state is State.CANCELLED and stopped:
        kind, text, ttl = "x", as_exc_string("Job stopped by user, work-horse terminated."), held.failure_ttl
    more = _more(outcome, held, attempts, crashes, payload)
    foreign: Any = 0
    if held.foreign:
        foreign = [1, (returned and returned.retry) or 0]
    return [
        held.id,
        held.token,
        held.queue,
        kind,
        ttl,
        held.reply_to,
        f"{attempts} {crashes}",
        payload,
        text,
        held.since,
        held.key,
        more or 0,
        outcome.delay if state in (State.SCHEDULED, State.QUEUED) else 0,
        int(outcome.refused),
        foreign,
        held.whole,
        outcome.log,
    ]


def _more(outcome: JobOutcome, held: HeldJob, attempts: int, crashes: int, payload: Any) -> list[Any]:
    """Return the fields, flat, that change beside the status."""
    more: list[Any] = []
    if attempts != held.attempt:
        more += (FIELDS["attempts"], attempts)
    if crashes:
        more += (FIELDS["crashes"], crashes)
    if outcome.progress is not None:
        more += (FIELDS["progress"], progress_text(outcome.progress))
    if outcome.meta is not None:
        more += ("meta", outcome.meta, FIELDS["rare"], "1")
    if outcome.refused:
        more += (FIELDS["why"], payload)
    elif outcome.state is State.FAILED:
        more += (FIELDS["failure"], payload)
    if outcome.state is State.SCHEDULED:
        more += (FIELDS["retries"], held.retries + outcome.counted, "ended_at", "")
    return more


def unknown(outcome: JobOutcome) -> HeldJob:
    """Return what is known of a job that is not in this worker's hands; the fence will refuse it."""
    return HeldJob(outcome.id, outcome.token)


def exc_text(failure: Failure) -> str:
    """Return a failure as RQ's readers expect a traceback: the last line names the error."""
    last = f"{failure.type}: {failure.message}" if failure.message else failure.type
    return failure.traceback or last


def _hold(place: tuple[str, str, str, str], raw: dict[bytes, bytes], serving: Serving) -> HeldJob:
    """Return what the worker remembers of a job of stock RQ."""
    job_id, token, queue, since = place
    default = STOCK_RESULT_TTL if serving.foreign_ttl is None else serving.foreign_ttl
    return HeldJob(
        job_id,
        token,
        queue,
        since,
        attempt=number_in(raw, b"tq_attempts", 1),
        crashes=number_in(raw, b"tq_crashes", 0),
        result_ttl=number_in(raw, b"result_ttl", default),
        failure_ttl=number_in(raw, b"failure_ttl", STOCK_FAILURE_TTL),
        whole=1,
        foreign=True,
        listed=serving.lists_failures,
    )
