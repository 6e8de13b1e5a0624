"""How many CPUs this process may really use: its affinity, and the quota of its control group.

Without pathlib, which would cost every start of a pool 3 ms.
"""
# ruff: noqa: PTH118, PTH123

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["usable_cpus"]


def usable_cpus(root: str | Path = "/") -> int:
    """Return how many processes can run at once here, at least 1. `root` is where /proc and /sys are found.

    A container with `--cpus=1.5` on a machine of 64 gives 2.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return max(1, cpus if quota is None else min(cpus, math.ceil(quota)))


def _quota(root: str | Path) -> float | None:
    """Return the smallest quota, in CPUs, of the process's control groups and those above them."""
    quotas = [quota for group in _groups(str(root)) for quota in (_quota_v2(group), _quota_v1(group)) if quota]
    return min(quotas, default=None)


def _groups(root: str) -> list[str]:
    """Return the folders of the groups that may limit CPU time, from the process's own up to the top."""
    folders: list[str] = []
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = os.path.join(root, "sys/fs/cgroup", controllers)
        parts = [part for part in path.split("/") if part not in {"", ".."}]
        folders += [os.path.join(mount, *parts[:depth]) for depth in range(len(parts), -1, -1)]
    return folders


def _quota_v2(group: str) -> float | None:
    quota, _, period = _read(os.path.join(group, "cpu.max")).partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.strip().isdecimal() else None


def _quota_v1(group: str) -> float | None:
    quota = _read(os.path.join(group, "cpu.cfs_quota_us")).strip()  # -1: no limit
    period = _read(os.path.join(group, "cpu.cfs_period_us")).strip()
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
