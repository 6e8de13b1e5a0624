"""Records of a store as JSON documents for programs and as rows of tables for people; times and ages in both.

for programs    names that stay, as programs read them; ISO 8601 in UTC, lengths of time in seconds
for people      local time; ages as "12 s", "3 min", "2 h", "5 d": two figures tell enough
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from taskq.cli.jsontext import Unwritable, to_json
from taskq.cli.tables import STATE_STYLES, Column
from taskq.errors import DecodeError
from taskq.states import TERMINAL, State
from taskq.survey import error_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.store import Finding, JobRecord, QueueRecord, WorkerRecord

__all__ = [
    "FINDING_COLUMNS",
    "JOB_COLUMNS",
    "QUEUE_COLUMNS",
    "WORKER_COLUMNS",
    "age",
    "brief_error",
    "clock",
    "finding_document",
    "iso",
    "job_document",
    "job_row",
    "meta_of",
    "progress_text",
    "queue_document",
    "queue_row",
    "run_time",
    "seconds",
    "worker_document",
    "worker_row",
]

JOB_COLUMNS = (
    Column(name="ID", least=11, tail=True),
    Column(name="STATE", styles=STATE_STYLES),
    Column(name="QUEUE", rank=4, least=7),
    Column(name="TASK", least=20),
    Column(name="AGE", right=True, rank=3),
    Column(name="RAN", right=True, rank=5),
    Column(name="TRIES", right=True, rank=6),
    Column(name="NOTE", rank=2, least=14),
)

QUEUE_COLUMNS = (
    Column(name="QUEUE", least=8),
    Column(name="WAITING", right=True),
    Column(name="LATER", right=True, rank=6),
    Column(name="BLOCKED", right=True, rank=7),
    Column(name="RUNNING", right=True),
    Column(name="DONE", right=True, rank=4),
    Column(name="FAILED", right=True, rank=1),
    Column(name="CANCELLED", right=True, rank=8),
    Column(name="OLDEST", right=True, rank=3),
    Column(name="WORKERS", right=True, rank=5),
    Column(name="STATUS", rank=2, styles=STATE_STYLES),
)

WORKER_COLUMNS = (
    Column(name="WORKER", least=10),
    Column(name="HOST", rank=5, least=6),
    Column(name="PID", right=True, rank=4),
    Column(name="QUEUES", rank=2, least=7),
    Column(name="RUNNING", right=True),
    Column(name="DONE", right=True, rank=3),
    Column(name="FAILED", right=True, rank=1),
    Column(name="UP", right=True, rank=6),
    Column(name="SEEN", right=True, rank=7),
    Column(name="VERSION", rank=9),
    Column(name="STATUS", rank=8, styles=STATE_STYLES),
)

FINDING_COLUMNS = (
    Column(name="LEVEL", styles=STATE_STYLES),
    Column(name="TOPIC", rank=1),
    Column(name="FOUND"),
)


# --- jobs
def job_document(record: JobRecord) -> dict[str, Any]:
    """Return all that is known of a job, but for its arguments and its result."""
    failure = record.failure
    return {
        "id": record.id,
        "task": record.task,
        "label": record.label,
        "state": str(record.state),
        "reason": None if record.reason is None else str(record.reason),
        "error": None if failure is None else {"type": failure.type, "message": failure.message},
        "refusal": None if record.refusal is None else record.refusal.message,
        "queue": record.queue,
        "priority": record.priority,
        "key": record.key,
        "attempts": record.attempts,
        "crashes": record.crashes,
        "retries": record.retries,
        "submitted_at": iso(record.submitted_at),
        "due_at": iso(record.due_at),
        "started_at": iso(record.started_at),
        "ended_at": iso(record.ended_at),
        "expires_at": iso(record.expires_at),
        "run_s": seconds(_between(record.started_at, record.ended_at)),
        "worker": record.worker,
        "progress": None if record.progress is None else {"done": record.progress[0], "total": record.progress[1]},
        "meta": meta_of(record),
        "needs": list(record.depends_on),
    }


def meta_of(record: JobRecord) -> Any:
    """Return what a job has noted about itself; values that JSON has not come as their text."""
    if not record.meta:
        return {}
    from taskq.codec import decode  # noqa: PLC0415 - 15 ms, only where there is something to decode

    try:
        meta = decode(record.meta)
    except DecodeError:
        return {}
    try:
        to_json(meta)
    except Unwritable:
        return {str(key): repr(value) for key, value in meta.items()} if isinstance(meta, dict) else repr(meta)
    return meta


def job_row(record: JobRecord, now: float) -> list[str]:
    """Return the row of a job, for JOB_COLUMNS."""
    return [
        record.id,
        str(record.state),
        record.queue,
        record.label or record.task,
        age(_since(record.submitted_at, now)),
        age(run_time(record, now)),
        str(record.attempts),
        note_of(record, now),
    ]


def note_of(record: JobRecord, now: float) -> str:
    """Return the one thing to know of a job in its state."""
    if record.state is State.RUNNING:
        return progress_text(record) or (record.worker or "")
    if record.refusal is not None:
        return f"refused: {' '.join(record.refusal.message.split())}"
    if record.state is State.SCHEDULED and record.due_at is not None:
        return f"in {age(record.due_at - now)}" + (f", after {brief_error(record)}" if record.failure else "")
    if record.state is State.BLOCKED:
        return f"needs {len(record.depends_on)} jobs"
    return brief_error(record) if record.failure is not None else ""


def brief_error(record: JobRecord) -> str:
    """Return why a job failed, in one line: "ValueError: no such size"; an empty text where it did not."""
    if record.failure is None:
        return ""
    return error_text(record.failure)


def progress_text(record: JobRecord) -> str:
    """Return how far a job is: "12 of 40 (30 %)", "12"."""
    if record.progress is None:
        return ""
    done, total = record.progress
    return f"{done:,} of {total:,} ({done * 100 // total} %)" if total else f"{done:,}"


def run_time(record: JobRecord, now: float) -> float | None:
    """Return the seconds that a job ran in its last attempt, or has run until now."""
    if record.state not in TERMINAL and record.state is not State.RUNNING:
        return None
    return _between(record.started_at, now if record.state is State.RUNNING else record.ended_at)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)


def _since(instant: float | None, now: float) -> float | None:
    return _between(instant, now)


# --- queues, workers, findings
def queue_document(record: QueueRecord, workers: Sequence[WorkerRecord]) -> dict[str, Any]:
    """Return what is known of a queue."""
    return {
        "queue": record.name,
        "paused": record.paused,
        "counts": {str(state): record.counts.get(state, 0) for state in State},
        "oldest_at": iso(record.oldest_at),
        "workers": _serving(record, workers),
    }


def queue_row(record: QueueRecord, workers: Sequence[WorkerRecord], now: float) -> list[str]:
    """Return the row of a queue, for QUEUE_COLUMNS."""
    order = (
        State.QUEUED,
        State.SCHEDULED,
        State.BLOCKED,
        State.RUNNING,
        State.SUCCEEDED,
        State.FAILED,
        State.CANCELLED,
    )
    counts = [f"{record.counts.get(state, 0):,}" for state in order]
    oldest = age(_since(record.oldest_at, now)) if record.oldest_at is not None else "-"
    return [record.name, *counts, oldest, str(_serving(record, workers)), "paused" if record.paused else ""]


def _serving(record: QueueRecord, workers: Sequence[WorkerRecord]) -> int:
    return sum(record.name in worker.queues for worker in workers)


def worker_document(record: WorkerRecord) -> dict[str, Any]:
    """Return what is known of a worker."""
    return {
        "name": record.name,
        "host": record.host,
        "pid": record.pid,
        "queues": list(record.queues),
        "processes": record.processes,
        "running": record.running,
        "succeeded": record.succeeded,
        "failed": record.failed,
        "started_at": iso(record.started_at),
        "seen_at": iso(record.seen_at),
        "stopping": record.stopping,
        "version": record.version,
    }


def worker_row(record: WorkerRecord, now: float) -> list[str]:
    """Return the row of a worker, for WORKER_COLUMNS."""
    return [
        record.name,
        record.host,
        str(record.pid),
        ",".join(record.queues),
        f"{record.running} of {record.processes}",
        f"{record.succeeded:,}",
        f"{record.failed:,}",
        age(_since(record.started_at, now)),
        age(_since(record.seen_at, now)),
        record.version,
        "stopping" if record.stopping else "",
    ]


def finding_document(finding: Finding) -> dict[str, Any]:
    """Return one finding of the doctor."""
    return {"topic": finding.topic, "level": finding.level, "text": finding.text, "cure": finding.cure}


#: The units of an age: seconds in one, and its sign.
UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))

#: Multiples of a unit from which it is used: 90 s says more than 1 min, 36 h more than 1 d.
FROM = 2

#: Seconds below which a time is given in milliseconds, and with one decimal.
BRIEF = 0.1

SHORT = 10.0


def iso(instant: float | None) -> str | None:
    """Return seconds since 1970 as ISO 8601 in UTC, to the millisecond; None for None."""
    if instant is None:
        return None
    text = datetime.fromtimestamp(instant, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def age(length: float | None) -> str:
    """Return a length of time in one rounded figure: "0.4 s", "12 s", "3 min", "5 d"."""
    if length is None:
        return "-"
    length = max(0.0, length)
    if length < BRIEF:
        return f"{length * 1000:.0f} ms"
    if length < SHORT:
        return f"{length:.1f} s"
    size, sign = next((unit for unit in UNITS if length >= unit[0] * FROM), UNITS[-1])
    return f"{length / size:.0f} {sign}"


def clock(instant: float | None, now: float) -> str:
    """Return an instant as people read it, in local time: the time of day, and the date where it is another one."""
    if instant is None:
        return "-"
    there, today = datetime.fromtimestamp(instant).astimezone(), datetime.fromtimestamp(now).astimezone()
    return f"{there:%H:%M:%S}" if there.date() == today.date() else f"{there:%Y-%m-%d %H:%M}"


def seconds(length: float | None) -> float | None:
    """Return a length of time as programs get it."""
    return None if length is None else round(max(0.0, length), 6)
