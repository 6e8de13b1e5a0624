"""Rows of a queue file as records."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from taskq.executors.sqlite.jobs import VISIBLE, broken, unpack
from taskq.executors.sqlite.schema import (
    FAILED,
    QUEUED,
    RUNNING,
    STATES,
    as_moment,
    as_text,
    chunks,
    code_of,
    fits,
    is_count,
    is_number,
)
from taskq.states import State
from taskq.store import JobRecord, QueueRecord, WorkerRecord

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from taskq.store import JobQuery

__all__ = ["find_jobs", "get_jobs", "list_queues", "list_workers", "read_log"]


COLUMNS = (
    "jobs.id, jobs.state, queue, rank, task, label, attempts, crashes, retries, submitted, due, started, ended, "
    "expires, key, needs, worker, done, total, meta, failure"
)

#: Jobs of some states up to which they are found by their state; above, by reading all from the newest on.
FEW = 5000


def get_jobs(connection: sqlite3.Connection, ids: Sequence[str], *, payload: bool) -> list[JobRecord | None]:
    """Return what is known of these jobs; one whose time is over is not."""
    more = ", result, coalesce(jobs.envelope, blobs.envelope)" if payload else ""
    source = "jobs LEFT JOIN blobs USING (n)" if payload else "jobs"
    found: dict[str, JobRecord] = {}
    now = time.time()
    for part in chunks(ids):
        marks = ", ".join("?" * len(part))
        query = f"SELECT {COLUMNS}{more} FROM {source} WHERE jobs.id IN ({marks}) AND {VISIBLE}"
        for row in connection.execute(query, (*part, now)):
            found[row[0]] = _record(row)
    return [found.get(one) for one in ids]


def find_jobs(connection: sqlite3.Connection, wanted: JobQuery) -> list[JobRecord]:
    """Return the jobs that are wanted, without their payloads, newest first."""
    tests = [VISIBLE]
    values: list[Any] = [time.time()]
    source = "jobs NOT INDEXED"
    if wanted.states:
        codes = [code_of(state) for state in wanted.states]
        among = f"state IN ({', '.join(map(str, codes))})"
        tests.append(among)
        if _few(connection, among):
            source = "jobs INDEXED BY jobs_line"
    for column, value in (("queue", wanted.queue), ("task", wanted.task)):
        if value is not None:
            tests.append(f"{column} = ?")
            values.append(value)
    query = f"SELECT {COLUMNS} FROM {source} WHERE {' AND '.join(tests)} ORDER BY n DESC LIMIT ? OFFSET ?"
    return [_record(row) for row in connection.execute(query, (*values, wanted.limit, wanted.offset))]


def _few(connection: sqlite3.Connection, among: str) -> bool:
    query = f"SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_line WHERE {among} LIMIT {FEW + 1})"
    return bool(connection.execute(query).fetchone()[0] <= FEW)


def _record(row: tuple[Any, ...]) -> JobRecord:
    """Return the record of a row; of a damaged one what can be said of it."""
    try:
        return _whole(row)
    except (TypeError, ValueError, AttributeError, KeyError):
        return _rest_of(row)


def _rest_of(row: tuple[Any, ...]) -> JobRecord:
    job_id, state, queue, neg_priority, task, *_ = row
    return JobRecord(
        id=as_text(job_id),
        task=as_text(task),
        state=STATES.get(state, State.FAILED),
        queue=as_text(queue),
        priority=-neg_priority if type(neg_priority) is int else 0,
        submitted_at=0.0,
        failure=broken() if state not in STATES or state == FAILED else None,
        refusal=broken() if state in STATES and state < RUNNING else None,
    )


def _whole(row: tuple[Any, ...]) -> JobRecord:
    job_id, state, queue, neg_priority, task, label, attempts, crashes, retries, *rest = row
    submitted, due, started, ended, expires, key, depends_on, worker, done, total, meta, failure, *payload = rest
    if set(map(type, (submitted, due, started, ended, expires))) - {float, type(None)} or type(submitted) is not float:
        raise ValueError("a moment is none")
    if {type(job_id), type(queue), type(task)} != {str} or not all(fits(text, str) for text in (label, key, worker)):
        raise ValueError("a name or a text is none")
    if not all(map(is_count, (attempts, crashes, retries))):
        raise ValueError("a count is none")
    if not all(fits(data, bytes) for data in (meta, *payload)) or not (fits(done, int) and fits(total, int)):
        raise ValueError("a payload or its progress is none")
    return JobRecord(
        id=job_id,
        task=task,
        state=STATES[state],
        queue=queue,
        priority=-neg_priority,
        label=label or "",
        key=key,
        attempts=attempts,
        crashes=crashes,
        retries=retries,
        submitted_at=as_moment(submitted),
        due_at=as_moment(due),
        started_at=as_moment(started),
        ended_at=as_moment(ended),
        expires_at=as_moment(expires),
        worker=worker,
        progress=None if done is None else (done, total),
        meta=meta or b"",
        depends_on=tuple(depends_on.split(" ")) if depends_on else (),
        envelope=payload[1] or b"" if payload else b"",
        result=payload[0] if payload else None,
        failure=unpack(failure) if state == FAILED else None,
        refusal=unpack(failure) if state < RUNNING else None,
    )


def list_queues(connection: sqlite3.Connection) -> list[QueueRecord]:
    """Return all queues with jobs, workers or a pause."""
    counts: dict[str, dict[State, int]] = {}
    oldest: dict[str, int] = {}
    query = "SELECT state, queue, count(*), min(n) FROM jobs INDEXED BY jobs_line GROUP BY state, queue"
    for code, queue, count, first in connection.execute(query).fetchall():
        name, state = as_text(queue), STATES.get(code, State.FAILED)
        of_name = counts.setdefault(name, {})
        of_name[state] = of_name.get(state, 0) + count
        if code == QUEUED:
            oldest[name] = first
    paused = {as_text(row[0]) for row in connection.execute("SELECT queue FROM paused")}
    served = connection.execute("SELECT queues FROM workers").fetchall()
    names = {*counts, *paused, *(name for row in served for name in as_text(row[0]).split(",") if name)}
    return [
        QueueRecord(
            name=name,
            counts=counts.get(name, {}),
            oldest_at=_submitted(connection, oldest.get(name)),
            paused=name in paused,
        )
        for name in sorted(names)
    ]


def _submitted(connection: sqlite3.Connection, n: int | None) -> float | None:
    row = None if n is None else connection.execute("SELECT submitted FROM jobs WHERE n = ?", (n,)).fetchone()
    return as_moment(row[0]) if row is not None and is_number(row[0]) else None


def list_workers(connection: sqlite3.Connection) -> list[tuple[int, float, WorkerRecord]]:
    """Return all workers that have not signed off, each with its slot and when it renewed by the monotonic clock."""
    query = (
        "SELECT slot, renewed, name, host, pid, queues, processes, version, started, seen, running, succeeded, failed, "
        "stopping FROM workers ORDER BY name"
    )
    rows = [(row[0], row[1], _worker(row[2:])) for row in connection.execute(query)]
    return [(slot, renewed, record) for slot, renewed, record in rows if record is not None]


def _worker(row: tuple[Any, ...]) -> WorkerRecord | None:
    """Return the record of a row; None for a damaged one: its worker will write it anew, if it lives."""
    name, host, pid, queues, processes, version, started, seen, running, succeeded, failed, stopping = row
    texts, counts = (name, host, queues, version), (pid, processes, running, succeeded, failed)
    if {*map(type, texts)} != {str} or not all(map(is_count, counts)) or not (is_number(started) and is_number(seen)):
        return None
    return WorkerRecord(
        name=name,
        host=host,
        pid=pid,
        queues=tuple(filter(None, queues.split(","))),
        processes=processes,
        version=version,
        started_at=as_moment(started) or 0.0,
        seen_at=as_moment(seen) or 0.0,
        running=running,
        succeeded=succeeded,
        failed=failed,
        stopping=bool(stopping),
    )


def read_log(connection: sqlite3.Connection, job_id: str, offset: int) -> bytes:
    """Return what a job has printed, from this byte on; when it has ended, with a word on what was left out."""
    row = connection.execute(
        "SELECT n, state > 4, kept, left_out FROM jobs JOIN log_sizes USING (n) WHERE id = ?", (job_id,)
    ).fetchone()
    if row is None:
        return b""
    n, has_ended, kept, left_out = row
    pieces = connection.execute(
        "SELECT start, data FROM logs WHERE n = ? AND start + length(data) > ? ORDER BY start", (n, offset)
    ).fetchall()
    whole = [piece for piece in pieces if is_count(piece[0]) and type(piece[1]) is bytes]
    text = b"".join(data[max(0, offset - start) :] for start, data in whole)
    if not (is_count(left_out) and left_out and is_count(kept) and has_ended):
        return text
    last = f"\n... {left_out:,} bytes left out ...\n".encode()
    return text + last[max(0, offset - kept) :]
