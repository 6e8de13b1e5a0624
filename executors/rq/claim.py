"""From what the claim script answers to claims, ours and those of stock RQ's jobs.

Whatever stands in a record, reading it must not end the worker: numbers have defaults, bytes that are no text stay what
they are, and an envelope that is none is refused by whoever runs the job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskq.errors import DecodeError
from taskq.executors.rq.foreign import ForeignJob, hold
from taskq.executors.rq.layout import FIELDS
from taskq.executors.rq.outcome import Held
from taskq.executors.rq.record import NONE, envelope_of, result_of, whole_number
from taskq.store import Claim

if TYPE_CHECKING:
    from taskq.executors.rq.address import Address

__all__ = ["read_claim"]


def read_claim(address: Address, worker: str, entry: list[Any], since: str) -> tuple[Claim, Held]:
    """Return a claim, and what the worker remembers of it. `entry`: what the script answers; `since`: its moment.

    Of a record that cannot be read it is a claim that whoever runs it refuses.
    """
    job_id, token, queue = map(_text, entry[:3])
    try:
        return _read(address, worker, (job_id, token, queue, since), entry[3])
    except Exception:  # noqa: BLE001  # anybody may write there: one bad record is one bad record
        claim = Claim(id=job_id, token=token, envelope=NONE, queue=queue, attempt=1)
        return claim, Held(id=job_id, token=token, queue=queue, since=since, whole=1)


def _read(address: Address, worker: str, place: tuple[str, str, str, str], fields: list[Any]) -> tuple[Claim, Held]:
    job_id, token, queue, since = place
    if fields[0] == b"":
        return _foreign(address, worker, hold(job_id, token, queue, since, _pairs(fields[1])), _pairs(fields[1]))
    data, _task, result_ttl, failure_ttl, reply_to, rare = fields
    held = Held(
        id=job_id,
        token=token,
        queue=queue,
        since=since,
        reply_to=_text(reply_to),
        result_ttl=whole_number(result_ttl, 86_400),
        failure_ttl=whole_number(failure_ttl, 604_800),
    )
    if rare != 0:
        return _rare(held, data, rare), held
    return Claim(id=job_id, token=token, envelope=_envelope(data), queue=queue, attempt=1), held


def _rare(held: Held, data: bytes, rare: list[Any]) -> Claim:
    """Return the claim of a job that has what few have, see claim.lua."""
    key, refused, results, meta, attempts, crashes, retries = rare
    held.key, held.whole = _text(key), 1
    held.attempt, held.crashes, held.retries = (
        whole_number(attempts, 1),
        whole_number(crashes, 0),
        whole_number(retries, 0),
    )
    return Claim(
        id=held.id,
        token=held.token,
        envelope=_envelope(data),
        queue=held.queue,
        attempt=held.attempt,
        crashes=held.crashes,
        retries=held.retries,
        refused_for=float(refused),
        results={_text(results[n]): result_of(results[n + 1]) for n in range(0, len(results), 2)},
        meta=meta,
    )


def _foreign(address: Address, worker: str, held: Held, raw: dict[bytes, bytes]) -> tuple[Claim, Held]:
    refused = raw.get(FIELDS["refused"].encode())
    claim = Claim(
        id=held.id,
        token=held.token,
        envelope=b"",
        queue=held.queue,
        attempt=held.attempt,
        crashes=held.crashes,
        refused_for=_waited(held.since, refused),
        foreign=ForeignJob(address, held.id, worker, raw),
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


def _envelope(data: bytes) -> bytes:
    """Return the envelope in a job's data; of one that cannot be read, bytes that are none."""
    try:
        found = envelope_of(data)
    except DecodeError:
        found = None
    return data[:64] or NONE if found is None else found
