"""What clients do to jobs that are in a queue file already: cancel, retry, remove, pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskq.executors.sqlite.damage import as_state, as_text
from taskq.executors.sqlite.ends import COMPLETION_COLUMNS, VISIBLE, complete_all, complete_many, completion
from taskq.executors.sqlite.put import block
from taskq.executors.sqlite.schema import CANCELLED, QUEUED, RUNNING, STATES, SUCCEEDED
from taskq.executors.sqlite.sweep import forget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskq.executors.sqlite.database import Tx
    from taskq.states import State

__all__ = ["cancel", "remove", "retry"]

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
    for table in ("logs", "log_sizes", "needs", "refusals"):
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
