"""Ids of jobs: 26 characters that sort by the time at which they were made, as ULIDs.

    01JABCDEFG  HJKMNPQRSTVW  0001
    ms since    random,       counted up
    1970        each second   within a ms

Made by clients, so that a submit whose answer was lost can be sent again and is no second job. Characters are
those of Crockford's base 32. Within a process each id is greater than the last one, also when the clock is set back.
"""

from __future__ import annotations

import os
from itertools import count
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


class Moment:
    """A millisecond in which ids are made, and the next such."""

    __slots__ = ("after", "count", "ms", "of_second", "prefix", "random", "second")

    def __init__(self, ms: int, before: Moment | None = None) -> None:
        self.ms = ms
        self.count = count()
        self.after: dict[int, Moment] = {}
        self.of_second: str
        self.random: str
        self.second, rest = divmod(ms, len(PAIRS))
        if before is not None and before.second == self.second:
            self.of_second, self.random = before.of_second, before.random
        else:
            self.of_second = _written(self.second, TIME_LENGTH - 2)
            self.random = _written(int.from_bytes(os.urandom(8), "big"), RANDOM_LENGTH)
        self.prefix = f"{self.of_second}{PAIRS[rest]}{self.random}"


class Source:
    """The ids of one process, made without a lock, which an interrupted thread could not give back."""

    def __init__(self) -> None:
        #: The millisecond in which ids are made at present.
        self.now = Moment(0)

    def next(self) -> str:
        """Return a new id, greater than all before."""
        ms = time_ns() // 1_000_000
        moment = self.now
        while ms > moment.ms or moment.after or (number := next(moment.count)) > LAST:
            fresh = Moment(max(ms, moment.ms + 1), moment)
            self.now = moment = moment.after.setdefault(0, fresh)  # of several threads one is first
        return f"{moment.prefix}{PAIRS[number >> 10]}{PAIRS[number & 1023]}"


def _written(number: int, length: int) -> str:
    """Return the last characters of a number."""
    return "".join(ALPHABET[number >> shift & 31] for shift in range(BITS * (length - 1), -1, -BITS))


_source = Source()


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
    """Start a new sequence in a forked process: its parent goes on with the old one."""
    global _source  # noqa: PLW0603  # the one source of the process
    _source = Source()


os.register_at_fork(after_in_child=_renew)
