"""Maintenance that any worker does for all: jobs of dead workers requeued, late ones failed, old ones forgotten.

A worker is dead when nobody reads its FIFO any more (see `wakeups`), and taken for dead when it has not renewed for
a lease although it may live: it is frozen, and its outcomes will be fenced. Both clocks of that are the machine's
monotonic one, which all its processes share and nobody can set.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from taskq.executors.sqlite.claims import BATCH, expire, is_work, promote
from taskq.executors.sqlite.jobs import COMPLETION_COLUMNS, Completion, complete_many, completion, prune
from taskq.executors.sqlite.page import AWAKE, WORKERS
from taskq.executors.sqlite.refusals import forget_refusals
from taskq.executors.sqlite.schema import (
    BLOCKED,
    CANCELLED,
    FAILED,
    LATEST,
    QUEUED,
    RUNNING,
    SCHEDULED,
    as_count,
    chunks,
    is_count,
    is_number,
    listed,
)
from taskq.executors.sqlite.wakeups import reader_of
from taskq.failure import Failure
from taskq.store import Blame, Remains, blame

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from taskq.executors.sqlite.database import Database
    from taskq.executors.sqlite.refusals import Refuser
    from taskq.executors.sqlite.schema import Execute
    from taskq.executors.sqlite.transaction import Tx
    from taskq.executors.sqlite.wakeups import Wakeups

__all__ = ["dead_workers", "detach_jobs", "is_dead", "remains", "requeue_held", "sweep"]

#: Seconds that one sweep may spend on forgetting old jobs: it runs in the thread that feeds a worker's processes.
PRUNE_S = 0.1

#: Jobs forgotten in one transaction.
PRUNE_BATCH = 500


def sweep(database: Database, wakeups: Wakeups, me: str, held: Collection[str] | None, *, trust_clock: bool) -> int:
    """Do all that is due in the place of worker `me`; return how many jobs were put back. See `run_maintenance`."""
    put_back = 0
    if held is not None:
        put_back += _repeat(database, wakeups, lambda tx: _requeue_strays(tx, me, held))
    for name in dead_workers(database, wakeups, trust_clock=trust_clock):
        if name != me:
            put_back += _remove_dead(database, wakeups, name)
    unknown = "coalesce(worker, '') NOT IN (SELECT name FROM workers)"
    put_back += _repeat(database, wakeups, lambda tx: _requeue_orphans(tx, unknown, ()))
    _repeat(database, wakeups, promote)
    _repeat(database, wakeups, expire)
    deadline = time.monotonic() + PRUNE_S
    pruned = PRUNE_BATCH
    while pruned == PRUNE_BATCH and time.monotonic() < deadline:
        pruned = database.write(lambda tx: prune(tx, PRUNE_BATCH), lasting=False)
    database.checkpoint()
    return put_back


def _repeat(database: Database, wakeups: Wakeups, work: Callable[[Tx], int]) -> int:
    """Do a piece of work batch by batch until there is no more of it."""
    total = 0
    while True:
        kept: list[Tx] = []

        def run(tx: Tx, kept: list[Tx] = kept) -> int:
            kept[:] = [tx]
            return work(tx)

        done = database.write(run, after=wakeups.after)
        wakeups.wake_subscriptions(kept[0])
        total += done
        if done < BATCH:
            return total


# --- the dead


def dead_workers(database: Database, wakeups: Wakeups, *, trust_clock: bool) -> list[str]:
    """Return the names of those that are dead, or frozen beyond their lease."""
    rows = database.read(lambda c: c.execute("SELECT slot, name, renewed FROM workers").fetchall())
    return [name for slot, name, renewed in rows if is_dead(wakeups, slot, renewed, trust_clock=trust_clock)]


def is_dead(wakeups: Wakeups, slot: int, renewed: float, *, trust_clock: bool = True) -> bool:
    """Return whether a worker is dead or frozen, or its row damaged; `trust_clock` False: nobody is called frozen."""
    if not is_number(renewed):
        return True
    if reader_of(wakeups.worker_path(slot)) is False:
        return True
    return trust_clock and not 0 <= time.monotonic() - renewed <= wakeups.lease


def _remove_dead(database: Database, wakeups: Wakeups, name: str) -> int:
    """Put a dead worker's jobs back and strike it off, unless it has shown life meanwhile."""

    def still_dead(tx: Tx) -> bool:
        row = tx.execute("SELECT slot, renewed FROM workers WHERE name = ?", (name,)).fetchone()
        if row is None or not is_dead(wakeups, row[0], row[1]):
            return False
        tx.execute("DELETE FROM workers WHERE name = ?", (name,))
        forget_refusals(tx.execute, name)
        tx.page.count_workers_change()
        if 0 <= row[0] < WORKERS:
            tx.page.flag_worker(row[0], AWAKE)
        return True

    if not database.write(still_dead):
        return 0
    return _repeat(database, wakeups, lambda tx: _requeue_orphans(tx, "worker = ?", (name,)))


def _requeue_strays(tx: Tx, me: str, held: Collection[str]) -> int:
    """Put back jobs that run with this worker as the file says, and that it does not have: their rows are damaged."""
    query = f"SELECT n, n || '.' || fence FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND worker = ?"
    strays = [n for n, token in tx.execute(query, (me,)).fetchall() if token not in held]
    for part in chunks(strays):
        marks, numbers = listed(part)
        _requeue_orphans(tx, f"n IN {marks}", (*numbers,))
    return len(strays)


def _requeue_orphans(tx: Tx, which: str, values: tuple[Any, ...]) -> int:
    """Put back the running jobs of workers that are gone, as `blame` says of each; end those that crash too often."""
    rows = tx.execute(
        f"SELECT {COMPLETION_COLUMNS}, crashes, max_crashes, queue, EXISTS (SELECT 1 FROM wishes WHERE n = jobs.n), "
        "fence, (SELECT fence FROM begun WHERE n = jobs.n) "
        f"FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND {which} LIMIT {BATCH}",
        values,
    ).fetchall()
    completions: list[Completion] = []
    again: list[tuple[int, int, int]] = []
    suspects: list[tuple[int]] = []
    for row in rows:
        crashes, limit, queue, unwanted, fence, told = row[5:]
        found = _blame(crashes, limit, fence, told)
        crash = found is Blame.CRASH
        if unwanted:
            completions.append(completion(row, CANCELLED, attempts=-(found is Blame.NONE), crashes=crash))
        elif crash and not (is_count(limit) and as_count(crashes) + 1 < limit):
            failure = Failure.crashed(None, as_count(crashes) + 1)
            completions.append(completion(row, FAILED, failure=failure, crashes=1))
        else:
            again.append((crash, found is not Blame.NONE, row[0]))
            if found is Blame.SUSPECT:
                suspects.append((row[0],))
            tx.queued[queue] = tx.queued.get(queue, 0) + 1
    tx.executemany(
        f"UPDATE jobs SET state = {QUEUED}, due = NULL, fence = fence + 1, crashes = crashes + ?, "
        "attempts = attempts - 1 + ? WHERE n = ?",
        again,
    )
    tx.executemany("INSERT OR REPLACE INTO begun (n, fence) VALUES (?, 0)", suspects)
    if completions:
        complete_many(tx, completions)
    return len(rows)


def _blame(crashes: Any, limit: Any, fence: Any, told: Any) -> Blame:
    """Say what a dead worker means for a job; `told`: what the table `begun` has of it. Damaged values count."""
    if not (is_count(crashes) and is_count(limit)):
        return Blame.CRASH
    mark = told if type(told) is int else None
    begun = None if mark is None or abs(mark) != fence else mark > 0
    return blame(crashes, limit, begun=begun, suspect=mark is not None and mark <= 0)


def detach_jobs(tx: Tx, name: str) -> None:
    """Detach a dead worker's jobs before its name is reused; the next sweep requeues them."""
    running = f"SELECT n FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND worker = ?"
    tx.execute(f"UPDATE jobs SET worker = ? WHERE n IN ({running})", (f"{name} (gone)", name))


def requeue_held(tx: Tx, name: str) -> int:
    """Put back what a worker holds that signs off: its attempt is not counted."""
    rows = tx.execute(
        f"SELECT {COMPLETION_COLUMNS}, queue, EXISTS (SELECT 1 FROM wishes WHERE n = jobs.n) "
        f"FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND worker = ?",
        (name,),
    ).fetchall()
    unwanted = [row for row in rows if row[6]]
    for row in rows:
        if not row[6]:
            tx.queued[row[5]] = tx.queued.get(row[5], 0) + 1
            tx.execute(
                f"UPDATE jobs SET state = {QUEUED}, due = NULL, fence = fence + 1, attempts = max(0, attempts - 1) "
                "WHERE n = ?",
                (row[0],),
            )
    if unwanted:
        complete_many(tx, [completion(row, CANCELLED) for row in unwanted])
    return len(rows)


# --- the old


#: Whether a blocked job waits, directly or by way of other blocked ones, for a job that runs, or that a worker serves.
WAITS_FOR_OTHERS = f"""
WITH RECURSIVE above (id) AS (
    SELECT needed FROM needs JOIN jobs ON jobs.n = needs.n WHERE state = {BLOCKED} AND NOT met AND {{served}}
    UNION SELECT needed FROM above JOIN jobs ON jobs.id = above.id JOIN needs ON needs.n = jobs.n
    WHERE jobs.state = {BLOCKED} AND NOT met
)
SELECT EXISTS (
    SELECT 1 FROM above JOIN jobs ON jobs.id = above.id WHERE jobs.state = {RUNNING}
    OR jobs.state = {QUEUED} AND jobs.queue NOT IN (SELECT queue FROM paused)
    AND EXISTS (SELECT 1 FROM workers WHERE queues = '' OR instr(',' || queues || ',', ',' || jobs.queue || ','))
)
"""


def remains(execute: Execute, queues: Sequence[str], refuser: Refuser | None = None) -> Remains:
    """Return what there is yet for these queues, or for any; see `WorkerSession.remains`."""
    served = f"queue IN ({', '.join('?' * len(queues))})" if queues else "1"
    running = f"SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND {served})"
    waiting = WAITS_FOR_OTHERS.format(served=served)
    found = (execute(query, (*queues,)).fetchone()[0] for query in (running, waiting))
    if is_work(execute, queues, refuser) or any(found):
        return Remains(busy=True)
    query = (
        "SELECT count(*), sum(attempts > 0), min(due), min(CASE WHEN attempts > 0 THEN due END), "
        f"max(CASE WHEN attempts > 0 THEN due END) FROM jobs INDEXED BY jobs_due WHERE state = {SCHEDULED} AND {served}"
    )
    scheduled, again, soonest, first, last = execute(query, (*queues,)).fetchone()
    now = time.time()
    if scheduled and not (is_number(soonest) and soonest > now):
        return Remains(busy=True)
    return Remains(scheduled=scheduled, again=again or 0, first=_until(first, now), last=_until(last, now))


def _until(due: Any, now: float) -> float:
    return min(due, LATEST) - now if is_number(due) else 0.0
