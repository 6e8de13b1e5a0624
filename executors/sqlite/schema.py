"""The tables of a queue file, the steps that lead an older file to them, and tests of the values in them.

    jobs     one row a job, from its submit until it is forgotten
    blobs    envelopes too large to be copied at each change of their row
    needs    dependent ─▶ the job it waits for        wishes  running jobs that somebody wants cancelled
    logs     what jobs have printed, in pieces        workers, paused
    refusals workers that cannot run a job, which is left to others
    begun    jobs whose worker has told that they begin, or died with them in its hands
    inbox    up to where the append log has been ingested into `jobs`

`n` numbers the jobs in the order of their submits; all tables name a job by it. `PRAGMA user_version` is the schema's
version: a newer one is refused, an older one is led up step by step, in one transaction.

SQLite keeps anything in any column, and others may write to the file. In its order all numbers stand below all texts,
and these below all bytes: a test against LATEST or HIGHEST leaves out what is no number.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from taskq.states import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from taskq.options import JobOptions
    from taskq.store import NewJob

__all__ = [
    "APPLICATION_ID",
    "BLOCKED",
    "CANCELLED",
    "FAILED",
    "HIGHEST",
    "LATEST",
    "QUEUED",
    "RUNNING",
    "SCHEDULED",
    "STATES",
    "STEPS",
    "SUCCEEDED",
    "VERSION",
    "Execute",
    "as_count",
    "as_moment",
    "as_state",
    "as_text",
    "code_of",
    "fits",
    "is_count",
    "is_number",
    "migrate",
]

#: What runs a statement: `execute` of a connection or of a transaction.
Execute: TypeAlias = "Callable[..., sqlite3.Cursor]"


#: "task" in ASCII: `file queue.db` and we ourselves tell a queue from any other SQLite file by it.
APPLICATION_ID = 0x7461736B

#: What the column `state` holds. The order matters: below RUNNING a job waits, above it it has ended.
SCHEDULED, BLOCKED, QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = range(1, 8)

STATES: dict[int, State] = {
    SCHEDULED: State.SCHEDULED,
    BLOCKED: State.BLOCKED,
    QUEUED: State.QUEUED,
    RUNNING: State.RUNNING,
    SUCCEEDED: State.SUCCEEDED,
    FAILED: State.FAILED,
    CANCELLED: State.CANCELLED,
}

_CODES = {state: code for code, state in STATES.items()}

#: `rank` is the negated priority, so that an index in rising order gives the jobs as they are to be taken. `fence`
#: rises with every claim and begins at a random number, so that no token of a forgotten job fits a later one.
#: The payloads stand last: whoever reads the columns before them never touches their pages.
_FIRST = """
CREATE TABLE jobs (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    state INTEGER NOT NULL,
    queue TEXT NOT NULL,
    rank INTEGER NOT NULL,
    task TEXT NOT NULL,
    label TEXT,
    fence INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0,
    max_crashes INTEGER NOT NULL,
    submitted REAL NOT NULL,
    due REAL,
    started REAL,
    ended REAL,
    expires REAL,
    ttl REAL,
    drop_at REAL,
    end_no INTEGER,
    ear INTEGER,
    refused REAL,
    key TEXT,
    needs TEXT,
    worker TEXT,
    done INTEGER,
    total INTEGER,
    meta BLOB,
    failure BLOB,
    result BLOB,
    envelope BLOB
);
CREATE UNIQUE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_line ON jobs (state, queue, rank);
CREATE INDEX jobs_due ON jobs (due) WHERE state = 1;
CREATE UNIQUE INDEX jobs_key ON jobs (key) WHERE key IS NOT NULL AND state < 5;
CREATE INDEX jobs_expires ON jobs (expires) WHERE expires IS NOT NULL AND state < 4;
CREATE INDEX jobs_end ON jobs (end_no) WHERE end_no IS NOT NULL;
CREATE INDEX jobs_drop ON jobs (drop_at) WHERE drop_at IS NOT NULL;
CREATE TABLE blobs (n INTEGER PRIMARY KEY, envelope BLOB NOT NULL);
CREATE TABLE needs (
    needed TEXT NOT NULL, n INTEGER NOT NULL, met INTEGER NOT NULL, PRIMARY KEY (needed, n)
) WITHOUT ROWID;
CREATE INDEX needs_of ON needs (n);
CREATE TABLE wishes (n INTEGER PRIMARY KEY, worker TEXT NOT NULL, kill INTEGER NOT NULL);
CREATE TABLE logs (n INTEGER NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (n, start));
CREATE TABLE log_sizes (n INTEGER PRIMARY KEY, kept INTEGER NOT NULL, left_out INTEGER NOT NULL);
CREATE TABLE paused (queue TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE workers (
    slot INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    queues TEXT NOT NULL,
    processes INTEGER NOT NULL,
    version TEXT NOT NULL,
    started REAL NOT NULL,
    seen REAL NOT NULL,
    renewed REAL NOT NULL,
    running INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    stopping INTEGER NOT NULL
);
"""

#: The mark of the append log, one row; see `append_log`.
_SECOND = """
CREATE TABLE inbox (salt INTEGER NOT NULL, upto INTEGER NOT NULL, chain INTEGER NOT NULL);
INSERT INTO inbox (salt, upto, chain) VALUES (0, 0, 0);
"""

#: Who has refused which job; why the last one did stands in the job's `failure` until it ends.
_THIRD = """
CREATE TABLE refusals (n INTEGER NOT NULL, worker TEXT NOT NULL, PRIMARY KEY (n, worker)) WITHOUT ROWID;
"""

#: Jobs whose worker has told that they begin, see `WorkerSession.begin`, by the fence of that claim; and an index of
#: those that have crashed. Of a job that is suspect (`store.blame`) `fence` is 0, or minus that of the claim whose
#: worker is to tell: older programs, which know no suspects, look for the fence of a claim alone.
_FOURTH = """
CREATE TABLE begun (n INTEGER PRIMARY KEY, fence INTEGER NOT NULL);
CREATE INDEX jobs_crashed ON jobs (queue) WHERE crashes > 0 AND state = 3;
"""

#: The statements that lead from each version to the next; the first makes the tables in an empty file.
STEPS: tuple[str, ...] = (_FIRST, _SECOND, _THIRD, _FOURTH)

#: The version of a file that this code reads and writes.
VERSION = len(STEPS)


def code_of(state: State) -> int:
    """Return what the column `state` holds for a state."""
    return _CODES[state]


def migrate(connection: sqlite3.Connection, version: int, steps: tuple[str, ...] = STEPS) -> None:
    """Lead a file from `version` to the newest, within the transaction that is open."""
    for step in steps[version:]:
        for statement in step.split(";\n"):
            if statement.strip():
                connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(steps)}")


#: Above every moment that is one.
LATEST = 1e15

#: The end of the year 9998, in any zone.
LAST_MOMENT = 253_370_764_800.0

#: Above every number that counts something here: doubles have it exactly.
HIGHEST = 1 << 53


def is_number(value: Any) -> bool:
    """Tell whether a value is a number."""
    return type(value) is float or type(value) is int


def fits(value: object, kind: type) -> bool:
    """Tell whether a column holds what its kind says, or nothing: SQLite itself takes anything."""
    return value is None or type(value) is kind


def is_count(value: Any) -> bool:
    """Tell whether a value counts something."""
    return type(value) is int and 0 <= value < HIGHEST


def as_count(value: Any) -> int:
    """Return a count, 0 for what is none."""
    return value if is_count(value) else 0


def as_text(value: Any) -> str:
    """Return a text, and what is none in a form that can be shown."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def as_moment(value: float | None) -> float | None:
    """Return a moment within the years that calendars have; None for None."""
    return None if value is None else min(max(value, 0.0), LAST_MOMENT)


def as_state(value: Any) -> int:
    """Return the code of a state; a job whose state is none is one that has failed."""
    return value if type(value) is int and value in STATES else FAILED


# --- statements of many values

#: Values of one statement; SQLite takes 32,766, older ones 999.
CHUNK = 500
#: Numbers in a list for `IN` are a multiple of these.
LISTED = 20


def chunks(values: Sequence[Any], size: int = CHUNK) -> Iterator[Sequence[Any]]:
    """Part a sequence into pieces that fit a statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def listed(part: Sequence[int]) -> tuple[str, Sequence[int]]:
    """Return the marks for `IN`, and the numbers for them: filled up, so that few statements have to be prepared."""
    size = len(part)
    if size == 1:
        return "(?)", part
    size += -size % LISTED
    return f"({', '.join('?' * size)})", [*part, *[part[-1]] * (size - len(part))]


# --- new rows

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


def insert_singly(
    executemany: Callable[..., sqlite3.Cursor], rows: Iterable[tuple[Any, ...]], refusals: tuple[type[Exception], ...]
) -> int:
    """Insert the rows that SQLite takes, and pass over those of which it raises one of `refusals`; return how many."""
    taken = 0
    for row in rows:
        with suppress(*refusals):
            insert(executemany, [row])
            taken += 1
    return taken


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
