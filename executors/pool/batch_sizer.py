"""How many jobs of one function go to a child at once: steered by measured time and bytes.

Few enough that a result never waits long behind its batch-mates, enough that the share of the parent is lost in the
noise: a frame costs it 0.2 ms, so one of 50 ms costs less than half a percent of a core. It must exceed the switch
interval of the interpreter (5 ms) by far: a busy user thread may keep the dispatcher waiting for that long.
"""

from __future__ import annotations

from typing import Final

#: Nanoseconds of work in one frame.
TARGET_NS: Final = 50_000_000
#: Nanoseconds of work below which the last frames are not shortened: less is not worth a message.
SHORT_NS: Final = 1_000_000
#: Jobs in one frame at the most: bounds the memory of a window of no-ops.
FRAME_MAX: Final = 8192
#: Bytes of arguments, or of results, in one frame: beyond, the caches lose more than fewer messages gain.
FRAME_BYTES: Final = 256 * 1024
#: A frame holds at most this many times the jobs of the last one, and one slow frame counts at most so much.
_STEP: Final = 4
#: Weight of the newest frame in the running mean.
_WEIGHT: Final = 0.3


class BatchSizer:
    """What was measured of one function. Written by the dispatcher alone, read by any thread."""

    __slots__ = ("_bytes", "_known_to", "last_ns", "ns")

    def __init__(self) -> None:
        #: Nanoseconds per job, running mean; None: not one frame is back yet.
        self.ns: float | None = None
        #: Nanoseconds per job of those whose outcomes came last.
        self.last_ns = 0.0
        self._bytes = 0.0
        self._known_to = 0

    def observe(self, jobs: int, elapsed_ns: int) -> None:
        """Take note that a frame of this many jobs took so long."""
        sample = elapsed_ns / jobs
        if self.ns is None:
            self.ns = sample
        else:
            self.ns += _WEIGHT * (min(sample, _STEP * self.ns) - self.ns)
        self._known_to = max(jobs, self._known_to)

    def observe_bytes(self, jobs: int, size: int) -> None:
        """Take note of the bytes that this many arguments or results took, whichever are larger."""
        sample = size / jobs
        self._bytes = max(sample, self._bytes + _WEIGHT * (sample - self._bytes))

    def frame(self) -> int:
        """Return how many jobs the next frame should hold."""
        if self.ns is None:
            return 1
        jobs = min(TARGET_NS / max(self.ns, 1.0), _STEP * self._known_to, FRAME_MAX)
        if self._bytes:
            jobs = min(jobs, FRAME_BYTES / self._bytes)
        return max(1, int(jobs))

    def share(self, left: int, frames: int) -> int:
        """Return how many jobs the next frame should hold, if so many are left and so many frames can be out.

        Fewer and fewer where the end is near, so that no child ends late.
        """
        shortest = SHORT_NS / max(self.ns or 1.0, 1.0)
        return min(self.frame(), max(left // frames, int(shortest), 1))

    def fits_behind(self, jobs: int) -> bool:
        """Tell whether so many jobs are short enough that another frame may wait behind them."""
        return self.ns is not None and jobs * self.ns < 1.5 * TARGET_NS
