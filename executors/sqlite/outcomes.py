"""Outcomes of a worker's jobs, and their progress, applied to a queue file.

    outcome ──fence fits?──▶ completed (`jobs`), or queued again, now or later
              │ no: it came too late, another has the job by now ──▶ fenced
              └ it fits, but the job does not run: the same outcome came before ──▶ nothing to do

Where the disk is nearly full, what is kept can always be worked off:

    an outcome ─▶ its job has succeeded: its arguments are given up, as nobody runs it again
               ─▶ its result fits in that, or above half of the reserve ─▶ told as it is, without output
               └▶ else told without it: the job has failed, as StoreFull

The last half of the reserve is for outcomes without results, which are small.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from taskq.errors import StoreFull
from taskq.executors.sqlite.claims import token_parts
from taskq.executors.sqlite.jobs import Completion, complete_many, pack
from taskq.executors.sqlite.refusals import refuse
from taskq.executors.sqlite.schema import (
    CANCELLED,
    QUEUED,
    RUNNING,
    SCHEDULED,
    as_count,
    chunks,
    code_of,
    listed,
)
from taskq.failure import Failure
from taskq.states import TERMINAL, State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence

    from taskq.executors.sqlite.transaction import Tx
    from taskq.store import JobOutcome, ProgressUpdate


__all__ = [
    "LOG_LIMIT",
    "SMALL",
    "add_log",
    "apply_outcomes",
    "apply_updates",
    "begin",
    "bytes_of",
    "drop_arguments",
    "envelope_size",
    "no_longer_held",
    "without_log",
    "without_payload",
]

#: Bytes kept of what a job prints.
LOG_LIMIT = 1_048_576


#: The columns of a claimed job that decide what becomes of it: n, id, fence, state, ear, ttl, needs, queue.
Row = tuple[int, str, int, int, "int | None", "float | None", "str | None", str]


def apply_outcomes(tx: Tx, outcomes: Sequence[JobOutcome], worker: str) -> list[str]:
    """Do what these outcomes of a worker say; return the ids of jobs that are not this worker's any more."""
    parts = [token_parts(outcome.token) for outcome in outcomes]
    rows = _rows(tx, parts)
    fenced: list[str] = []
    completions: list[Completion] = []
    for outcome, (n, fence) in zip(outcomes, parts, strict=True):
        row = rows.get(n)
        if row is None or row[1] != outcome.id or row[2] != fence:
            fenced.append(outcome.id)
        elif row[3] == RUNNING:
            rows[n] = (*row[:3], 0, *row[4:])  # a second outcome of the same call has nothing to say
            if outcome.log or outcome.meta is not None or outcome.progress is not None:
                _tell(tx, n, outcome)
            if outcome.refused:
                outcome = _refused(tx, n, row[7], outcome, worker)  # noqa: PLW2901  # what it comes to
            if outcome.state in TERMINAL:
                completions.append(_completion(row, outcome))
            elif not _cancel_instead(tx, row, outcome, completions):
                _put_back(tx, n, row[7], outcome)
    if completions:
        complete_many(tx, completions)
    return fenced


def _rows(tx: Tx, parts: Sequence[tuple[int, int]]) -> dict[int, Row]:
    found: dict[int, Any] = {}
    for part in chunks([n for n, _ in parts]):
        marks, numbers = listed(part)
        query = f"SELECT n, id, fence, state, ear, ttl, needs, queue FROM jobs WHERE n IN {marks}"
        for row in tx.execute(query, numbers).fetchall():
            found[row[0]] = row
    return found


def _completion(row: Row, outcome: JobOutcome) -> Completion:
    n, job_id, _, _, reply_to, ttl, needs, _ = row
    state, attempts = code_of(outcome.state), _attempts(outcome)
    result, failure = outcome.result, outcome.failure
    return Completion(n, job_id, reply_to, ttl, needs, state, result, failure, attempts, outcome.crashes)


def _attempts(outcome: JobOutcome) -> int:
    """Return how many attempts to add: the claim has counted one."""
    return outcome.attempts - 1 if outcome.started else -1


def _tell(tx: Tx, n: int, news: JobOutcome | ProgressUpdate) -> None:
    """Write down progress, meta and log."""
    if news.progress is not None:
        tx.execute("UPDATE jobs SET done = ?, total = ? WHERE n = ?", (*news.progress, n))
    if news.meta is not None:
        tx.execute("UPDATE jobs SET meta = ? WHERE n = ?", (news.meta, n))
    if news.log:
        add_log(tx, n, news.log)


def _cancel_instead(tx: Tx, row: Row, outcome: JobOutcome, completions: list[Completion]) -> bool:
    """End a job that would run again, where somebody has wished it cancelled."""
    if not tx.execute("SELECT EXISTS (SELECT 1 FROM wishes WHERE n = ?)", (row[0],)).fetchone()[0]:
        return False
    one = _completion(row, outcome)
    one.state, one.result, one.failure = CANCELLED, None, None
    completions.append(one)
    return True


def _refused(tx: Tx, n: int, queue: str, outcome: JobOutcome, worker: str) -> JobOutcome:
    """Note that a worker cannot run a job, and why; return what becomes of it: others may run it."""
    is_left = refuse(tx.execute, n, queue, worker)
    tx.execute("UPDATE jobs SET failure = ? WHERE n = ?", (pack(outcome.failure), n))
    return replace(outcome, state=State.QUEUED, delay=0.0) if is_left else outcome


def _put_back(tx: Tx, n: int, queue: str, outcome: JobOutcome) -> None:
    """Queue a job again: at its old place, which is before all that came later."""
    later = outcome.delay > 0
    tx.execute(
        "UPDATE jobs SET state = ?, due = ?, attempts = max(0, attempts + ?), crashes = crashes + ?, "
        "retries = retries + ?, refused = CASE WHEN ? THEN NULL WHEN ? THEN coalesce(refused, ?) ELSE refused END "
        "WHERE n = ?",
        (
            SCHEDULED if later else QUEUED,
            tx.now + outcome.delay if later else None,
            _attempts(outcome),
            outcome.crashes,
            outcome.state is State.SCHEDULED and outcome.counted,
            outcome.refused and not later,
            outcome.refused,
            tx.now,
            n,
        ),
    )
    tx.queued[queue] = tx.queued.get(queue, 0) + 1


def apply_updates(tx: Tx, updates: Sequence[ProgressUpdate]) -> list[str]:
    """Write down what running jobs have said; return the ids of those that are not this worker's any more."""
    parts = [token_parts(update.token) for update in updates]
    rows = _rows(tx, parts)
    fenced: list[str] = []
    for update, (n, fence) in zip(updates, parts, strict=True):
        row = rows.get(n)
        if row is None or row[1] != update.id or row[2] != fence:
            fenced.append(update.id)
        elif row[3] == RUNNING:
            _tell(tx, n, update)
    return fenced


def add_log(tx: Tx, n: int, text: bytes) -> None:
    """Append to a job's log; what is beyond its limit is only counted."""
    row = tx.execute("SELECT kept, left_out FROM log_sizes WHERE n = ?", (n,)).fetchone()
    kept, left_out = map(as_count, row or (0, 0))
    taken = text[: max(0, LOG_LIMIT - kept)]
    if taken:
        tx.execute("INSERT OR REPLACE INTO logs (n, start, data) VALUES (?, ?, ?)", (n, kept, taken))
    sizes = (n, kept + len(taken), left_out + len(text) - len(taken))
    tx.execute("INSERT OR REPLACE INTO log_sizes (n, kept, left_out) VALUES (?, ?, ?)", sizes)


def no_longer_held(tx: Tx, claims: Collection[tuple[str, str]]) -> list[str]:
    """Return the ids of those (id, token) that are not running under this token any more."""
    ids = [job_id for job_id, _ in claims]
    parts = [token_parts(token) for _, token in claims]
    rows = _rows(tx, parts)
    lost: list[str] = []
    for job_id, (n, fence) in zip(ids, parts, strict=True):
        row = rows.get(n)
        if row is None or row[1] != job_id or row[2] != fence or row[3] != RUNNING:
            lost.append(job_id)
    return lost


def begin(tx: Tx, claims: Sequence[tuple[str, str]]) -> list[str]:
    """Note that jobs begin; return the ids of those that are not running under their token any more."""
    lost = no_longer_held(tx, claims)
    rows = [token_parts(token) for job_id, token in claims if job_id not in lost]
    tx.executemany("INSERT OR REPLACE INTO begun (n, fence) VALUES (?, ?)", rows)
    return lost


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
