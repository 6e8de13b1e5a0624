"""Between Redis' bytes and taskq's records: a job's hash, its `data`, its failure.

data       RQ's (function, instance, args, kwargs) with one function and one argument, our envelope:
           94  ac "taskq.rq.run"  c0  91 <envelope>  80                    zlib over it from 1 kB up, as RQ's own
failure    codec bytes of Failure.to_data(); or, written by scripts, a letter and a word:
           E seconds   expired          D id ...   a job that it waited for did not succeed
           C number    its workers died so often          Q   its record is broken
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode
from binascii import a2b_base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.codec import decode, encode
from taskq.errors import DecodeError
from taskq.executors.rq.keys import FIELDS, STATUSES
from taskq.failure import Failure
from taskq.locks import pass_on
from taskq.rq import NAME
from taskq.states import Reason, State
from taskq.store import JobRecord

__all__ = [
    "LOOKED_UP",
    "STATE_OF",
    "Returned",
    "data_of",
    "envelope_of",
    "failure_of",
    "horse_text",
    "inflate",
    "pack_failure",
    "progress_text",
    "read_record",
    "whole_number",
]

#: Digits of a number in a record at the most: all such fit 64 bits.
DIGITS_MAX: Final = 18

#: The largest window in a header of zlib, see RFC 1950.
WINDOW_MAX: Final = 7
#: The end of the year 9999, in seconds since 1970.
LAST_INSTANT: Final = 253_402_300_799.0

#: Bytes from which on RQ's `data` is compressed.
COMPRESSED_FROM: Final = 1024

#: Bytes that data may have beside an envelope of the largest size: its head and tail, and a signature.
BESIDE_MAX: Final = 4_096

_HEAD: Final = b"\x94" + bytes((0xA0 | len(NAME),)) + NAME.encode() + b"\xc0\x91"
_TAIL: Final = b"\x80"

#: The codec's bytes of None, which RQ's result streams leave out.
NONE: Final = encode(None)

#: How the text begins that RQ keeps of a job whose process died, and the first number in its texts.
HORSE_DIED: Final = "Work-horse terminated unexpectedly"
NUMBER: Final = re.compile(r"[0-9]{1,9}")

#: Statuses in RQ's words -> ours. Stock RQ's "stopped" is a running job that somebody had killed.
STATE_OF: Final = {
    STATUSES[word].encode(): state
    for word, state in (
        ("CREATED", State.QUEUED),
        ("QUEUED", State.QUEUED),
        ("READY", State.QUEUED),
        ("STARTED", State.RUNNING),
        ("FINISHED", State.SUCCEEDED),
        ("FAILED", State.FAILED),
        ("STOPPED", State.CANCELLED),
        ("CANCELED", State.CANCELLED),
        ("DEFERRED", State.BLOCKED),
        ("RATE_LIMITED", State.BLOCKED),
        ("SCHEDULED", State.SCHEDULED),
    )
}

#: The fields that `look` asks for, in this order; the first three it needs itself.
WORDS: Final = (
    "status",
    "origin",
    "failure",
    "task",
    "description",
    "priority",
    "key",
    "attempts",
    "crashes",
    "retries",
    "created_at",
    "started_at",
    "ended_at",
    "expires",
    "worker_name",
    "progress",
    "meta",
    "dependency_ids",
    "why",
)
LOOKED_UP: Final = [FIELDS[word] for word in WORDS]


# --- data


def data_of(envelope: bytes) -> bytes:
    """Return what RQ keeps as `data` for a call of `perform` with this envelope."""
    size = len(envelope)
    if size < 1 << 8:
        header = bytes((0xC4, size))
    else:
        header = b"\xc5" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xc6" + size.to_bytes(4, "big")
    data = b"".join((_HEAD, header, envelope, _TAIL))
    if len(data) < COMPRESSED_FROM:
        return data
    small = zlib.compress(data, 1)
    return small if len(small) < len(data) else data


def envelope_of(data: bytes, limit: int) -> bytes | None:
    """Return the envelope in a job's `data`, or None when that is another's. `limit`: bytes, as `Store.max_bytes`.

    Raises:
        DecodeError: it begins as ours and goes on otherwise, or is far too large.
    """
    data = inflate_if_packed(data, limit)
    if not data.startswith(_HEAD):
        return None
    at = len(_HEAD)
    width = {0xC4: 1, 0xC5: 2, 0xC6: 4}.get(data[at] if len(data) > at else 0)
    if width is None:
        raise DecodeError("the job's data holds no envelope")
    start = at + 1 + width
    end = start + int.from_bytes(data[at + 1 : start], "big")
    if data[end:] != _TAIL:
        raise DecodeError("the job's data was cut short")
    return data[start:end]


def inflate_if_packed(data: bytes, limit: int) -> bytes:
    """Return a job's data without the compression that may be over it, whichever window its header tells.

    `limit`: bytes that an envelope may measure, as `Store.max_bytes`.

    Raises:
        DecodeError: it is damaged, or grows beyond the limit.
    """
    head = int.from_bytes(data[:2], "big")
    is_packed = head >> 8 & 0x0F == zlib.DEFLATED and head >> 12 <= WINDOW_MAX and head % 31 == 0
    return inflate(data, limit) if is_packed or data[:1] == b"\x78" else data


def inflate(data: bytes, limit: int) -> bytes:
    """Return zlib-compressed data as it was, up to a limit in bytes, as `Store.max_bytes`.

    Raises:
        DecodeError: it is damaged, or grows beyond the limit.
    """
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, limit + BESIDE_MAX)
    except zlib.error as exc:
        raise DecodeError(f"the job's data cannot be decompressed: {exc}") from exc
    if stream.unconsumed_tail:
        raise DecodeError(
            f"the job's data grows beyond {limit:,} bytes when decompressed: raise max_bytes in the URL if it is yours"
        )
    return plain


# --- failures


def pack_failure(failure: Failure) -> bytes:
    """Return a failure as the `tq_failure` field holds it."""
    return encode(failure.to_data())


def failure_of(packed: bytes) -> Failure:
    """Return the failure of a `tq_failure` field; of one that nobody can read, what there is to say."""
    letter, word = packed[:1], packed[1:].decode("utf-8", "replace")
    if letter == b"E":
        return Failure.expired(_float(word.encode()))
    if letter == b"D":
        return _dependency(word)
    if letter == b"C":
        return Failure.crashed(None, _number(word.encode()))
    if letter == b"Q":
        message = "the job's record in Redis has no data that could be run"
        return Failure.from_exception(DecodeError(message), Reason.UNDECODABLE)
    try:
        return Failure.from_data(decode(packed))
    except DecodeError as exc:
        return Failure.from_exception(exc, Reason.UNDECODABLE)


def _dependency(word: str) -> Failure:
    """Return the failure of a job that needed another: its id, then "c" or "f", the error's class and message."""
    job_id, _, how = word.partition(" ")
    if not how.startswith("f"):
        return Failure.dependency(job_id, cancelled=how == "c")
    kind, _, message = how[1:].partition(" ")
    return Failure.dependency(job_id, Failure(reason=Reason.ERROR, type=kind, message=message))


def _failure_of_stream(latest: dict[bytes, bytes], limit: int) -> Failure:
    """Return the failure of a job that a stock worker ran: its traceback is all that RQ keeps."""
    try:
        text = inflate(b64decode(latest.get(b"exc_string", b"")), limit).decode("utf-8", "replace")
    except (DecodeError, ValueError):
        text = ""
    name, _, message = (text.rstrip().rpartition("\n")[2]).partition(": ")
    if text.startswith(HORSE_DIED):
        return Failure.crashed(_exit_code(text), 1)
    if name == "rq.timeouts.JobTimeoutException":
        seconds = NUMBER.search(message)
        return Failure.timed_out(float(seconds[0]) if seconds else 0.0)
    known = name.replace(".", "").isidentifier()
    kind = name if known else "Exception"
    return Failure(
        reason=Reason.ERROR,
        type=kind,
        message=message if known else text[-200:],
        traceback=text,
        mro=(kind, "Exception"),
    )


def _exit_code(text: str) -> int | None:
    """Return the exit code in what RQ says of a process that died, as waitpid gave it; None: it does not say."""
    found = NUMBER.search(text)
    if found is None:
        return None
    status = int(found[0])
    return (status >> 8) or -(status & 127)


# --- records


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", "replace")


def whole_number(text: bytes, default: int) -> int:
    """Return the whole number that a text is, or else `default`; one with more digits than any of ours is none."""
    digits = text.removeprefix(b"-")
    return int(text) if len(digits) <= DIGITS_MAX and digits.isdigit() else default


def _number(value: bytes | None) -> int:
    return whole_number(value or b"", 0)


def _instant(seconds: float | None) -> float | None:
    """Return an instant as it is, if it lies between the years 1970 and 9999."""
    return seconds if seconds is not None and 0 <= seconds <= LAST_INSTANT else None


def _moment(value: bytes | None) -> float | None:
    """Return an instant that RQ wrote, in seconds since 1970."""
    if not value:
        return None
    try:
        found = datetime.strptime(value.decode(), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
        return _instant(found)
    except (ValueError, OverflowError):
        return None


def _float(value: bytes | None) -> float | None:
    try:
        return _instant(float(value)) if value else None
    except ValueError:
        return None


def progress_of(value: bytes | None) -> tuple[int, int | None] | None:
    """Return what a `tq_progress` field says."""
    done, mark, total = (value or b"").partition(b"/")
    return (_number(done), _number(total) if total else None) if mark else None


def result_of(latest: list[bytes]) -> bytes:
    """Return the codec bytes of the value in a result stream's entry."""
    fields = dict(zip(latest[::2], latest[1::2], strict=False))
    value = fields.get(b"return_value")
    return NONE if value is None else a2b_base64(value, strict_mode=True)


def read_record(
    job_id: str, found: list[Any], data: bytes | None = None, *, limit: int, payload: bool = False
) -> JobRecord:
    """Return the record of what `look` found of a job; of one that nobody can read, its state and why.

    `limit`: bytes that an envelope may measure, as `Store.max_bytes`.
    """
    try:
        return record_of(job_id, found, data, limit, payload=payload)
    except Exception as exc:  # noqa: BLE001  # anybody may write there: one bad record is one bad record
        pass_on(exc)
        state = STATE_OF.get(found[0][0], State.QUEUED)
        reason = DecodeError(f"the job's record in Redis cannot be read: {type(exc).__name__}: {exc}")
        failure = Failure.from_exception(reason, Reason.UNDECODABLE)
        if state is State.SUCCEEDED:
            state = State.FAILED
        return JobRecord(id=job_id, task="", state=state, failure=failure if state is State.FAILED else None)


def record_of(job_id: str, found: list[Any], data: bytes | None, limit: int, *, payload: bool) -> JobRecord:
    """Return the record of what `look` found of a job."""
    values, due, latest = found
    fields = dict(zip(WORDS, values, strict=True))
    state = STATE_OF.get(fields["status"], State.QUEUED)
    failure = None
    if state is State.FAILED:
        packed = fields["failure"]
        stream = dict(zip(latest[::2], latest[1::2], strict=False))
        failure = failure_of(packed) if packed else _failure_of_stream(stream, limit)
    waits = state in (State.QUEUED, State.SCHEDULED, State.BLOCKED)
    started = None if waits else _moment(fields["started_at"])
    depends_on = fields["dependency_ids"]
    why = fields["why"] if waits else None
    return JobRecord(
        id=job_id,
        task=_text(fields["task"]) or _foreign_task(fields["description"]),
        state=state,
        queue=_text(fields["origin"]),
        priority=_number(fields["priority"]),
        label=_text(fields["description"]),
        key=_text(fields["key"]) or None,
        attempts=_number(fields["attempts"]) or int(fields["task"] is None and started is not None),
        crashes=_number(fields["crashes"]),
        retries=_number(fields["retries"]),
        submitted_at=_moment(fields["created_at"]),
        due_at=_float(due),
        started_at=started,
        ended_at=_moment(fields["ended_at"]) if state in (State.SUCCEEDED, State.FAILED, State.CANCELLED) else None,
        expires_at=_float(fields["expires"]),
        worker=None if waits else _text(fields["worker_name"]) or None,
        progress=progress_of(fields["progress"]),
        meta=fields["meta"] or b"",
        depends_on=tuple(_ids(depends_on)),
        envelope=_envelope(data, limit) if payload else b"",
        result=_result(latest, data, limit, ours=bool(fields["task"]))
        if payload and state is State.SUCCEEDED
        else None,
        failure=failure,
        refusal=failure_of(why) if why else None,
    )


def _result(latest: list[bytes], data: bytes | None, limit: int, *, ours: bool) -> bytes:
    """Return the codec bytes of a job's value; that of a job of stock RQ is written in the job's own serializer."""
    found = result_of(latest)
    if ours or found == NONE:
        return found
    if _plain(data or b"", limit)[:1] != b"[":
        return found  # msgpack, or pickle, which whoever decodes this refuses
    try:
        return encode(json.loads(found))
    except ValueError:
        return found


def _plain(data: bytes, limit: int) -> bytes:
    try:
        return inflate_if_packed(data, limit)
    except DecodeError:
        return b""


def _envelope(data: bytes | None, limit: int) -> bytes:
    try:
        return envelope_of(data or b"", limit) or b""
    except DecodeError:
        return b""


def _foreign_task(description: bytes | None) -> str:
    """Return what a job of stock RQ calls: its description begins with it."""
    return _text(description).partition("(")[0]


def _ids(packed: bytes | None) -> list[str]:
    try:
        return [str(entry) for entry in json.loads(packed)] if packed else []
    except (ValueError, TypeError, RecursionError):
        return []


@dataclass(frozen=True, slots=True)
class Returned:
    """What the run of a job of stock RQ has brought: the value as its serializer's bytes, None for None.

    `retry`: the job returned a `rq.Retry`: {max, intervals, front}.
    """

    value: bytes | None
    retry: list[Any] | None = None

    def pack(self) -> bytes:
        """Return it as bytes, as the pool's child hands it over."""
        return bytes(msgpack.packb([self.value, self.retry]))

    @classmethod
    def unpack(cls, packed: bytes) -> Returned:
        """Return what `pack` has packed."""
        return cls(*msgpack.unpackb(packed))


def horse_text(failure: Failure) -> str:
    """Return what RQ says of a job whose process died, or was killed for its time; nothing of others."""
    if failure.reason not in (Reason.CRASHED, Reason.TIMEOUT):
        return ""
    code = failure.exitcode
    if code is None:
        return "Work-horse terminated unexpectedly; waitpid returned None; "
    status, signalled = (-code, f" (signal {-code})") if code < 0 else (code << 8, "")
    return f"Work-horse terminated unexpectedly; waitpid returned {status}{signalled}; "


def progress_text(progress: tuple[int, int | None]) -> str:
    """Return a progress as the `tq_progress` field says it."""
    done, total = progress
    return f"{done}/" if total is None else f"{done}/{total}"
