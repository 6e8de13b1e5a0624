"""Outcomes of jobs where the disk is nearly full: what is kept can always be worked off.

    an outcome ─▶ its job has succeeded: its arguments are given up, as nobody runs it again
              ─▶ its result fits in that, or above half of the reserve ─▶ told as it is, without output
              └▶ else told without it: the job has failed, as StoreFull

The last half of the reserve is for outcomes without results, which are small.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from taskq.errors import StoreFull
from taskq.executors.sqlite.claim import token_parts
from taskq.failure import Failure
from taskq.states import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from taskq.executors.sqlite.database import Tx
    from taskq.store import JobOutcome, ProgressUpdate

__all__ = ["bytes_of", "drop_arguments", "envelope_size", "without_log", "without_payload"]

#: Bytes of a result that is told in any case: those of a failure would be more.
SMALL = 200


def bytes_of(outcomes: Sequence[JobOutcome], updates: Sequence[ProgressUpdate]) -> int:
    """Return about how many bytes these will take."""
    results = sum([_bytes_of(outcome) for outcome in outcomes])
    return results + sum([len(update.log) for update in updates])


def _bytes_of(outcome: JobOutcome) -> int:
    failure = outcome.failure
    words = 0 if failure is None else len(failure.message) + len(failure.traceback) + len(failure.details)
    return len(outcome.result or b"") + len(outcome.log) + words


def without_log(news: Any) -> Any:
    """Return an outcome or a note without the output of its job."""
    return replace(news, log=b"") if news.log else news


def without_payload(outcome: JobOutcome) -> JobOutcome:
    """Return an outcome without what takes room: a result that does not fit is the job's failure."""
    failure = outcome.failure
    if outcome.result is not None and len(outcome.result) > SMALL:
        size = len(outcome.result)
        failure = Failure.from_exception(StoreFull(f"it ran, but its result of {size:,} bytes has no room on the disk"))
        return replace(outcome, state=State.FAILED, result=None, failure=failure, log=b"", meta=None)
    if failure is not None:
        failure = failure.changed(message=failure.message[:SMALL], traceback="", details=b"", args=None)
    return replace(outcome, failure=failure, log=b"", meta=None)


def envelope_size(connection: sqlite3.Connection, token: str) -> int:
    """Return how many bytes the arguments of a claimed job take."""
    query = "SELECT coalesce(length(jobs.envelope), length(blobs.envelope), 0) FROM jobs LEFT JOIN blobs USING (n)"
    row = connection.execute(f"{query} WHERE n = ?", (token_parts(token)[0],)).fetchone()
    return 0 if row is None else int(row[0])


def drop_arguments(tx: Tx, outcome: JobOutcome) -> None:
    """Let go of the arguments of a job that has succeeded."""
    if outcome.state is State.SUCCEEDED:
        n, fence = token_parts(outcome.token)
        held = tx.execute("SELECT EXISTS (SELECT 1 FROM jobs WHERE n = ? AND fence = ?)", (n, fence)).fetchone()[0]
        if held:
            tx.execute("DELETE FROM blobs WHERE n = ?", (n,))
            tx.execute("UPDATE jobs SET envelope = NULL WHERE n = ?", (n,))
