"""Garbage in the tables of a queue file, whatever tables and columns it has."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.fuzz.garbage import Garbage

__all__ = ["Rows"]


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
