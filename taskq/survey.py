"""A survey of a store: which jobs, queues and workers there are, as records for users; jobs in bulk.

TaskQueue.jobs, .counts ...  ──▶  DurableExecutor ─┐
                                                   ├──▶  survey  ──▶  Store.list, .queues, .workers ...
taskq status, queues, purge ...  ──────────────────┘
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from taskq.errors import DecodeError, UnknownTask
from taskq.records import JobInfo, QueueInfo, WorkerInfo
from taskq.states import TERMINAL, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taskq.executor import Selection
    from taskq.failure import Failure
    from taskq.store import JobRecord, QueueRecord, Store, WorkerRecord

__all__ = [
    "as_it_runs",
    "error_text",
    "in_pages",
    "job_info",
    "purge",
    "queue_infos",
    "remove_all",
    "retry_all",
    "select",
    "worker_info",
]

#: Jobs asked for at once where there may be many.
PAGE = 1000
#: Jobs that one round of a purge takes.
ROUND = 10 * PAGE


# --- which jobs


def in_pages(
    store: Store, states: Sequence[State], queue: str | None = None, task: str | None = None
) -> Iterator[JobRecord]:
    """Yield all jobs in these states, newest first; each once, also when some go or come meanwhile."""
    for page in _pages(store, states, queue, task, PAGE):
        yield from page


def _pages(
    store: Store, states: Sequence[State], queue: str | None, task: str | None, size: int
) -> Iterator[list[JobRecord]]:
    seen: set[str] = set()
    offset = 0
    while page := store.list(states=states, queue=queue, task=task, limit=size, offset=offset):
        offset += len(page)
        fresh = [record for record in page if record.id not in seen]
        seen.update(record.id for record in fresh)
        yield fresh


def select(store: Store, wanted: Selection) -> Iterator[JobRecord]:
    """Yield the jobs that are wanted, without their payloads, newest first."""
    return islice(_selected(store, wanted), wanted.limit)


def _selected(store: Store, wanted: Selection) -> Iterator[JobRecord]:
    size = PAGE if wanted.limit is None or wanted.older_than is not None else max(1, min(PAGE, wanted.limit))
    for page in _pages(store, wanted.states, wanted.queue, wanted.task, size):
        recent = [record for record in page if _is_since(record, wanted.since)]
        yield from (record for record in recent if _is_older(record, wanted.older_than))
        if page and not recent:  # the rest was submitted before these
            return


def _is_since(record: JobRecord, since: float | None) -> bool:
    return since is None or (record.submitted_at is not None and record.submitted_at >= since)


def _is_older(record: JobRecord, than: float | None) -> bool:
    """Tell whether a job has ended, or else was submitted, before an instant."""
    instant = record.ended_at if record.state in TERMINAL else record.submitted_at
    return than is None or (instant is not None and instant <= than)


# --- jobs in bulk


def purge(store: Store, wanted: Selection) -> int:
    """Forget the jobs that are wanted and do not run; return how many."""
    gone = 0
    while records := list(islice(select(store, wanted), ROUND)):
        removed = remove_all(store, records)
        gone += removed
        if not removed:
            break
    return gone


def remove_all(store: Store, records: Sequence[JobRecord]) -> int:
    """Forget these jobs, where they do not run; return how many were."""
    return sum(sum(store.remove([record.id for record in part])) for part in _parts(records))


def retry_all(store: Store, records: Sequence[JobRecord]) -> list[tuple[JobRecord, bool]]:
    """Queue jobs that failed or were cancelled again; return each with whether it was."""
    done: list[tuple[JobRecord, bool]] = []
    for part in _parts(records):
        done += zip(part, store.retry([record.id for record in part]), strict=True)
    return done


def _parts(records: Sequence[JobRecord]) -> Iterator[Sequence[JobRecord]]:
    return (records[start : start + PAGE] for start in range(0, len(records), PAGE))


# --- queues and workers


def as_it_runs(queues: Sequence[QueueRecord], workers: Sequence[WorkerRecord]) -> list[QueueRecord]:
    """Return queues with no more running jobs than there are processes: workers hold some that have not begun yet."""
    return [_capped(record, _processes(record, workers)) for record in queues]


def _processes(record: QueueRecord, workers: Sequence[WorkerRecord]) -> int:
    return sum(max(1, worker.processes) for worker in workers if record.name in worker.queues)


def _capped(record: QueueRecord, processes: int) -> QueueRecord:
    ahead = record.counts.get(State.RUNNING, 0) - processes
    if ahead <= 0 or not processes:
        return record
    queued = record.counts.get(State.QUEUED, 0) + ahead
    return replace(record, counts={**record.counts, State.RUNNING: processes, State.QUEUED: queued})


def queue_infos(store: Store) -> list[QueueInfo]:
    """Return all queues that have jobs, workers or a pause, by name."""
    return [
        QueueInfo(
            name=record.name,
            counts={state: record.counts.get(state, 0) for state in State},
            oldest_at=_instant(record.oldest_at),
            paused=record.paused,
        )
        for record in as_it_runs(store.queues(), store.workers())
    ]


def worker_info(record: WorkerRecord) -> WorkerInfo:
    """Return a worker's record for users."""
    return WorkerInfo(
        name=record.name,
        host=record.host,
        pid=record.pid,
        queues=tuple(record.queues),
        processes=record.processes,
        running=record.running,
        succeeded=record.succeeded,
        failed=record.failed,
        started_at=_instant(record.started_at),
        seen_at=_instant(record.seen_at),
        stopping=record.stopping,
        version=record.version,
    )


# --- one job


def job_info(record: JobRecord, refer: Callable[[str], Any] | None = None) -> JobInfo:
    """Return a job's record for users; its arguments where `refer` gives the jobs among them by their ids."""
    args, kwargs = (None, None) if refer is None else _arguments(record.envelope, refer)
    return JobInfo(
        id=record.id,
        task=record.task,
        state=record.state,
        queue=record.queue,
        priority=record.priority,
        label=record.label,
        key=record.key,
        args=args,
        kwargs=kwargs,
        reason=record.reason,
        error=None if record.failure is None else error_text(record.failure),
        refusal=None if record.refusal is None else record.refusal.message,
        submitted_at=_instant(record.submitted_at),
        due_at=_instant(record.due_at),
        started_at=_instant(record.started_at),
        ended_at=_instant(record.ended_at),
        expires_at=_instant(record.expires_at),
        worker=record.worker,
        attempts=record.attempts,
        crashes=record.crashes,
        retries=record.retries,
        progress=record.progress,
        meta=_meta(record.meta),
        depends_on=record.depends_on,
    )


def error_text(failure: Failure) -> str:
    """Return a failure in one line: "ValueError: no such size"."""
    message = " ".join(failure.message.split())
    kind = failure.type.removeprefix("taskq.errors.").removeprefix("taskq.shell.")
    return f"{kind}: {message}" if message else kind


def _arguments(
    envelope: bytes, refer: Callable[[str], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | tuple[None, None]:
    """Return the arguments in an envelope; None, where it has none that can be read here."""
    if not envelope:
        return None, None
    from taskq.codec import decode  # noqa: PLC0415  # 15 ms, only where there is something to decode
    from taskq.envelope import CALL, parts  # noqa: PLC0415  # as codec

    try:
        found = parts(envelope)
        if found.head.kind != CALL:
            return None, None
        args, kwargs = decode(found.args, resolve=refer), decode(found.kwargs, resolve=refer)
    except (DecodeError, UnknownTask):
        return None, None
    return (tuple(args), kwargs) if type(args) is list and type(kwargs) is dict else (None, None)


def _meta(data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    from taskq.codec import decode  # noqa: PLC0415  # as in _arguments

    try:
        found = decode(data)
    except DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
