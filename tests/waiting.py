"""Wait in tests: poll with a bound, and say what did not happen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Seconds until a wait is given up. Far above what any wait takes, below the 60 s at which pytest-timeout fires.
PATIENCE = 30.0

#: Seconds between two looks; short beside everything that is waited for, long enough to leave the CPUs alone.
INTERVAL = 0.005


def eventually(look: Callable[[], T | None], what: str, within: float = PATIENCE) -> T:
    """Return the first true value that `look` gives.

    Raises:
        AssertionError: it gave none within so many seconds; the message names `what` was waited for.
    """
    deadline = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within:g} s in vain: {what}; last seen: {found!r}")
        time.sleep(INTERVAL)
