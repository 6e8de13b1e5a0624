"""Look-ahead: which jobs to ask for together with one, where a program reads results one after the other.

Asking for a job costs a turn of the listener's thread and a call of the store, for one as for hundreds. So the jobs
whose handles were made next are asked for with it: one at first, then four times as many each time all had ended.
One that has not puts the look-ahead off, so that no more is asked for in vain than was of use.
"""

from __future__ import annotations

from collections import deque
from itertools import dropwhile
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HeldHandles", "LookAhead"]

#: Most jobs that are asked for ahead of one.
MOST: Final = 500

#: Handles that the program holds for each job asked for out of order, before their order is looked up once more: what
#: that costs is spread over the asking.
HELD_PER_ASK: Final = 1000

#: Jobs asked for before their order is looked up again after results that were too large.
PUT_OFF: Final = 100


class HeldHandles(Protocol):
    """The handles that the program holds, in the order in which they were made."""

    def __len__(self) -> int: ...

    def ids(self) -> Sequence[str]:
        """Return the ids of their jobs, also of some that are not held any more."""

    def is_open(self, job_id: str) -> bool:
        """Return whether the handle of a job is held, and its end has not been heard of."""


class LookAhead:
    """The next jobs of a program that asks in order. One thread uses it."""

    def __init__(self, held: HeldHandles) -> None:
        self._held = held
        #: The jobs after those that were asked for, in order.
        self._coming: deque[str] = deque()
        #: What was asked for last.
        self._last: set[str] = set()
        self._window = 0
        self._asked_out_of_order = 0

    def after(self, job_id: str) -> list[str]:
        """Return what to ask for together with a job that somebody waits for."""
        coming, is_open = self._coming, self._held.is_open
        while coming and coming[0] != job_id and not is_open(coming[0]):
            coming.popleft()
        if coming and coming[0] == job_id:
            coming.popleft()
            self._window = min(MOST, 4 * self._window or 1)
        elif job_id in self._last:  # it was asked for, and has not ended
            self._window = 0
            return []
        elif not self._begin(job_id):
            return []
        coming = self._coming
        ahead = [coming.popleft() for _ in range(min(self._window, len(coming)))]
        self._last = {job_id, *ahead}
        return [each for each in ahead if is_open(each)]

    def end(self) -> None:
        """Look ahead no more in this order: its results are too large to be kept for one who may ask for them."""
        self._coming.clear()
        self._last.clear()
        self._asked_out_of_order = -PUT_OFF

    def _begin(self, job_id: str) -> bool:
        """Look up the order from this job on, unless that would cost more than it can save."""
        self._asked_out_of_order += 1
        if self._asked_out_of_order <= 0 or self._asked_out_of_order * HELD_PER_ASK < len(self._held):
            return False
        self._asked_out_of_order = 0
        self._coming = deque(dropwhile(job_id.__ne__, self._held.ids()))
        if self._coming:
            self._coming.popleft()
        self._window = 1
        return True
