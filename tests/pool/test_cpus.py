"""How many CPUs may be used: the affinity, and the quota of the control groups, in both of their layouts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskq.executors.cpus import usable_cpus


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a made-up root folder, on a machine whose affinity allows 64 CPUs."""
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this platform has no affinity")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    """Write a made-up file of the kernel."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def test_no_control_groups(root: Path) -> None:
    """Without control groups, the affinity alone decides."""
    assert usable_cpus(root) == 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", 64),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("400000 100000", 4),
        ("1000 100000", 1),
        ("6500000 100000", 64),
        ("rubbish", 64),
        ("", 64),
    ],
)
def test_quota_v2(root: Path, text: str, expected: int) -> None:
    """The quota of the process's own group counts, rounded up, at least one CPU and at most the affinity."""
    write(root, "proc/self/cgroup", "0::/app.slice/app\n")
    write(root, "sys/fs/cgroup/app.slice/app/cpu.max", text + "\n")
    assert usable_cpus(root) == expected


def test_quota_of_a_group_above(root: Path) -> None:
    """The smallest quota on the way up to the top counts."""
    write(root, "proc/self/cgroup", "0::/pod/container/app\n")
    write(root, "sys/fs/cgroup/pod/container/app/cpu.max", "max 100000\n")
    write(root, "sys/fs/cgroup/pod/container/cpu.max", "800000 100000\n")
    write(root, "sys/fs/cgroup/pod/cpu.max", "300000 100000\n")
    assert usable_cpus(root) == 3


def test_quota_at_the_top(root: Path) -> None:
    """In a container that sees its own group as the top, the quota stands there."""
    write(root, "proc/self/cgroup", "0::/\n")
    write(root, "sys/fs/cgroup/cpu.max", "200000 100000\n")
    assert usable_cpus(root) == 2


@pytest.mark.parametrize(("quota", "expected"), [("-1", 64), ("250000", 3), ("50000", 1)])
def test_quota_v1(root: Path, quota: str, expected: int) -> None:
    """The older layout, with the cpu controller in a tree of its own."""
    write(root, "proc/self/cgroup", "4:memory:/app\n3:cpu,cpuacct:/app\n1:name=systemd:/app\n")
    write(root, "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", quota + "\n")
    write(root, "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n")
    write(root, "sys/fs/cgroup/memory/app/cpu.cfs_quota_us", "1\n")
    assert usable_cpus(root) == expected


def test_real_machine() -> None:
    """On the real machine there is at least one, and no more than the affinity allows."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert 1 <= usable_cpus(Path("/")) <= allowed
