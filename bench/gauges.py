"""What scenarios of all suites measure and check with."""

from __future__ import annotations

import resource
from pathlib import Path

#: Bytes.
MEGABYTE = 1_000_000


class PeakMemory:
    """The growth of this process' resident memory from now on.

    Linux tells the peak of this process alone (VmHWM); `ru_maxrss`, the fallback, may begin at the parent's.
    """

    def __init__(self) -> None:
        self.before = self._read("VmRSS") or self._from_usage()

    def grown(self) -> int:
        """Return the bytes by which the peak lies above the start."""
        return max(0, (self._read("VmHWM") or self._from_usage()) - self.before)

    @staticmethod
    def _read(field: str) -> int | None:
        status = Path("/proc/self/status")
        if not status.exists():
            return None
        lines = (line.split() for line in status.read_text(encoding="ascii", errors="replace").splitlines())
        return next((int(words[1]) * 1024 for words in lines if words[0] == field + ":"), None)

    @staticmethod
    def _from_usage() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def percentile(values: list[float], percent: int) -> float:
    """Return the value below which so many percent of the values lie."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def same(found: object, expected: object) -> None:
    """Raise when the system returned something wrong: a fast wrong answer is no result."""
    if found != expected:
        raise RuntimeError(f"wrong results: {str(found)[:60]} instead of {str(expected)[:60]}")
