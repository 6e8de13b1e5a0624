"""What became of a claimed job, as the finish script takes it."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.executors.rq.layout import FIELDS, as_exc_string
from taskq.executors.rq.record import NONE, pack_failure
from taskq.states import Reason, State

if TYPE_CHECKING:
    from taskq.failure import Failure
    from taskq.store import JobOutcome

__all__ = ["Held", "Returned", "horse_text", "outcome_row", "progress_text", "unknown"]

#: Kinds of the finish script.
KINDS: Final = {State.SUCCEEDED: "s", State.FAILED: "f", State.CANCELLED: "c", State.SCHEDULED: "r", State.QUEUED: "b"}


@dataclass(slots=True)
class Held:
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


def outcome_row(outcome: JobOutcome, held: Held, *, stopped: bool) -> list[Any]:
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


def _more(outcome: JobOutcome, held: Held, attempts: int, crashes: int, payload: Any) -> list[Any]:
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
        more += (FIELDS["retries"], held.retries + 1, "ended_at", "")
    return more


def progress_text(progress: tuple[int, int | None]) -> str:
    """Return a progress as the `tq_progress` field says it."""
    done, total = progress
    return f"{done}/" if total is None else f"{done}/{total}"


def unknown(outcome: JobOutcome) -> Held:
    """Return what is known of a job that is not in this worker's hands; the fence will refuse it."""
    return Held(outcome.id, outcome.token)


def horse_text(failure: Failure) -> str:
    """Return what RQ says of a job whose process died, or was killed for its time; nothing of others."""
    if failure.reason not in (Reason.CRASHED, Reason.TIMEOUT):
        return ""
    code = failure.exitcode
    if code is None:
        return "Work-horse terminated unexpectedly; waitpid returned None; "
    status, signalled = (-code, f" (signal {-code})") if code < 0 else (code << 8, "")
    return f"Work-horse terminated unexpectedly; waitpid returned {status}{signalled}; "


def exc_text(failure: Failure) -> str:
    """Return a failure as RQ's readers expect a traceback: the last line names the error."""
    last = f"{failure.type}: {failure.message}" if failure.message else failure.type
    return failure.traceback or last
