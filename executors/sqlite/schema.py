"""The tables of a queue file, and the steps that lead an older file to them.

    jobs     one row a job, from its submit until it is forgotten
    blobs    envelopes too large to be copied at each change of their row
    needs    dependent ─▶ the job it waits for        wishes  running jobs that somebody wants cancelled
    logs     what jobs have printed, in pieces        workers, paused
    refusals workers that cannot run a job, which is left to others
    inbox    up to where the append log has been ingested into `jobs`

`n` numbers the jobs in the order of their submits; all tables name a job by it. `PRAGMA user_version` is the schema's
version: a newer one is refused, an older one is led up step by step, in one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from taskq.states import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

#: What runs a statement: `execute` of a connection or of a transaction.
Execute: TypeAlias = "Callable[..., sqlite3.Cursor]"

__all__ = [
    "APPLICATION_ID",
    "BLOCKED",
    "CANCELLED",
    "FAILED",
    "QUEUED",
    "RUNNING",
    "SCHEDULED",
    "STATES",
    "STEPS",
    "SUCCEEDED",
    "VERSION",
    "Execute",
    "code_of",
    "migrate",
]

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

#: The mark of the append log, one row; see `inbox`.
_SECOND = """
CREATE TABLE inbox (salt INTEGER NOT NULL, upto INTEGER NOT NULL, chain INTEGER NOT NULL);
INSERT INTO inbox (salt, upto, chain) VALUES (0, 0, 0);
"""

#: Who has refused which job; why the last one did stands in the job's `failure` until it ends.
_THIRD = """
CREATE TABLE refusals (n INTEGER NOT NULL, worker TEXT NOT NULL, PRIMARY KEY (n, worker)) WITHOUT ROWID;
"""

#: Jobs whose worker has said that they begin, see `WorkerSession.begin`; and an index of those that have crashed.
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
