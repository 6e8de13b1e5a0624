"""Garbage in the tables of a queue file, whatever tables and columns it has."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taskq.failure import Failure
from taskq.states import State
from taskq.store import ProgressUpdate
from tests.store_steps import job, said, take, tell

if TYPE_CHECKING:
    from collections.abc import Collection

    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import Claim, WorkerSession
    from tests.fuzz.garbage import Garbage

__all__ = ["Rows", "filled"]

#: A job that is too large to stand in its row.
LARGE = b"x" * 3_000


class Rows:
    """The tables behind a connection."""

    def __init__(self, connection: sqlite3.Connection, garbage: Garbage, *, but: Collection[str] = ()) -> None:
        """Look up what tables there are; `but`: those that are left alone."""
        self._connection = connection
        self._garbage = garbage
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        #: The columns of each table, and those of its key.
        self.tables: dict[str, tuple[list[str], list[str]]] = {}
        for name in sorted({*names} - {*but}):
            columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
            keys = [column[1] for column in columns if column[5]] or ["rowid"]
            self.tables[name] = [column[1] for column in columns], keys

    def spoil(self) -> None:
        """Put garbage into one column of some row, or a row of garbage into a table."""
        pick = self._garbage.random
        table = "jobs" if pick.random() < 0.5 else pick.choice(sorted(self.tables))
        columns, keys = self.tables[table]
        with suppress(sqlite3.IntegrityError, sqlite3.DataError):  # SQLite refuses some: a double key, no number
            if table != "jobs" and pick.random() < 0.3:
                marks, values = zip(*(self._value() for _ in columns), strict=True)
                self._run(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join(marks)})", *values)  # noqa: S608 - names of the file itself
                return
            count = self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - names of the file itself
            mark, value = self._value()
            key = ", ".join(keys)
            row = f"({key}) = (SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 OFFSET ?)"  # noqa: S608 - names of the file itself
            at = pick.randrange(max(1, count))
            self._run(f"UPDATE {table} SET {pick.choice(columns)} = {mark} WHERE {row}", value, at)  # noqa: S608 - names of the file itself

    def _value(self) -> tuple[str, Any]:
        """Return a mark for a statement, and its value: bytes may stand there as text too."""
        value = self._garbage.value()
        as_text = isinstance(value, bytes) and self._garbage.random.random() < 0.5
        return ("CAST(? AS TEXT)" if as_text else "?"), value

    def _run(self, statement: str, *values: Any) -> None:
        self._connection.execute(statement, values)

    def clear(self) -> None:
        """Delete all rows but those of workers, which write theirs again only when they see that they lack."""
        for table in self.tables:
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of the file itself


def filled(store: SQLiteStore, first: WorkerSession, second: WorkerSession, turn: int) -> tuple[list[str], list[Claim]]:
    """Put jobs of all kinds, so that every table has rows; return their ids, and what was claimed of them."""
    names = [f"{kind}{turn}-{n}" for n in range(6) for kind in ("plain", "large", "late", "short", "keyed", "needing")]
    for name in names:
        kind = name.rstrip("0123456789-")
        options: dict[str, Any] = {
            "late": {"delay": 3_600.0},
            "short": {"expires": 60.0, "result_ttl": 60.0},
            "keyed": {"key": name},
        }.get(kind, {})
        needs = [name.replace("needing", "plain")] if kind == "needing" else []
        store.put([job(name, envelope=LARGE if kind == "large" else b"e", depends_on=needs, **options)])
    claims = take(first, 12) + take(second, 6)
    updates = [
        ProgressUpdate(id=one.id, token=one.token, progress=(1, 2), meta=b"\x80", log=b"line\n") for one in claims
    ]
    first.poll([], updates[:12], 0)
    first.begin([(one.id, one.token) for one in claims[:3]])
    store.cancel([one.id for one in claims[3:5]])
    failure = Failure.from_exception(ValueError("no good"))
    tell(first, said(claims[5]), said(claims[6], State.FAILED, failure=failure), said(claims[7], State.CANCELLED))
    tell(second, said(claims[12], State.QUEUED, refused=True, failure=failure))
    store.pause(f"paused{turn}")
    return names, claims
