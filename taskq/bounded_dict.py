"""A bound on the size of a dict: its oldest entries are dropped, many at a time.

Dropping one for each new entry would cost a walk past all the slots at its front that were emptied before.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Final, TypeVar

__all__ = ["drop_oldest"]

K = TypeVar("K")

#: The part of the limit by which it may be exceeded.
_OVER: Final = 0.2


def drop_oldest(entries: dict[K, Any], limit: int) -> None:
    """Drop all but the `limit` newest entries, once there are a fifth more."""
    if len(entries) > limit * (1 + _OVER):
        for key in list(islice(entries, len(entries) - limit)):
            entries.pop(key, None)
