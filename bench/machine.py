"""The circumstances of a run: machine, versions, commit, date."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import python_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.suite import Suite
    from bench.system import System

#: Prints the versions of the distributions that are named to it.
VERSIONS = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"


def circumstances(suite: Suite, systems: Iterable[str]) -> dict[str, object]:
    """Return the facts that figures mean nothing without."""
    versions = suite.versions()
    for key in systems:
        versions.update(_versions(suite.system(key), versions))
    return {
        "suite": suite.key,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu_model(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "kernel": f"{platform.system()} {platform.release()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        },
        "versions": versions,
    }


def _versions(system: type[System], known: dict[str, str]) -> dict[str, str]:
    """Ask the Python of a system for its versions; one that differs from the others' is named after the system."""
    names = system.distributions
    command = [python_of(system), "-c", VERSIONS, *names]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    return {
        name if known.get(name, version) == version else f"{name} ({system.title})": version
        for name, version in zip(names, found, strict=True)
    }


def _commit() -> str | None:
    """Return the commit, with a + when the tree differs from it; None where there is none."""
    here = Path(__file__).resolve().parent
    ask = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        answer = subprocess.run(ask, cwd=here, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
