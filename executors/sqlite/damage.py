"""Values of rows as what they ought to be: SQLite keeps anything in any column, and others may write to the file.

In SQLite's order all numbers stand below all texts, and these below all bytes. A test against LATEST or HIGHEST leaves
out what is no number.
"""

from __future__ import annotations

from typing import Any

from taskq.executors.sqlite.schema import FAILED, STATES

__all__ = ["HIGHEST", "LATEST", "as_count", "as_state", "as_text", "is_count", "is_number"]

#: Above every moment that is one.
LATEST = 1e15

#: Above every number that counts something here: doubles have it exactly.
HIGHEST = 1 << 53


def is_number(value: Any) -> bool:
    """Tell whether a value is a number."""
    return type(value) is float or type(value) is int


def is_count(value: Any) -> bool:
    """Tell whether a value counts something."""
    return type(value) is int and 0 <= value < HIGHEST


def as_count(value: Any) -> int:
    """Return a count, 0 for what is none."""
    return value if is_count(value) else 0


def as_text(value: Any) -> str:
    """Return a text, and what is none in a form that can be shown."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def as_state(value: Any) -> int:
    """Return the code of a state; a job whose state is none is one that has failed."""
    return value if type(value) is int and value in STATES else FAILED
