"""Inputs of maps whose items are there without waiting."""

from __future__ import annotations

import sys
from collections import deque
from itertools import count, repeat
from typing import Any, Final

__all__ = ["is_at_hand"]

_CONTAINERS: Final = (list, tuple, range, str, bytes, bytearray, set, frozenset, dict, deque)
_VIEWS: Final[tuple[Any, ...]] = ({}.keys(), {}.values(), {}.items())
#: The types of which each step takes no time. Exactly these: a subclass may do anything.
_AT_HAND: Final = frozenset(
    {
        *_CONTAINERS,
        *(type(iter(kind())) for kind in _CONTAINERS if kind is not range),
        *(type(view) for view in _VIEWS),
        *(type(iter(view)) for view in _VIEWS),
        type(iter(range(0))),
        type(reversed([])),
        count,
        repeat,
    }
)


def is_at_hand(iterable: Any) -> bool:
    """Tell whether an input never waits; also true of one that can only be read in the thread that made it."""
    return type(iterable) in _AT_HAND or _is_cursor(iterable)


def _is_cursor(iterable: Any) -> bool:
    sqlite3 = sys.modules.get("sqlite3")
    return sqlite3 is not None and isinstance(iterable, sqlite3.Cursor)
