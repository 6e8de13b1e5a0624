"""Ids of jobs: 26 characters that sort by the time at which they were made, as ULIDs.

    01JABCDEFG  HJKMNPQRSTVW  0001
    ms since    drawn anew    counted up
    1970        each second   within a ms

Made by clients, so that a submit whose answer was lost can be sent again and is no second job. Characters are
those of Crockford's base 32. Within a process each id is greater than the last one, also when the clock is set back.
"""

from __future__ import annotations

import os
import threading
from time import time_ns
from typing import Final

__all__ = ["new_id", "time_of"]

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

#: Bits of one character; characters of each part.
BITS: Final = 5
TIME_LENGTH, RANDOM_LENGTH, COUNT_LENGTH = 10, 12, 4
LENGTH: Final = TIME_LENGTH + RANDOM_LENGTH + COUNT_LENGTH

#: Two characters for each number of ten bits: a count is written with two look-ups.
PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]

#: The last count of a millisecond.
LAST: Final = (1 << (BITS * COUNT_LENGTH)) - 1


class _Source:
    """Make the ids of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms = 0
        self._second = -1
        self._of_second = self._random = ""
        self._count = LAST
        self._prefix = ""

    def next(self) -> str:
        """Return a new id, greater than all before."""
        ms = time_ns() // 1_000_000
        with self._lock:
            if ms > self._ms or self._count == LAST:
                self._begin(max(ms, self._ms + 1))
            self._count = count = self._count + 1
            return f"{self._prefix}{PAIRS[count >> 10]}{PAIRS[count & 1023]}"

    def _begin(self, ms: int) -> None:
        second, rest = divmod(ms, len(PAIRS))
        if second != self._second:
            self._second = second
            self._of_second = _written(second, TIME_LENGTH - 2)
            self._random = _written(int.from_bytes(os.urandom(8), "big"), RANDOM_LENGTH)
        self._prefix = f"{self._of_second}{PAIRS[rest]}{self._random}"
        self._ms = ms
        self._count = -1


def _written(number: int, length: int) -> str:
    """Return the last characters of a number."""
    return "".join(ALPHABET[number >> shift & 31] for shift in range(BITS * (length - 1), -1, -BITS))


_source = _Source()


def new_id() -> str:
    """Return an id that no other process and no other call makes."""
    return _source.next()


def time_of(job_id: str) -> float | None:
    """Return when an id was made, in seconds since 1970, or None when it is none of ours."""
    if len(job_id) != LENGTH or not set(ALPHABET).issuperset(job_id):
        return None
    ms = 0
    for character in job_id[:TIME_LENGTH]:
        ms = ms << BITS | ALPHABET.index(character)
    return ms / 1000


def _renew() -> None:
    """Begin anew in a forked process: its parent goes on with what it had."""
    global _source  # noqa: PLW0603  # the one source of the process
    _source = _Source()


os.register_at_fork(after_in_child=_renew)
