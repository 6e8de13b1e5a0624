"""Keep new jobs in a queue file: all or none, and safe to repeat.

    id is there already  ──▶ that job stands, whatever its state
    key is taken         ──▶ the job that has it stands for this one
    needs others         ──▶ blocked until they have succeeded, or failed at once when one has not

Tables and columns are those of `schema`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from taskq.errors import JobExists
from taskq.executors.sqlite.damage import as_state
from taskq.executors.sqlite.ends import complete, dependency_failure
from taskq.executors.sqlite.rows import INLINE, insert, row_of, statement
from taskq.executors.sqlite.schema import BLOCKED, CANCELLED, FAILED, SUCCEEDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.executors.sqlite.database import Tx
    from taskq.store import NewJob

__all__ = ["block", "can_append", "put"]


def put(tx: Tx, jobs: Sequence[NewJob], reply_to: int) -> tuple[list[str], bool]:
    """Keep these jobs; return their ids (see `Store.put`), and whether all are new."""
    if not all(_is_plain(job) for job in jobs):
        found = [_put_one(tx, job, reply_to) for job in jobs]
        return [job_id for job_id, _ in found], all(is_new for _, is_new in found)
    made = insert(tx.executemany, [row_of(job, reply_to, tx.now) for job in jobs])
    for job in jobs:
        queue = job.options.queue
        tx.queued[queue] = tx.queued.get(queue, 0) + 1
    return [job.id for job in jobs], made == len(jobs)


def can_append(job: NewJob) -> bool:
    """Return whether the append log may take a job: what comes of it does not depend on the others that are there.

    Its id is of our own making, so that one that is taken can only be the same job, put again.
    """
    return job.options.job_id is None and _is_plain(job)


def _is_plain(job: NewJob) -> bool:
    options = job.options
    return options.key is None and not job.depends_on and len(job.envelope) <= INLINE and options.if_exists == "return"


def _put_one(tx: Tx, job: NewJob, reply_to: int) -> tuple[str, bool]:
    options = job.options
    taken = _taken(tx, job)
    if taken is not None:
        # A job that has an id of its own making and finds it taken is here for the second time.
        if options.if_exists == "reject" and (taken != job.id or options.job_id is not None):
            _refuse(job, taken)
        return taken, False
    row = row_of(job, reply_to, tx.now)
    n = tx.execute(statement(len(row)), row).lastrowid
    if len(job.envelope) > INLINE:
        tx.execute("INSERT INTO blobs (n, envelope) VALUES (?, ?)", (n, job.envelope))
    queue = options.queue
    tx.queued[queue] = tx.queued.get(queue, 0) + 1
    if job.depends_on:
        block(tx, n or 0, job.depends_on)
    return job.id, True


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
