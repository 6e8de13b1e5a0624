"""How jobs have ended: read from the news that a worker's script sends, or from a part of the job's hash.

The hash is read for one job after the other whose news did not come. Its fields that tell of an end are a third of all
of it, and what is left out costs most: the arguments, and the instants.
"""

from __future__ import annotations

from binascii import a2b_base64
from typing import Any, Final

from taskq.executors.rq.keys import FIELDS
from taskq.executors.rq.records import NONE, STATE_OF, failure_of, result_of, whole_number
from taskq.locks import pass_on
from taskq.states import TERMINAL, State
from taskq.store import Ended

__all__ = ["LOOKED_UP", "has_ended", "read_end", "read_news"]

#: The fields that tell how a job ended, in this order; the first three `get.lua` needs itself.
LOOKED_UP: Final = [FIELDS[word] for word in ("status", "origin", "failure", "task", "attempts", "crashes")]


# --- from the hash


def has_ended(found: list[Any]) -> bool:
    """Return whether what `get.lua` found is of a job that has ended."""
    return STATE_OF.get(found[0][0], State.QUEUED) in TERMINAL


def read_end(job_id: str, found: list[Any]) -> Ended | None:
    """Return how a job ended, of what `get.lua` found; None: more of its hash is needed to tell."""
    (status, _, failure, task, attempts, crashes), _, latest = found
    state = STATE_OF[status]
    if not task or (state is State.FAILED and not failure):
        return None  # RQ's own words, of a job or of a stock worker
    try:
        return Ended(
            id=job_id,
            state=state,
            result=result_of(latest) if state is State.SUCCEEDED else None,
            failure=failure_of(failure) if state is State.FAILED else None,
            attempts=whole_number(attempts or b"", 0),
            crashes=whole_number(crashes or b"", 0),
        )
    except Exception as exc:  # noqa: BLE001  # anybody may write there: the whole record says what is wrong
        pass_on(exc)
        return None


# --- from news


def read_news(news: bytes) -> tuple[str, Ended | None]:
    """Return the id that news of an end is about, and the end itself; None: it is too large, ask for it."""
    counts, crashes, job_id, payload = (news.split(b" ", 3) + [b""] * 3)[:4]
    kind, name = counts[:1], job_id.decode("utf-8", "replace")
    if kind.isupper():
        return name, None
    try:
        return name, _end_of(name, kind, (whole_number(counts[1:], 0), whole_number(crashes, 0)), payload)
    except Exception as exc:  # noqa: BLE001  # anybody may write there: the job's record says what is true
        pass_on(exc)
        return name, None


def _end_of(name: str, kind: bytes, counts: tuple[int, int], payload: bytes) -> Ended | None:
    attempts, died = counts
    if kind == b"s":
        result = a2b_base64(payload, strict_mode=True) if payload else NONE
        return Ended(id=name, state=State.SUCCEEDED, result=result, attempts=attempts, crashes=died)
    if kind == b"f":
        if not payload:
            return None
        return Ended(id=name, state=State.FAILED, failure=failure_of(payload), attempts=attempts, crashes=died)
    if kind != b"c":
        return None
    return Ended(id=name, state=State.CANCELLED, attempts=attempts, crashes=died)
