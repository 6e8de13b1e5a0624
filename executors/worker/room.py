"""How much work a worker takes ahead: measured in time, not in jobs.

Enough that no process waits for the store, little enough that what is taken starts within moments: a job that sits
here behind a long one could be running elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskq.executors.worker.hands import UNKNOWN_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.executors.worker.errand import Errand

__all__ = ["Room"]

#: Nanoseconds of work that each process may have in hand.
_AHEAD_NS: Final = 150_000_000.0
#: Jobs that one poll takes at the most: bounds how long it keeps the store busy.
_CLAIM_MAX: Final = 500
#: Jobs that one poll takes while all that it brings is refused unseen: thousands may stand before one that can run.
_PASSING: Final = 300
#: Jobs held at the most: bounds what a worker's death makes run again.
_HELD_MAX: Final = 2_000
#: Weight of the newest claims in the mean of what a job costs.
_WEIGHT: Final = 0.3


class Room:
    """Say how many more jobs to take. Pure: told all it needs."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._mean_ns = UNKNOWN_NS
        #: Whether all that was claimed last was refused unseen.
        self.passes = False

    def observe(self, errands: Sequence[Errand]) -> None:
        """Take note of what the jobs taken last are thought to cost."""
        if errands:
            mean = sum(errand.cost for errand in errands) / len(errands)
            self._mean_ns += _WEIGHT * (mean - self._mean_ns)

    def want(self, held: int, ahead_ns: float) -> int:
        """Return how many jobs to take, when `held` are in hand that are thought to take `ahead_ns` together."""
        free_ns = self._processes * _AHEAD_NS - ahead_ns
        by_time = int(-(-free_ns // self._mean_ns)) if free_ns > 0 else 0
        if self.passes and by_time > 0:
            by_time = max(by_time, _PASSING)
        return max(0, min(max(by_time, self._processes - held), _CLAIM_MAX, _HELD_MAX - held))

    def has_plenty(self, ahead_ns: float, seconds: float) -> bool:
        """Tell whether every process has work for longer than so many seconds."""
        return ahead_ns > 2e9 * seconds * self._processes
