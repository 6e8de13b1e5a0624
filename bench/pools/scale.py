"""How much work each test does: `full` to publish, `quick` for a look, `tiny` to prove that it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Amounts of work. Times are seconds."""

    #: How long a throughput measurement lasts; the number of tasks follows from the speed.
    throughput_s: float
    #: Calls for each latency figure.
    calls: int
    #: Tasks of 1 ms in the test `cpu`.
    cpu_tasks: int
    #: The test `mixed`: so many long tasks of so many ms among so many of 1 ms.
    long_tasks: int
    long_ms: int
    short_tasks: int
    #: Objects of 1 MB in the test `bytes`.
    objects: int
    #: Items of the test `lazy`, and how long its consumer pauses after 100 results.
    lazy_items: int
    pause_s: float
    #: Longest wait in the tests that kill a process, before an answer counts as "hangs".
    hang_s: float


SCALES = {
    "full": Scale(
        throughput_s=0.5,
        calls=500,
        cpu_tasks=4_000,
        long_tasks=10,
        long_ms=1_000,
        short_tasks=10_000,
        objects=500,
        lazy_items=1_000_000,
        pause_s=1.0,
        hang_s=5.0,
    ),
    "quick": Scale(
        throughput_s=0.12,
        calls=150,
        cpu_tasks=600,
        long_tasks=10,
        long_ms=100,
        short_tasks=1_000,
        objects=100,
        lazy_items=100_000,
        pause_s=0.3,
        hang_s=2.0,
    ),
    "tiny": Scale(
        throughput_s=0.01,
        calls=10,
        cpu_tasks=20,
        long_tasks=1,
        long_ms=20,
        short_tasks=20,
        objects=4,
        lazy_items=2_000,
        pause_s=0.05,
        hang_s=2.0,
    ),
}
