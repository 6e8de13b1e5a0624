"""What there is in the store: jobs, queues and workers, read from RQ's registries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from executors.rq.layout import FIELDS
from executors.rq.record import _moment as moment_of
from taskq.states import State
from taskq.store import QueueRecord, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Collection

    from executors.rq.home import Home
    from taskq.store import JobRecord

__all__ = ["find_jobs", "queues", "workers"]

#: Ids read from one registry at most, when a filter has to look at many jobs to find few.
DEPTH: Final = 20_000


def queue_names(store: Home) -> list[str]:
    """Return the names of all queues that RQ knows."""
    start = len(store.layout.QUEUE)
    return sorted(key.decode()[start:] for key in store.line.command("SMEMBERS", store.layout.QUEUES))


# --- jobs


def find_jobs(
    store: Home, states: Collection[State], *, queue: str | None, task: str | None, limit: int, offset: int
) -> list[JobRecord]:
    """Return jobs without payloads, newest first."""
    names = [queue] if queue is not None else queue_names(store)
    wanted = frozenset(states) or frozenset(State)
    depth = min(DEPTH, max(offset + limit, 100) if task is None else DEPTH)
    ids = _ids(store, names, wanted, depth)
    found = [record for record in store.get(ids) if record is not None]
    kept = [record for record in found if record.state in wanted and (task is None or record.task == task)]
    kept.sort(key=lambda record: (record.submitted_at or 0.0, record.id), reverse=True)
    return kept[offset : offset + limit]


def _ids(store: Home, names: list[str], states: frozenset[State], depth: int) -> list[str]:
    """Return the ids of the newest jobs in each registry that has jobs of these states."""
    commands = [command for name in names for command in _reads(store, name, states, depth)]
    replies = store.line.commands(commands) if commands else []
    ids = (entry.decode().partition(":")[0] for reply in replies for entry in reply)
    return list(dict.fromkeys(ids))


def _reads(store: Home, name: str, states: frozenset[State], depth: int) -> list[tuple[Any, ...]]:
    layout = store.layout
    registries = {
        State.RUNNING: (layout.WIP,),
        State.SCHEDULED: (layout.SCHEDULED,),
        State.BLOCKED: (layout.DEFERRED,),
        State.SUCCEEDED: (layout.FINISHED,),
        State.FAILED: (layout.FAILED,),
        State.CANCELLED: (layout.CANCELED, layout.FAILED),
    }
    commands: list[tuple[Any, ...]] = []
    if State.QUEUED in states:
        commands += [("LRANGE", layout.QUEUE + name, -depth, -1), ("ZRANGE", layout.READY + name, 0, depth)]
    keys = dict.fromkeys(key for state in State if state in states for key in registries.get(state, ()))
    return commands + [("ZREVRANGE", key + name, 0, depth - 1) for key in keys]


# --- queues


def queues(store: Home) -> list[QueueRecord]:
    """Return all queues that have jobs, workers or a pause, by name."""
    layout = store.layout
    start = len(layout.QUEUE)
    members, paused_bytes, worker_keys = store.line.commands(
        [("SMEMBERS", layout.QUEUES), ("SMEMBERS", layout.PAUSED), ("SMEMBERS", layout.WORKERS)]
    )
    paused = {name.decode() for name in paused_bytes}
    names = {key.decode()[start:] for key in members} | paused
    if worker_keys:
        lists = store.line.commands([("HGET", key, FIELDS["queues"]) for key in worker_keys])
        names |= {name for entry in lists if entry for name in entry.decode().split(",")}
    return [record for name in sorted(names) if (record := _queue(store, name, paused=name in paused)) is not None]


def _queue(store: Home, name: str, *, paused: bool) -> QueueRecord | None:
    layout = store.layout
    counts = store.line.commands(
        [
            ("LLEN", layout.QUEUE + name),
            ("ZCARD", layout.WIP + name),
            ("ZCARD", layout.SCHEDULED + name),
            ("ZCARD", layout.DEFERRED + name),
            ("ZCOUNT", layout.FINISHED + name, "(0", "+inf"),
            ("ZCARD", layout.FAILED + name),
            ("ZCARD", layout.CANCELED + name),
            ("LINDEX", layout.QUEUE + name, 0),
            ("SCARD", layout.WORKERS_OF + name),
        ]
    )
    states = (
        State.QUEUED,
        State.RUNNING,
        State.SCHEDULED,
        State.BLOCKED,
        State.SUCCEEDED,
        State.FAILED,
        State.CANCELLED,
    )
    oldest, crew = counts[7], counts[8]
    if not any(counts[:7]) and not crew and not paused:
        return None
    at = store.line.command("HGET", layout.JOB + oldest.decode(), FIELDS["created_at"]) if oldest else None
    return QueueRecord(
        name=name, counts=dict(zip(states, counts, strict=False)), oldest_at=moment_of(at), paused=paused
    )


# --- workers


def workers(store: Home) -> list[WorkerRecord]:
    """Return the workers that are alive, stock ones too: those run one job at a time."""
    layout = store.layout
    keys = sorted(key.decode() for key in store.line.command("SMEMBERS", layout.WORKERS))
    if not keys:
        return []
    replies = store.line.commands(
        [*[("HGETALL", key) for key in keys], *[("SCARD", f"{key}:executions") for key in keys]]
    )
    found = []
    for n, key in enumerate(keys):
        flat = replies[n]
        fields = {flat[i].decode(): flat[i + 1].decode("utf-8", "replace") for i in range(0, len(flat), 2)}
        if fields and FIELDS["death"] not in fields:
            found.append(_worker(key[len(layout.WORKER) :], fields, replies[len(keys) + n]))
    return found


def _worker(name: str, fields: dict[str, str], running: int) -> WorkerRecord:
    def number(word: str) -> int:
        text = fields.get(FIELDS[word], "")
        return int(text) if text.isdecimal() else 0

    return WorkerRecord(
        name=name,
        host=fields.get(FIELDS["hostname"], ""),
        pid=number("pid"),
        queues=tuple(part for part in fields.get(FIELDS["queues"], "").split(",") if part),
        processes=number("processes") or 1,
        version=fields.get(FIELDS["version"], "").removeprefix("taskq "),
        started_at=moment_of(fields.get(FIELDS["birth"], "").encode()) or 0.0,
        seen_at=moment_of(fields.get(FIELDS["last_heartbeat"], "").encode()) or 0.0,
        running=running,
        succeeded=number("succeeded"),
        failed=number("failed"),
        stopping=number("stopping") == 1,
    )
