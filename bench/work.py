"""The functions that run in the pools. Every system gets the same ones.

Imports next to nothing: the processes of a pool may import this module, and the test `start` counts that.
"""

from __future__ import annotations

import os
import time

#: Steps of `spin` that take 1 ms of CPU on this machine; the driver measures them and passes them on.
STEPS_PER_MS = int(os.environ.get("BENCH_STEPS", "10000"))


def increment(number: int) -> int:
    """Return the next number: a task that does nothing."""
    return number + 1


def echo(value: object) -> object:
    """Return the argument: a task that only moves data."""
    return value


def spin(steps: int) -> int:
    """Compute in plain Python, a fixed number of steps."""
    state = 1
    for step in range(steps):
        state = (state * 69069 + step) & 0x7FFFFFFF
    return state


def burn(milliseconds: int) -> float:
    """Spin for about so many milliseconds; return the CPU seconds that this thread really spent."""
    before = time.thread_time()
    spin(STEPS_PER_MS * milliseconds)
    return time.thread_time() - before


def burn_and_tell(item: list[int]) -> list[float]:
    """Take [index, milliseconds]; return [index, milliseconds, start, end, CPU seconds] (monotonic clock)."""
    index, milliseconds = item
    started = time.monotonic()
    cpu = burn(milliseconds)
    return [index, milliseconds, started, time.monotonic(), cpu]


def nap(seconds: float) -> int:
    """Sleep; return the id of the process."""
    time.sleep(seconds)
    return os.getpid()


def victim(path: str) -> str:
    """Write the id of this process to `path` and wait there to be killed; a second run returns at once."""
    from pathlib import Path

    if Path(path).exists():
        return "second run"
    new = Path(path + ".new")
    new.write_text(str(os.getpid()), encoding="ascii")
    new.replace(path)
    time.sleep(10)
    return "not killed"
