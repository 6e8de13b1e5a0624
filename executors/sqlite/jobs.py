"""Jobs in a queue file: put, completed, cancelled, retried, removed.

    id is there already  ──▶ that job stands, whatever its state
    key is taken         ──▶ the job that has it stands for this one
    depends on others    ──▶ blocked until they have succeeded, or failed at once when one has not

    complete_many ──▶ state, end number, date of forgetting ──▶ its request and needs dropped, subscriptions noted
                                                        └──▶ those that need it: released, or failed in turn

End numbers grow: a subscription reads what ended after the last one that it has seen.

Tables and columns are those of `schema`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.errors import DecodeError, JobExists
from taskq.executors.sqlite.schema import (
    BLOCKED,
    CANCELLED,
    FAILED,
    HIGHEST,
    INLINE,
    QUEUED,
    RUNNING,
    SCHEDULED,
    STATES,
    SUCCEEDED,
    as_state,
    as_text,
    chunks,
    insert,
    is_number,
    row_of,
    statement,
)
from taskq.failure import Failure
from taskq.locks import pass_on
from taskq.states import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from taskq.executors.sqlite.schema import Execute
    from taskq.executors.sqlite.transaction import Tx
    from taskq.states import State
    from taskq.store import NewJob

__all__ = [
    "COMPLETION_COLUMNS",
    "VISIBLE",
    "Completion",
    "block",
    "broken",
    "can_append",
    "cancel",
    "complete",
    "complete_all",
    "complete_many",
    "completion",
    "dependency_failure",
    "last_end",
    "pack",
    "prune",
    "put",
    "release",
    "remove",
    "retry",
    "unpack",
]

#: Seconds for which an ended job is kept where its options do not say.
KEEP = {SUCCEEDED: 86_400.0, CANCELLED: 86_400.0, FAILED: 604_800.0}

#: Seconds for which even the row of a job with `result_ttl=0` stays, for the client that waits to read it. Nobody else
#: sees it: VISIBLE is false, for a moment that is bound to it.
GRACE = 10.0
VISIBLE = "(drop_at IS NULL OR coalesce(ended + ttl, drop_at) > ?)"

#: What must be known of a job to end it.
COMPLETION_COLUMNS = "n, id, ear, ttl, needs"

END = (
    "UPDATE jobs SET state = ?, ended = ?, end_no = ?, drop_at = ?, result = ?, failure = ?, "
    "attempts = attempts + ?, crashes = crashes + ? WHERE n = ?"
)
#: The same for those that simply succeeded.
SUCCEED = f"UPDATE jobs SET state = {SUCCEEDED}, ended = ?, end_no = ?, drop_at = ?, result = ? WHERE n = ?"

#: The same for so many at once, which takes two thirds of the time; SQLite knows UPDATE FROM since 3.33.
AT_ONCE = 20 if sqlite3.sqlite_version_info >= (3, 33) else 0
SUCCEED_AT_ONCE = (
    f"WITH told (ended, end_no, drop_at, result, n) AS (VALUES {', '.join(['(?, ?, ?, ?, ?)'] * AT_ONCE)}) "
    f"UPDATE jobs SET state = {SUCCEEDED}, ended = told.ended, end_no = told.end_no, drop_at = told.drop_at, "
    "result = told.result FROM told WHERE jobs.n = told.n"
)


@dataclass(slots=True)
class Completion:
    """A job that ends: what its row says, and how. `attempts` and `crashes` are added to what it has."""

    n: int
    id: str
    reply_to: int | None
    ttl: float | None
    needs: str | None
    state: int
    result: bytes | None = None
    failure: Failure | None = None
    attempts: int = 0
    crashes: int = 0

    def drop_at(self, now: float) -> float:
        """When its row is to be deleted."""
        return now + (max(self.ttl, GRACE) if type(self.ttl) is float else KEEP[self.state])


def completion(
    row: Sequence[Any], state: int, *, failure: Failure | None = None, attempts: int = 0, crashes: int = 0
) -> Completion:
    """Return how a job ends, of a row that begins with the columns of COMPLETION_COLUMNS."""
    n, job_id, reply_to, ttl, needs = row[:5]
    return Completion(n, job_id, reply_to, ttl, needs, state, failure=failure, attempts=attempts, crashes=crashes)


def pack(failure: Failure | None) -> bytes | None:
    """Return a failure as bytes."""
    return None if failure is None else bytes(msgpack.packb(failure.to_data()))


def unpack(data: bytes | None) -> Failure | None:
    """Return what `pack` was given, or a failure that says that it is damaged: one row is never that of others."""
    if data is None:
        return None
    try:
        return Failure.from_data(msgpack.unpackb(data))
    except Exception as error:  # noqa: BLE001  # msgpack raises what it likes of damaged bytes
        pass_on(error)
        return broken()


def broken() -> Failure:
    """Return the failure of a job whose row is damaged."""
    return Failure.from_exception(DecodeError("the job's row in the queue file is broken"), Reason.UNDECODABLE)


def complete(tx: Tx, n: int, state: int, *, failure: Failure | None = None) -> None:
    """End one job that has not ended."""
    complete_all(tx, [n], state, failure)


def complete_all(tx: Tx, numbers: Iterable[int], state: int, failure: Failure | None = None) -> None:
    """End jobs that have not ended, all in one way."""
    query = f"SELECT {COMPLETION_COLUMNS} FROM jobs WHERE n = ?"
    rows = [tx.execute(query, (n,)).fetchone() for n in numbers]
    complete_many(tx, [completion(row, state, failure=failure) for row in rows])


def complete_many(tx: Tx, completions: Sequence[Completion]) -> None:
    """End these jobs, then those that cannot run because of it, and so on."""
    wanted: list[Completion] = list(completions)
    while wanted:
        _write(tx, wanted)
        wanted = _settle(tx, wanted)


def _write(tx: Tx, completions: list[Completion]) -> None:
    number = tx.page.count_completions(len(completions), last_end(tx.execute))
    now = tx.now
    quick: list[tuple[Any, ...]] = []
    slow: list[tuple[Any, ...]] = []
    for one in completions:
        if one.state == SUCCEEDED and not one.attempts and not one.crashes:
            quick.append((now, number, one.drop_at(now), one.result, one.n))
        else:
            slow.append(_slow_row(one, now, number))
        number += 1
    while AT_ONCE and len(quick) >= AT_ONCE:
        tx.execute(SUCCEED_AT_ONCE, [value for row in quick[-AT_ONCE:] for value in row])
        del quick[-AT_ONCE:]
    if quick:
        tx.executemany(SUCCEED, quick)
    if slow:
        tx.executemany(END, slow)


def _slow_row(one: Completion, now: float, number: int) -> tuple[Any, ...]:
    outcome = (one.state, now, number, one.drop_at(now), one.result, pack(one.failure))
    return (*outcome, one.attempts, one.crashes, one.n)


def last_end(execute: Execute) -> int:
    """Return the highest end number in the file, for a page that was lost."""
    query = f"SELECT max(end_no) FROM jobs INDEXED BY jobs_end WHERE end_no IS NOT NULL AND end_no < {HIGHEST}"
    return int(execute(query).fetchone()[0] or 0)


def _settle(tx: Tx, completions: list[Completion]) -> list[Completion]:
    """Do what follows from ends; return the jobs that end because of them."""
    tx.ended += len(completions)
    tx.subscriptions.update(one.reply_to for one in completions if type(one.reply_to) is int)
    has_requests, has_needs = tx.execute(
        "SELECT EXISTS (SELECT 1 FROM wishes), EXISTS (SELECT 1 FROM needs)"
    ).fetchone()
    if has_requests:
        tx.executemany("DELETE FROM wishes WHERE n = ?", [(one.n,) for one in completions])
    if not has_needs:
        return []
    tx.executemany("DELETE FROM needs WHERE n = ?", [(one.n,) for one in completions if one.needs])
    return [hit for one in completions for hit in _tell_dependents(tx, one)]


def _tell_dependents(tx: Tx, ended: Completion) -> list[Completion]:
    numbers = [row[0] for row in tx.execute("SELECT n FROM needs WHERE needed = ?", (ended.id,)).fetchall()]
    if ended.state != SUCCEEDED:
        failure = Failure.dependency(as_text(ended.id), ended.failure, cancelled=ended.state == CANCELLED)
        return [found for n in numbers if (found := _blocked(tx, n, failure)) is not None]
    tx.execute("UPDATE needs SET met = 1 WHERE needed = ?", (ended.id,))
    for n in numbers:
        if not tx.execute("SELECT EXISTS (SELECT 1 FROM needs WHERE n = ? AND NOT met)", (n,)).fetchone()[0]:
            release(tx, n)
    return []


def _blocked(tx: Tx, n: int, failure: Failure) -> Completion | None:
    """Return how a job ends that needs one which did not succeed; None when it has ended in another way."""
    query = f"SELECT {COMPLETION_COLUMNS} FROM jobs WHERE n = ? AND state = ?"
    row = tx.execute(query, (n, BLOCKED)).fetchone()
    return None if row is None else completion(row, FAILED, failure=failure)


def release(tx: Tx, n: int) -> None:
    """Let a blocked job wait for its turn, or for its time."""
    query = "SELECT queue, due FROM jobs WHERE n = ? AND state = ?"
    row = tx.execute(query, (n, BLOCKED)).fetchone()
    if row is not None:
        queue, due = row
        later = is_number(due) and due > tx.now
        tx.execute("UPDATE jobs SET state = ? WHERE n = ?", (SCHEDULED if later else QUEUED, n))
        tx.queued[queue] = tx.queued.get(queue, 0) + 1


def dependency_failure(needed: str, found: tuple[int, bytes | None] | None) -> Failure:
    """Say why a job cannot run whose `needed` one has ended badly, or is not there (any more)."""
    if found is None:
        return Failure.dependency(needed, Failure.lost("it is not kept here (any more)"))
    return Failure.dependency(needed, unpack(found[1]), cancelled=found[0] == CANCELLED)


def put(tx: Tx, jobs: Sequence[NewJob], reply_to: int) -> list[str]:
    """Keep these jobs; return their ids, see `Store.put`."""
    if not all(_is_plain(job) for job in jobs):
        return [_put_one(tx, job, reply_to) for job in jobs]
    insert(tx.executemany, [row_of(job, reply_to, tx.now) for job in jobs])
    for job in jobs:
        queue = job.options.queue
        tx.queued[queue] = tx.queued.get(queue, 0) + 1
    return [job.id for job in jobs]


def can_append(job: NewJob) -> bool:
    """Return whether the append log may take a job: what comes of it does not depend on the others that are there.

    Its id is of our own making, so that one that is taken can only be the same job, put again.
    """
    return job.options.job_id is None and _is_plain(job)


def _is_plain(job: NewJob) -> bool:
    options = job.options
    return options.key is None and not job.depends_on and len(job.envelope) <= INLINE and options.if_exists == "return"


def _put_one(tx: Tx, job: NewJob, reply_to: int) -> str:
    options = job.options
    taken = _taken(tx, job)
    if taken is not None:
        # A job that has an id of its own making and finds it taken is here for the second time.
        if options.if_exists == "reject" and (taken != job.id or options.job_id is not None):
            _refuse(job, taken)
        return taken
    row = row_of(job, reply_to, tx.now)
    n = tx.execute(statement(len(row)), row).lastrowid
    if len(job.envelope) > INLINE:
        tx.execute("INSERT INTO blobs (n, envelope) VALUES (?, ?)", (n, job.envelope))
    queue = options.queue
    tx.queued[queue] = tx.queued.get(queue, 0) + 1
    if job.depends_on:
        block(tx, n or 0, job.depends_on)
    return job.id


def _taken(tx: Tx, job: NewJob) -> str | None:
    found = tx.execute("SELECT id FROM jobs WHERE id = ?", (job.id,)).fetchone()
    if found is None and job.options.key is not None:
        query = "SELECT id FROM jobs INDEXED BY jobs_key WHERE key = ? AND state < 5"
        found = tx.execute(query, (job.options.key,)).fetchone()
    return None if found is None else found[0]


def _refuse(job: NewJob, taken: str) -> NoReturn:
    if taken == job.id:
        raise JobExists(f"job {job.id} is there already: choose another job_id, or find it by this one", job_id=taken)
    raise JobExists(
        f"job {taken} has the key {job.options.key!r} and has not ended: wait for it, cancel it, or choose another key",
        job_id=taken,
    )


def block(tx: Tx, n: int, depends_on: Sequence[str]) -> None:
    """Have a waiting job wait for others, or end it when one of them will never succeed."""
    waits = False
    for needed in dict.fromkeys(depends_on):
        found = tx.execute("SELECT state, failure FROM jobs WHERE id = ?", (needed,)).fetchone()
        state = CANCELLED if found is None else as_state(found[0])
        if state > SUCCEEDED:
            complete(tx, n, FAILED, failure=dependency_failure(needed, found))
            return
        waits |= state < SUCCEEDED
        values = (needed, n, state == SUCCEEDED)
        tx.execute("INSERT OR REPLACE INTO needs (needed, n, met) VALUES (?, ?, ?)", values)
    if waits:
        tx.execute("UPDATE jobs SET state = ? WHERE n = ?", (BLOCKED, n))


#: The number of a job behind which there is none for another one.
LAST_N = (1 << 63) - 1


def cancel(tx: Tx, ids: Sequence[str], *, kill: bool, seals: Mapping[str, bytes]) -> list[State | None]:
    """End what waits, request it of the workers that run the rest; see `Store.cancel`."""
    states: list[State | None] = []
    for job_id in ids:
        query = f"SELECT {COMPLETION_COLUMNS}, state, worker FROM jobs WHERE id = ?"
        row = tx.execute(query, (job_id,)).fetchone()
        if row is None:
            states.append(None)
            continue
        state, worker = as_state(row[5]), row[6]
        if state < RUNNING:
            complete_many(tx, [completion(row, CANCELLED)])
            state = CANCELLED
        elif state == RUNNING:
            request = (
                "INSERT INTO wishes (n, worker, kill) VALUES (?, ?, ?) "
                "ON CONFLICT (n) DO UPDATE SET worker = excluded.worker, kill = max(kill, excluded.kill)"
            )
            how = bytes((kill,)) + seals[job_id] if seals else kill  # of two blobs max() takes one that kills, too
            tx.execute(request, (row[0], worker or "", how))
            tx.workers_to_wake.add(worker)
        states.append(STATES[state])
    return states


def retry(tx: Tx, ids: Sequence[str]) -> list[bool]:
    """Queue failed and cancelled jobs anew, behind all others; see `Store.retry`."""
    return [_retry(tx, job_id) for job_id in ids]


def _retry(tx: Tx, job_id: str) -> bool:
    query = f"SELECT n, key, needs, queue FROM jobs WHERE id = ? AND state > ? AND {VISIBLE}"
    row = tx.execute(query, (job_id, SUCCEEDED, tx.now)).fetchone()
    if row is None or _key_taken(tx, row[1]):
        return False
    old, _, needs, queue = row
    n = tx.execute(f"SELECT max(n) + 1 FROM jobs WHERE n < {LAST_N}").fetchone()[0]
    tx.execute(
        "UPDATE jobs SET n = ?, state = ?, fence = fence + 1, attempts = 0, crashes = 0, retries = 0, "
        "expires = ? + expires - submitted, submitted = ?, due = NULL, started = NULL, ended = NULL, end_no = NULL, "
        "drop_at = NULL, refused = NULL, worker = NULL, done = NULL, total = NULL, meta = NULL, failure = NULL, "
        "result = NULL WHERE n = ?",
        (n, QUEUED, tx.now, tx.now, old),
    )
    tx.execute("UPDATE OR REPLACE blobs SET n = ? WHERE n = ?", (n, old))
    for table in ("logs", "log_sizes", "needs", "refusals", "begun"):
        tx.execute(f"DELETE FROM {table} WHERE n = ?", (old,))
    tx.queued[queue] = tx.queued.get(queue, 0) + 1
    if needs:
        block(tx, n, as_text(needs).split(" "))
    return True


def _key_taken(tx: Tx, key: str | None) -> bool:
    query = "SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_key WHERE key = ? AND state < 5)"
    return key is not None and bool(tx.execute(query, (key,)).fetchone()[0])


def remove(tx: Tx, ids: Sequence[str]) -> list[bool]:
    """Forget jobs that do not run; those that need one of them can never run, and fail. See `Store.remove`."""
    rows: list[Any] = [tx.execute("SELECT n, state FROM jobs WHERE id = ?", (job_id,)).fetchone() for job_id in ids]
    waiting = [row[0] for row in rows if row is not None and as_state(row[1]) < RUNNING]
    if waiting:
        complete_all(tx, waiting, CANCELLED)
    gone = [row[0] for row in rows if row is not None and row[1] != RUNNING]
    forget(tx, gone)
    return [row is not None and row[1] != RUNNING for row in rows]


def forget(tx: Tx, numbers: Sequence[int]) -> None:
    """Delete jobs with all that belongs to them."""
    for part in chunks(numbers):
        marks = ", ".join("?" * len(part))
        for table in ("jobs", "blobs", "logs", "log_sizes", "needs", "wishes", "refusals", "begun"):
            tx.execute(f"DELETE FROM {table} WHERE n IN ({marks})", tuple(part))


#: Seconds after which a job that another one needs is looked at again.
NEEDED_S = 60.0


def prune(tx: Tx, limit: int) -> int:
    """Forget jobs that have been kept long enough; return how many were looked at. Those still needed stay longer."""
    query = (
        "SELECT n, EXISTS (SELECT 1 FROM needs WHERE needed = jobs.id) FROM jobs INDEXED BY jobs_drop "
        "WHERE drop_at IS NOT NULL AND drop_at <= ? ORDER BY drop_at LIMIT ?"
    )
    rows = tx.execute(query, (tx.now, limit)).fetchall()
    if rows:
        forget(tx, [n for n, needed in rows if not needed])
        later = tx.now + NEEDED_S
        tx.executemany("UPDATE jobs SET drop_at = ? WHERE n = ?", [(later, n) for n, needed in rows if needed])
    return len(rows)
