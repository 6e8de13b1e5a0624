"""What there is in the store: jobs, queues and workers, read from RQ's registries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskq.executors.rq.connection import as_text
from taskq.executors.rq.keys import FIELDS
from taskq.executors.rq.records import _moment as moment_of
from taskq.executors.rq.records import whole_number
from taskq.states import State
from taskq.store import QueueRecord, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from taskq.executors.rq.client import Backend
    from taskq.store import JobQuery, JobRecord

__all__ = ["find_jobs", "queues", "some_queues", "workers"]

#: Ids read from one registry at most, when a filter has to look at many jobs to find few.
DEPTH: Final = 20_000

#: Queues that are read in one round trip; and those that are looked at for jobs of any queue.
TOGETHER: Final = 1_000

#: The states whose jobs are counted, in the order of the commands.
COUNTED: Final = (
    State.QUEUED,
    State.RUNNING,
    State.SCHEDULED,
    State.BLOCKED,
    State.SUCCEEDED,
    State.FAILED,
    State.CANCELLED,
)


def _looked_at(store: Backend) -> list[str]:
    """Return the names of the queues in which jobs of any queue are looked for: all, unless there are very many."""
    paused, served, others = _names_of(store, TOGETHER)
    return list(dict.fromkeys((*sorted(paused), *sorted(served), *sorted(others))))[:TOGETHER]


# --- jobs


def find_jobs(store: Backend, query: JobQuery) -> list[JobRecord]:
    """Return the jobs that a query asks for, without payloads, newest first."""
    names = [query.queue] if query.queue is not None else _looked_at(store)
    states = frozenset(query.states) or frozenset(State)
    end = query.offset + query.limit
    depth = min(DEPTH, max(end, 100) if query.task is None else DEPTH)
    found = [record for record in store.get(_ids(store, names, states, depth)) if record is not None]
    kept = [record for record in found if record.state in states and query.task in (None, record.task)]
    kept.sort(key=lambda record: (record.submitted_at or 0.0, record.id), reverse=True)
    return kept[query.offset : end]


def _ids(store: Backend, names: list[str], states: frozenset[State], depth: int) -> list[str]:
    """Return the ids of the newest jobs in each registry that has jobs of these states."""
    commands = [command for name in names for command in _reads(store, name, states, depth)]
    replies = store.client.commands(commands) if commands else []
    ids = (as_text(entry).partition(":")[0] for reply in replies for entry in reply)
    return list(dict.fromkeys(ids))


def _reads(store: Backend, name: str, states: frozenset[State], depth: int) -> list[tuple[Any, ...]]:
    keys = store.redis_keys
    registries = {
        State.RUNNING: (keys.WIP,),
        State.SCHEDULED: (keys.SCHEDULED,),
        State.BLOCKED: (keys.DEFERRED,),
        State.SUCCEEDED: (keys.FINISHED,),
        State.FAILED: (keys.FAILED,),
        State.CANCELLED: (keys.CANCELED, keys.FAILED),
    }
    commands: list[tuple[Any, ...]] = []
    if State.QUEUED in states:
        commands += [("LRANGE", keys.QUEUE + name, -depth, -1), ("ZRANGE", keys.READY + name, 0, depth)]
    names = dict.fromkeys(key for state in State if state in states for key in registries.get(state, ()))
    return commands + [("ZREVRANGE", key + name, 0, depth - 1) for key in names]


# --- queues


def queues(store: Backend) -> list[QueueRecord]:
    """Return all queues that have jobs, workers or a pause, by name."""
    paused, served, others = _names_of(store)
    return _records(store, sorted({*paused, *served, *others}), paused)


def some_queues(store: Backend, most: int, first: Collection[str]) -> tuple[list[QueueRecord], int]:
    """Return the queues of no more than `most` names, and how many names were left out."""
    paused, served, others = _names_of(store, most)
    names = list(dict.fromkeys((*first, *sorted(paused), *sorted(served), *sorted(others))))[:most]
    known = store.client.command("SCARD", store.redis_keys.QUEUES)
    return _records(store, sorted(names), paused), max(0, known - len(names))


def _names_of(store: Backend, most: int | None = None) -> tuple[set[str], set[str], set[str]]:
    """Return the names of queues that are paused, that workers serve, and that RQ knows; not many more than `most`."""
    keys = store.redis_keys
    start = len(keys.QUEUE)
    reads = [_members(store, key, most) for key in (keys.QUEUES, keys.PAUSED, keys.WORKERS)]
    members, paused, worker_keys = reads
    lists = store.client.commands([("HGET", key, FIELDS["queues"]) for key in worker_keys]) if worker_keys else []
    served = {name for entry in lists if entry for name in as_text(entry).split(",")}
    return set(map(as_text, paused)), served, {as_text(key)[start:] for key in members}


def _members(store: Backend, key: str, most: int | None) -> list[bytes]:
    """Return the members of a set: all, or where there are far more than `most`, about so many."""
    if most is None or store.client.command("SCARD", key) <= most * 2:
        return list(store.client.command("SMEMBERS", key))
    return list(store.client.command("SSCAN", key, 0, "COUNT", most)[1])


def _records(store: Backend, names: Sequence[str], paused: Collection[str]) -> list[QueueRecord]:
    """Return the queues of these names, but those that have nothing; read in few round trips."""
    found: list[QueueRecord] = []
    for at in range(0, len(names), TOGETHER):
        part = names[at : at + TOGETHER]
        replies = store.client.commands([command for name in part for command in _counts(store, name)])
        size = len(replies) // len(part)
        rows = [replies[index * size : (index + 1) * size] for index in range(len(part))]
        oldest = {name: as_text(row[-2]) for name, row in zip(part, rows, strict=True) if row[-2]}
        reads = [("HGET", store.redis_keys.JOB + job_id, FIELDS["created_at"]) for job_id in oldest.values()]
        instants = dict(zip(oldest, store.client.commands(reads) if reads else [], strict=True))
        found += [
            QueueRecord(
                name=name,
                counts=dict(zip(COUNTED, row, strict=False)),
                oldest_at=moment_of(instants.get(name)),
                paused=name in paused,
            )
            for name, row in zip(part, rows, strict=True)
            if any(row[: len(COUNTED)]) or row[-1] or name in paused
        ]
    return found


def _counts(store: Backend, name: str) -> list[tuple[Any, ...]]:
    """Return the commands for a queue: how many jobs in each state of COUNTED, the oldest, how many workers."""
    keys = store.redis_keys
    return [
        ("LLEN", keys.QUEUE + name),
        ("ZCARD", keys.WIP + name),
        ("ZCARD", keys.SCHEDULED + name),
        ("ZCARD", keys.DEFERRED + name),
        ("ZCOUNT", keys.FINISHED + name, "(0", "+inf"),
        ("ZCARD", keys.FAILED + name),
        ("ZCARD", keys.CANCELED + name),
        ("LINDEX", keys.QUEUE + name, 0),
        ("SCARD", keys.WORKERS_OF + name),
    ]


# --- workers


def workers(store: Backend) -> list[WorkerRecord]:
    """Return the workers that are alive, stock ones too: those run one job at a time."""
    keys = store.redis_keys
    names = sorted(map(as_text, store.client.command("SMEMBERS", keys.WORKERS)))
    if not names:
        return []
    replies = store.client.commands(
        [*[("HGETALL", key) for key in names], *[("SCARD", f"{key}:executions") for key in names]]
    )
    found = []
    for n, key in enumerate(names):
        flat = replies[n]
        fields = {as_text(flat[i]): flat[i + 1].decode("utf-8", "replace") for i in range(0, len(flat), 2)}
        if fields and FIELDS["death"] not in fields:
            found.append(_worker(key[len(keys.WORKER) :], fields, replies[len(names) + n]))
    return found


def _worker(name: str, fields: dict[str, str], running: int) -> WorkerRecord:
    def number(word: str) -> int:
        return whole_number(fields.get(FIELDS[word], "").encode(), 0)

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
