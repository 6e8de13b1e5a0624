"""The end of a burst: when nothing of a worker's queues waits or runs any more.

    a claim brought nothing ──▶ what remains?   something waits for its turn, or runs, or waits for what runs ──▶ go on
                                                retries wait for their time ──▶ drain: go on; else said, and the end
                                                nothing ──▶ the end

Jobs that run in other workers count too: they may be retried, given back, or let others go on that wait for them.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from taskq.log import get_logger

if TYPE_CHECKING:
    from taskq.executors.worker.link import Link
    from taskq.store import Remains

__all__ = ["Burst"]

log = get_logger("taskq.worker")

#: Seconds between two looks at what remains, while this worker has nothing to do.
_EVERY: Final = 0.25


class Burst:
    """Tell when a burst is over. `drain`: not while jobs that were started before wait for their time."""

    def __init__(self, link: Link, *, drain: bool) -> None:
        self._link = link
        self._drain = drain
        #: When to look next, by the monotonic clock.
        self.look_at = 0.0

    def is_over(self) -> bool:
        """Tell whether it is, when a claim has brought nothing and nothing is held; say what it leaves."""
        if monotonic() < self.look_at:
            return False
        self.look_at = monotonic() + _EVERY
        found = self._link.remains()
        if found is None or found.busy or (self._drain and found.again):
            return False
        _tell(found)
        return True


def _tell(left: Remains) -> None:
    if left.again:
        log.warning(
            "retries_left",
            jobs=left.again,
            due_in_s=round(max(0.0, left.first), 1),
            last_due_in_s=round(max(0.0, left.last), 1),
            cure="a later worker runs them; --drain waits for them",
        )
    if left.scheduled > left.again:
        log.info("scheduled_left", jobs=left.scheduled - left.again)
