"""How jobs end in a queue file, whoever says so: an outcome, a cancel, a deadline, a dead worker, a failed dependency.

    complete_many ──▶ state, end number, date of forgetting ──▶ its request and needs dropped, subscriptions noted
                                                        └──▶ those that need it: released, or failed in turn

End numbers grow: a subscription reads what ended after the last one that it has seen.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.errors import DecodeError
from taskq.executors.sqlite.damage import HIGHEST, as_text, is_number
from taskq.executors.sqlite.schema import BLOCKED, CANCELLED, FAILED, QUEUED, SCHEDULED, SUCCEEDED
from taskq.failure import Failure
from taskq.locks import pass_on
from taskq.states import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taskq.executors.sqlite.database import Tx
    from taskq.executors.sqlite.schema import Execute

__all__ = [
    "COMPLETION_COLUMNS",
    "VISIBLE",
    "Completion",
    "broken",
    "complete",
    "complete_all",
    "complete_many",
    "completion",
    "dependency_failure",
    "last_end",
    "pack",
    "release",
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


def completion(row: Sequence[Any], state: int, *, failure: Failure | None = None, crashes: int = 0) -> Completion:
    """Return how a job ends, of a row that begins with the columns of COMPLETION_COLUMNS."""
    n, job_id, reply_to, ttl, needs = row[:5]
    return Completion(n, job_id, reply_to, ttl, needs, state, failure=failure, crashes=crashes)


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
    if tx.execute("SELECT EXISTS (SELECT 1 FROM wishes)").fetchone()[0]:
        tx.executemany("DELETE FROM wishes WHERE n = ?", [(one.n,) for one in completions])
    if not tx.execute("SELECT EXISTS (SELECT 1 FROM needs)").fetchone()[0]:
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
