"""The jobs that all queues run. Each run leaves a record in a file, so that no library is asked what it did.

From the records the bench learns when the first job began, how many ran, and whether any ran twice. One write costs
about 1 us.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import work

if TYPE_CHECKING:
    from pathlib import Path

#: Milliseconds of CPU that `burn` takes.
BURN_MS = 10
#: The job's number, when it began (monotonic clock, which all processes share), its CPU seconds.
RECORD = struct.Struct("<qdd")


def _open() -> int | None:
    path = os.environ.get("BENCH_RECORDS")
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if path else None


FILE = _open()


def noop(number: int) -> int:
    """Do nothing; return the number."""
    _keep(number, time.monotonic(), 0.0)
    return number


def burn(number: int) -> int:
    """Compute for 10 ms; return the number."""
    began = time.monotonic()
    _keep(number, began, work.burn(BURN_MS))
    return number


def _keep(number: int, began: float, cpu: float) -> None:
    if FILE is not None:
        os.write(FILE, RECORD.pack(number, began, cpu))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a job."""

    number: int
    began: float
    cpu_s: float


def count(path: Path) -> int:
    """Return how many runs there were."""
    return path.stat().st_size // RECORD.size


def runs(path: Path) -> list[Run]:
    """Return all runs."""
    rows = RECORD.iter_unpack(path.read_bytes())
    return [Run(number=number, began=began, cpu_s=cpu) for number, began, cpu in rows]
