"""New jobs as rows of the table `jobs`: what is known of one when it is put, and the statements that insert it."""

from __future__ import annotations

import os
import random
from itertools import groupby
from typing import TYPE_CHECKING, Any

from taskq.executors.sqlite.schema import QUEUED, SCHEDULED

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from taskq.options import JobOptions
    from taskq.store import NewJob

__all__ = ["INLINE", "insert", "row_of", "statement"]

#: Bytes of an envelope up to which it stands in the job's row: a change of the row copies it.
INLINE = 1024

#: The first fence of a job is drawn below this; see `schema`.
FENCES = 1 << 30

#: The columns of every new job, and those that most have nothing in: to bind a value takes a tenth of a row's time.
_SHORT = "id, queue, rank, task, label, fence, max_crashes, submitted, ear, envelope"
_LONG = f"{_SHORT}, state, due, expires, ttl, key, needs"
_VALUES = "INSERT INTO jobs ({}) VALUES ({}) ON CONFLICT (id) DO NOTHING"
_SHORT_LENGTH = _SHORT.count(",") + 1
_INSERT_SHORT = _VALUES.format(f"{_SHORT}, state", "?, " * _SHORT_LENGTH + str(QUEUED))
_INSERT_LONG = _VALUES.format(_LONG, ", ".join("?" * (_LONG.count(",") + 1)))

_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)


def row_of(job: NewJob, reply_to: int, now: float) -> tuple[Any, ...]:
    """Return what `insert` takes for a job that is put now."""
    options = job.options
    envelope = job.envelope
    row = (
        job.id,
        options.queue,
        -options.priority,
        job.task,
        _clean(job.label),
        int(_random.random() * FENCES),
        options.max_crashes,
        now,
        reply_to or None,
        envelope if len(envelope) <= INLINE else None,
    )
    due = _due(options, now)
    expires, ttl, key = options.expires, options.result_ttl, options.key
    if due is None and expires is None and ttl is None and key is None and not job.depends_on:
        return row
    state = QUEUED if due is None else SCHEDULED
    return (*row, state, due, None if expires is None else now + expires, ttl, key, " ".join(job.depends_on) or None)


def insert(executemany: Callable[..., sqlite3.Cursor], rows: Iterable[tuple[Any, ...]]) -> int:
    """Insert rows in their order, but for those whose id is there; return how many that are."""
    return sum([executemany(statement(length), some).rowcount for length, some in groupby(rows, len)])


def statement(length: int) -> str:
    """Return the statement that inserts a row of so many values, unless its id is there."""
    return _INSERT_SHORT if length == _SHORT_LENGTH else _INSERT_LONG


def _clean(label: str) -> str | None:
    """Return a label as UTF-8 can carry it: it may hold a file's name."""
    if label.isascii():
        return label or None
    return label.encode("utf-8", "backslashreplace").decode()


def _due(options: JobOptions, now: float) -> float | None:
    if options.delay:
        return now + options.delay
    if options.at is not None:
        at = options.at.timestamp()
        return at if at > now else None
    return None
