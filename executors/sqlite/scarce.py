"""Outcomes of jobs where the disk is nearly full: what is kept can always be worked off.

    a verdict ─▶ its job has succeeded: its arguments are given up, as nobody runs it again
              ─▶ its result fits in that, or above half of the reserve ─▶ told as it is, without output
              └▶ else told without it: the job has failed, as StoreFull

The last half of the reserve is for outcomes without results, which are small.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from taskq.errors import StoreFull
from taskq.executors.sqlite.claim import token_parts
from taskq.result import Failure
from taskq.states import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from taskq.executors.sqlite.database import Tx
    from taskq.store import Note, Verdict

__all__ = ["bare", "envelope_size", "give_up_arguments", "quiet", "weight"]

#: Bytes of a result that is told in any case: those of a failure would be more.
SMALL = 200


def weight(verdicts: Sequence[Verdict], notes: Sequence[Note]) -> int:
    """Return about how many bytes these will take."""
    results = sum([_weight(verdict) for verdict in verdicts])
    return results + sum([len(note.log) for note in notes])


def _weight(verdict: Verdict) -> int:
    failure = verdict.failure
    words = 0 if failure is None else len(failure.message) + len(failure.traceback) + len(failure.details)
    return len(verdict.result or b"") + len(verdict.log) + words


def quiet(news: Any) -> Any:
    """Return a verdict or a note without the output of its job."""
    return replace(news, log=b"") if news.log else news


def bare(verdict: Verdict) -> Verdict:
    """Return a verdict without what takes room: a result that does not fit is the job's failure."""
    failure = verdict.failure
    if verdict.result is not None and len(verdict.result) > SMALL:
        size = len(verdict.result)
        failure = Failure.from_exception(StoreFull(f"it ran, but its result of {size:,} bytes has no room on the disk"))
        return replace(verdict, state=State.FAILED, result=None, failure=failure, log=b"", meta=None)
    if failure is not None:
        failure = failure.changed(message=failure.message[:SMALL], traceback="", details=b"", args=None)
    return replace(verdict, failure=failure, log=b"", meta=None)


def envelope_size(connection: sqlite3.Connection, token: str) -> int:
    """Return how many bytes the arguments of a claimed job take."""
    query = "SELECT coalesce(length(jobs.envelope), length(blobs.envelope), 0) FROM jobs LEFT JOIN blobs USING (n)"
    row = connection.execute(f"{query} WHERE n = ?", (token_parts(token)[0],)).fetchone()
    return 0 if row is None else int(row[0])


def give_up_arguments(tx: Tx, verdict: Verdict) -> None:
    """Let go of the arguments of a job that has succeeded."""
    if verdict.state is State.SUCCEEDED:
        n, fence = token_parts(verdict.token)
        held = tx.execute("SELECT EXISTS (SELECT 1 FROM jobs WHERE n = ? AND fence = ?)", (n, fence)).fetchone()[0]
        if held:
            tx.execute("DELETE FROM blobs WHERE n = ?", (n,))
            tx.execute("UPDATE jobs SET envelope = NULL WHERE n = ?", (n,))
