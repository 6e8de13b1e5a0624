"""Worker processes of one measurement, and the watch over their work."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.gauges import same
from bench.queues import jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.queues.jobs import Run

#: Seconds between two looks at the records.
LOOK_S = 0.004
#: The same while the end is far: looks take time from the workers.
LOOK_MAX_S = 0.1
#: Seconds that all jobs may take.
LIMIT_S = 70.0


class Workers:
    """Start the workers on entering, kill them on leaving."""

    def __init__(self, commands: list[list[str]]) -> None:
        """Remember how they start."""
        self._commands = commands
        self._output = Path(tempfile.gettempdir(), "workers")
        self._processes: list[subprocess.Popen[bytes]] = []
        self.started_at = 0.0

    def __enter__(self) -> Self:
        """Start them, each in a process group of its own."""
        self.started_at = time.monotonic()
        with self._output.open("wb") as output:
            for command in self._commands:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
                )
                self._processes.append(process)
        return self

    def __exit__(self, *_: object) -> None:
        """Kill them: what they would do at a gentle end is not measured."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def last_words(self) -> str:
        """Return the last line that they have printed."""
        lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "they printed nothing")


def watch(workers: Workers, records: Path, count: int, stored: Callable[[], int]) -> tuple[list[Run], float]:
    """Wait until so many jobs have run and their results are stored; return the runs and the time of the end.

    Raises:
        RuntimeError: it took too long, or others ran than were asked for.
    """
    begin = time.monotonic()
    while (ran := jobs.count(records)) < count or stored() < count:
        spent = time.monotonic() - begin
        if spent > LIMIT_S:
            raise RuntimeError(f"{ran} of {count} jobs ran in {LIMIT_S:g} s; a worker: {workers.last_words()}")
        left = spent * (count - ran) / max(ran, 1)
        time.sleep(min(max(LOOK_S, left / 2), LOOK_MAX_S))
    ended_at = time.monotonic()
    runs = jobs.runs(records)
    same({run.number for run in runs} == set(range(count)), expected=True)
    return runs, ended_at
