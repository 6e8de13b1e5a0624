"""Watch what others do on this machine meanwhile, and look after the processes that measurements leave.

Linux only, by /proc: elsewhere the foreign load is unknown (None) and nothing is repeated.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    import subprocess

STAT = Path("/proc/stat")
#: prctl option: orphaned descendants become children of this process, so that their CPU time counts as ours.
PR_SET_CHILD_SUBREAPER = 36
#: Share of one core below which the rest of the machine is quiet.
QUIET = 0.10
#: Seconds to wait for quiet, at most.
PATIENCE_S = 5.0


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants (Linux)."""
    if STAT.exists():
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class LoadWatch:
    """Compare the CPU time of the whole machine with that of this process and its reaped descendants."""

    def __init__(self) -> None:
        """Start to watch."""
        self._began = time.monotonic()
        self._machine, self._ours = _machine_cpu(), _our_cpu()

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    def foreign(self) -> float | None:
        """Return the share of one core that others used since the start; None where it cannot be known."""
        machine = _machine_cpu()
        if machine is None or self._machine is None:
            return None
        return max(0.0, (machine - self._machine - (_our_cpu() - self._ours)) / self.elapsed())


def wait_until_quiet() -> None:
    """Wait until others leave the machine alone, for a few seconds at most."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        watch = LoadWatch()
        time.sleep(0.4)
        if (watch.foreign() or 0.0) < QUIET:
            return


def children_left(process: subprocess.Popen[bytes]) -> bool:
    """Reap what has ended; return whether the process, or a descendant of it that came to us, still runs."""
    process.poll()
    # Popen must reap its own process first, else it would never learn the exit code
    while process.returncode is not None:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    return process.returncode is None or bool(_children())


def signal_children(process: subprocess.Popen[bytes], signum: signal.Signals) -> None:
    """Signal the session of the process and all children of ours: some may have sessions of their own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signum)
    for pid in _children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def _children() -> list[int]:
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for path in lists for pid in path.read_text(encoding="ascii").split()]


def _machine_cpu() -> float | None:
    """Return the CPU seconds that everyone has used since the machine started."""
    if not STAT.exists():
        return None
    with STAT.open(encoding="ascii") as file:
        user, nice, system, _idle, _wait, irq, soft = map(int, file.readline().split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def _our_cpu() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)
