"""Claims of jobs by a worker.

    scheduled and due ──promote──▶ queued ──in order──▶ expired? failed : running, with a new fence

Tables and columns are those of `schema`.
"""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from taskq.executors.sqlite.jobs import broken, complete_all
from taskq.executors.sqlite.refusals import Refuser, not_refused
from taskq.executors.sqlite.schema import (
    FAILED,
    LATEST,
    QUEUED,
    RUNNING,
    chunks,
    is_count,
    is_number,
    listed,
)
from taskq.failure import Failure
from taskq.store import Claim

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskq.executors.sqlite.schema import Execute
    from taskq.executors.sqlite.transaction import Tx

__all__ = [
    "BATCH",
    "claim",
    "claim_one",
    "claims_of",
    "expire",
    "is_work",
    "next_due",
    "promote",
    "token_parts",
]


#: Jobs that one transaction promotes or fails at most, so that nobody waits long behind it.
BATCH = 1000

#: The last says of a job whether it is suspect, see the table `begun`.
COLUMNS = (
    "n, id, fence, jobs.envelope, queue, attempts, crashes, retries, refused, expires, needs, meta, "
    "EXISTS (SELECT 1 FROM begun WHERE n = jobs.n AND fence <= 0)"
)
#: The results that most jobs need.
NOTHING: Mapping[str, bytes] = MappingProxyType({})

#: Whether the next crash of a job is its last.
LAST_CRASH = "crashes >= max_crashes - 1"

#: Whether a claim has to look at what there mostly is none of: scheduled jobs that are due, crashed ones, pauses.
WHAT_IS_RARE = (
    "SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_due WHERE state = 1 AND due <= ?), "
    f"EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_crashed WHERE crashes > 0 AND state = {QUEUED} AND {LAST_CRASH}), "
    "EXISTS (SELECT 1 FROM paused)"
)

TAKE = (
    f"UPDATE jobs SET state = {RUNNING}, fence = fence + 1, attempts = attempts + 1, started = ?, worker = ? "
    "WHERE n IN "
)


def promote(tx: Tx) -> int:
    """Queue the scheduled jobs whose time has come; return how many."""
    query = "SELECT n FROM jobs INDEXED BY jobs_due WHERE state = 1 AND due <= ? ORDER BY due LIMIT ?"
    due = tx.execute(query, (tx.now, BATCH)).fetchall()
    if due:
        tx.executemany(f"UPDATE jobs SET state = {QUEUED} WHERE n = ?", due)
    return len(due)


def expire(tx: Tx) -> int:
    """Fail the jobs that have waited too long for their first start; return how many."""
    query = (
        "SELECT n, expires - submitted FROM jobs INDEXED BY jobs_expires "
        "WHERE expires IS NOT NULL AND state < 4 AND expires <= ? AND attempts = 0 ORDER BY expires LIMIT ?"
    )
    found = tx.execute(query, (tx.now, BATCH)).fetchall()
    for n, after in found:
        complete_all(tx, [n], FAILED, Failure.expired(after) if is_number(after) else broken())
    return len(found)


def claim(tx: Tx, worker: str, queues: Sequence[str], want: int, *, refuser: Refuser | None = None) -> list[Claim]:
    """Take up to `want` jobs in the order of these queues; all queues by name if none are given.

    `refuser`: the worker once it has refused a job.
    """
    is_due, has_crashed, has_paused = tx.execute(WHAT_IS_RARE, (tx.now,)).fetchone()
    if is_due:
        promote(tx)
    suspects = _suspects(tx) if has_crashed or is_due else set()
    paused = {row[0] for row in tx.execute("SELECT queue FROM paused").fetchall()} if has_paused else set()
    found: list[tuple[Any, ...]] = []
    for queue in queues or _all_queues(tx.execute):
        if queue not in paused:
            found += _waiting(tx, queue, want - len(found), refuser)
            if suspects and (first := next((n for n, row in enumerate(found) if row[0] in suspects), None)) is not None:
                found = found[: max(first, int(not first and _holds_nothing(tx, worker)))]
                if refuser is not None:
                    refuser.forget(queue)
                break
            if len(found) == want:
                break
    return _take(tx, worker, found)


def _suspects(tx: Tx) -> set[int]:
    """Return the waiting jobs whose next crash is their last: each runs by itself, so that it alone can be to blame.

    A worker takes one when it holds nothing, alone; until it holds nothing it takes no job that is behind one.
    """
    query = f"SELECT n FROM jobs INDEXED BY jobs_crashed WHERE crashes > 0 AND state = {QUEUED} AND {LAST_CRASH}"
    return {row[0] for row in tx.execute(query).fetchall()}


def _holds_nothing(tx: Tx, worker: str) -> bool:
    query = f"SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND worker = ?)"
    return not tx.execute(query, (worker,)).fetchone()[0]


def _all_queues(execute: Execute) -> list[str]:
    """Return the queues in which jobs wait, each found by one step into the index."""
    query = (
        "SELECT CAST(min(queue) AS BLOB), typeof(min(queue)) FROM jobs INDEXED BY jobs_line "
        "WHERE state = 3 AND queue > CAST(? AS TEXT)"
    )
    found = []
    name, kind = execute(query, (b"",)).fetchone()
    while kind == "text":  # bytes stand behind all texts, and are no name
        found.append(name)
        name, kind = execute(query, (name,)).fetchone()
    return [name.decode() for name in found if name.isascii()]


def _waiting(tx: Tx, queue: str, count: int, refuser: Refuser | None) -> list[tuple[Any, ...]]:
    """Return the rows of the first jobs of a queue; those that have expired are failed on the way."""
    while True:
        rows = _first(tx.execute, queue, count, refuser, COLUMNS, takes=True)
        if not any(type(row[9]) is float and row[9] <= tx.now and row[5] == 0 for row in rows):
            return rows
        expire(tx)
        if refuser is not None:
            refuser.forget(queue)


def _first(
    execute: Execute, queue: str, count: int, refuser: Refuser | None, columns: str, *, takes: bool
) -> list[tuple[Any, ...]]:
    """Return these columns, of which `n` is the first, of the first jobs of a queue that are not left to others.

    `takes`: whether those are taken, so that they are passed over as well.
    """
    query = f"SELECT {columns} FROM jobs INDEXED BY jobs_line WHERE state = {QUEUED} AND queue = ?"
    mine, values = ("", ()) if refuser is None else not_refused(execute, queue, refuser.name)
    if refuser is None or not mine:
        return execute(f"{query} ORDER BY rank, n LIMIT ?", (queue, count)).fetchall()
    started = time.thread_time()
    rows: list[tuple[Any, ...]] = []
    for part, limits in refuser.parts(queue):
        these = f"{query}{part}{mine} ORDER BY rank, n LIMIT ?"
        rows += execute(these, (queue, *limits, *values, count - len(rows))).fetchall()
        if len(rows) == count:
            break
    if rows and not takes:
        return rows
    last = rows[-1][0] if len(rows) == count else None
    refuser.pass_over(execute, queue, last, time.thread_time() - started)
    return rows


def _take(tx: Tx, worker: str, rows: list[tuple[Any, ...]]) -> list[Claim]:
    if not rows:
        return []
    claims = _claims(tx, rows, 1)
    for part in chunks([n for n, _ in claims]):
        marks, numbers = listed(part)
        tx.execute(TAKE + marks, (tx.now, worker, *numbers))
    telling = [token_parts(claim.token) for _, claim in claims if claim.suspect or claim.crashes]
    if telling:
        tx.executemany("INSERT OR REPLACE INTO begun (n, fence) VALUES (?, -?)", telling)
    return [claim for _, claim in claims]


def _claims(tx: Tx, rows: list[tuple[Any, ...]], step: int) -> list[tuple[int, Claim]]:
    """Make claims of rows; fail the jobs whose rows are damaged, so that they cost the others nothing."""
    claims: list[tuple[int, Claim]] = []
    for row in rows:
        try:
            claims.append((row[0], _claim(tx, row, step)))
        except (TypeError, ValueError, AttributeError):
            complete_all(tx, [row[0]], FAILED, broken())
    return claims


def _claim(tx: Tx, row: tuple[Any, ...], step: int) -> Claim:
    """Make a claim of a row; `step` is what a claim adds to the numbers in it."""
    n, job_id, fence, envelope, queue, attempts, crashes, retries, refused, _, needs, meta, suspect = row
    if envelope is None:
        envelope = tx.execute("SELECT envelope FROM blobs WHERE n = ?", (n,)).fetchone()[0]
    if type(envelope) is not bytes or (meta is not None and type(meta) is not bytes) or type(job_id) is not str:
        raise ValueError("the row is broken")
    if not all(map(is_count, (fence, attempts, crashes, retries))):
        raise ValueError("the row is broken")
    return Claim(
        id=job_id,
        token=f"{n}.{fence + step}",
        envelope=envelope,
        queue=queue,
        attempt=attempts + step,
        crashes=crashes,
        suspect=bool(suspect),
        retries=retries,
        refused_for=0.0 if refused is None else max(0.0, tx.now - refused),
        results=_results(tx, needs.split(" ")) if needs else NOTHING,
        meta=meta or b"",
    )


def _results(tx: Tx, needs: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in chunks(needs):
        marks = ", ".join("?" * len(part))
        query = f"SELECT id, result FROM jobs WHERE id IN ({marks}) AND result IS NOT NULL"
        found.update(tx.execute(query, part).fetchall())
    if any(type(result) is not bytes for result in found.values()):
        raise ValueError("a result is broken")
    return found


def claim_one(tx: Tx, worker: str, job_id: str, *, refuser: Refuser | None = None) -> Claim | None:
    """Take this job if it waits for its turn, whatever is before it."""
    promote(tx)
    expire(tx)
    place = tx.execute("SELECT queue FROM jobs WHERE id = ?", (job_id,)).fetchone()
    mine, values = ("", ()) if refuser is None or not place else not_refused(tx.execute, place[0], refuser.name)
    query = f"SELECT {COLUMNS} FROM jobs WHERE id = ? AND state = {QUEUED}{mine}"
    rows = tx.execute(query, (job_id, *values)).fetchall()
    return next(iter(_take(tx, worker, rows)), None)


def is_work(execute: Execute, queues: Sequence[str], refuser: Refuser | None = None) -> bool:
    """Return whether a job waits for its turn in one of these queues, or in any; `refuser`: see `claim`."""
    return any(_is_work(execute, queue, refuser) for queue in queues or _all_queues(execute))


def _is_work(execute: Execute, queue: str, refuser: Refuser | None) -> bool:
    if execute("SELECT EXISTS (SELECT 1 FROM paused WHERE queue = ?)", (queue,)).fetchone()[0]:
        return False
    return bool(_first(execute, queue, 1, refuser, "n", takes=False))


def next_due(execute: Execute) -> float | None:
    """Return when the next scheduled job may start."""
    query = f"SELECT min(due) FROM jobs INDEXED BY jobs_due WHERE state = 1 AND due < {LATEST}"
    found = execute(query).fetchone()[0]
    return None if found is None else float(found)


def claims_of(tx: Tx, worker: str, known: set[str]) -> list[Claim]:
    """Return again the jobs that this worker has claimed without having heard of it: its call failed afterwards."""
    query = f"SELECT {COLUMNS} FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND worker = ?"
    rows = tx.execute(query, (worker,)).fetchall()
    return [one for _, one in _claims(tx, rows, 0) if one.token not in known]


def token_parts(token: str) -> tuple[int, int]:
    """Return the number of the job that a token is for, and its fence; (0, 0) for one that is none of ours."""
    n, _, fence = token.partition(".")
    try:
        return int(n), int(fence)
    except ValueError:
        return 0, 0
