"""What any worker does for all now and then: jobs of the dead put back, the late failed, the old forgotten.

A worker is dead when nobody reads its FIFO any more (see `wake`), and taken for dead when it has not renewed for
a lease although it may live: it is frozen, and its outcomes will be fenced. Both clocks of that are the machine's
monotonic one, which all its processes share and nobody can set.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from taskq.executors.sqlite.claim import BATCH, LAST_CRASH, expire, promote
from taskq.executors.sqlite.damage import is_count, is_number
from taskq.executors.sqlite.ends import ENDING, Ending, end_many, ending
from taskq.executors.sqlite.left import unrefuse
from taskq.executors.sqlite.read import chunks, listed
from taskq.executors.sqlite.schema import CANCELLED, FAILED, QUEUED, RUNNING
from taskq.executors.sqlite.shared import AWAKE, WORKERS
from taskq.executors.sqlite.wake import reader_of
from taskq.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from taskq.executors.sqlite.database import StoreFile, Tx
    from taskq.executors.sqlite.wake import Wakes

__all__ = ["dead_workers", "disown", "forget", "give_back", "is_dead", "prune", "sweep"]

#: Seconds that one sweep may spend on forgetting old jobs: it runs in the thread that feeds a worker's processes.
PRUNE_S = 0.1

#: Seconds after which a job that another one needs is looked at again.
NEEDED_S = 60.0

#: Jobs forgotten in one transaction.
PRUNE_BATCH = 500


def sweep(file: StoreFile, wakes: Wakes, me: str, held: Collection[str] | None, *, trust_clock: bool) -> int:
    """Do all that is due in the place of worker `me`; return how many jobs were put back. See `run_maintenance`."""
    put_back = 0
    if held is not None:
        put_back += _repeat(file, wakes, lambda tx: _reap_strays(tx, me, held))
    for name in dead_workers(file, wakes, trust_clock=trust_clock):
        if name != me:
            put_back += _bury(file, wakes, name)
    put_back += _repeat(file, wakes, lambda tx: _reap(tx, "coalesce(worker, '') NOT IN (SELECT name FROM workers)", ()))
    _repeat(file, wakes, promote)
    _repeat(file, wakes, expire)
    deadline = time.monotonic() + PRUNE_S
    while file.write(lambda tx: prune(tx, PRUNE_BATCH), lasting=False) == PRUNE_BATCH and time.monotonic() < deadline:
        pass
    file.checkpoint()
    return put_back


def _repeat(file: StoreFile, wakes: Wakes, work: Callable[[Tx], int]) -> int:
    """Do a piece of work batch by batch until there is no more of it."""
    total = 0
    while True:
        kept: list[Tx] = []

        def run(tx: Tx, kept: list[Tx] = kept) -> int:
            kept[:] = [tx]
            return work(tx)

        done = file.write(run, after=wakes.after)
        wakes.wake_subscriptions(kept[0])
        total += done
        if done < BATCH:
            return total


# --- the dead


def dead_workers(file: StoreFile, wakes: Wakes, *, trust_clock: bool) -> list[str]:
    """Return the names of those that are dead, or frozen beyond their lease."""
    rows = file.read(lambda c: c.execute("SELECT slot, name, renewed FROM workers").fetchall())
    return [name for slot, name, renewed in rows if is_dead(wakes, slot, renewed, trust_clock=trust_clock)]


def is_dead(wakes: Wakes, slot: int, renewed: float, *, trust_clock: bool = True) -> bool:
    """Return whether a worker is dead or frozen, or its row damaged; `trust_clock` False: nobody is called frozen."""
    if not is_number(renewed):
        return True
    if reader_of(wakes.worker_path(slot)) is False:
        return True
    return trust_clock and not 0 <= time.monotonic() - renewed <= wakes.lease


def _bury(file: StoreFile, wakes: Wakes, name: str) -> int:
    """Put a dead worker's jobs back and strike it off, unless it has shown life meanwhile."""

    def still_dead(tx: Tx) -> bool:
        row = tx.execute("SELECT slot, renewed FROM workers WHERE name = ?", (name,)).fetchone()
        if row is None or not is_dead(wakes, row[0], row[1]):
            return False
        tx.execute("DELETE FROM workers WHERE name = ?", (name,))
        unrefuse(tx.execute, name)
        tx.page.count_workers_change()
        if 0 <= row[0] < WORKERS:
            tx.page.flag_worker(row[0], AWAKE)
        return True

    if not file.write(still_dead):
        return 0
    return _repeat(file, wakes, lambda tx: _reap(tx, "worker = ?", (name,)))


def _reap_strays(tx: Tx, me: str, held: Collection[str]) -> int:
    """Put back jobs that run with this worker as the file says, and that it does not have: their rows are damaged."""
    query = f"SELECT n, n || '.' || fence FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND worker = ?"
    strays = [n for n, token in tx.execute(query, (me,)).fetchall() if token not in held]
    for part in chunks(strays):
        marks, numbers = listed(part)
        _reap(tx, f"n IN {marks}", (*numbers,))
    return len(strays)


def _reap(tx: Tx, which: str, values: tuple[Any, ...]) -> int:
    """Put back the running jobs of workers that are gone, with one crash more; end those that had enough.

    A job whose next crash is its last has begun for certain, or has not: then nothing is counted.
    """
    rows = tx.execute(
        f"SELECT {ENDING}, crashes + 1, max_crashes, queue, EXISTS (SELECT 1 FROM wishes WHERE n = jobs.n), "
        f"NOT ({LAST_CRASH}) OR EXISTS (SELECT 1 FROM begun WHERE n = jobs.n AND fence = jobs.fence) "
        f"FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND {which} LIMIT {BATCH}",
        values,
    ).fetchall()
    endings: list[Ending] = []
    again: list[tuple[int, int, int]] = []
    for row in rows:
        crashes, limit, queue, unwanted, counts = row[5:]
        if unwanted:
            endings.append(ending(row, CANCELLED, crashes=counts))
        elif counts and not (is_count(limit) and crashes < limit):
            endings.append(ending(row, FAILED, failure=Failure.crashed(None, crashes), crashes=1))
        else:
            again.append((counts, counts, row[0]))
            tx.queued[queue] = tx.queued.get(queue, 0) + 1
    tx.executemany(
        f"UPDATE jobs SET state = {QUEUED}, due = NULL, fence = fence + 1, crashes = crashes + ?, "
        "attempts = attempts - 1 + ? WHERE n = ?",
        again,
    )
    if endings:
        end_many(tx, endings)
    return len(rows)


def disown(tx: Tx, name: str) -> None:
    """Make the jobs of a dead worker nobody's, since another one takes its name; the next sweep puts them back."""
    running = f"SELECT n FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND worker = ?"
    tx.execute(f"UPDATE jobs SET worker = ? WHERE n IN ({running})", (f"{name} (gone)", name))


def give_back(tx: Tx, name: str) -> int:
    """Put back what a worker holds that signs off: its attempt is not counted."""
    rows = tx.execute(
        f"SELECT {ENDING}, queue, EXISTS (SELECT 1 FROM wishes WHERE n = jobs.n) "
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
        end_many(tx, [ending(row, CANCELLED) for row in unwanted])
    return len(rows)


# --- the old


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


def forget(tx: Tx, numbers: Sequence[int]) -> None:
    """Delete jobs with all that belongs to them."""
    for part in chunks(numbers):
        marks = ", ".join("?" * len(part))
        for table in ("jobs", "blobs", "logs", "log_sizes", "needs", "wishes", "refusals", "begun"):
            tx.execute(f"DELETE FROM {table} WHERE n IN ({marks})", _values(part))


def _values(part: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(part)
