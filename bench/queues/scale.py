"""How much work each test does: `full` to publish, `quick` for a look, `tiny` to prove that it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Amounts of work."""

    #: Jobs that are worked off; a slow system gets its share of them.
    jobs: int
    #: Jobs submitted one by one, and in bulk.
    one_by_one: int
    in_bulk: int
    #: Round trips of the test `latency`, and the seconds after which it stops however many there were.
    calls: int
    calls_s: float
    #: Jobs of 10 ms CPU.
    cpu_jobs: int
    #: Items of one map.
    items: int
    #: Waiting jobs in a short and in a long queue.
    few: int
    many: int


SCALES = {
    "full": Scale(
        jobs=20_000,
        one_by_one=5_000,
        in_bulk=20_000,
        calls=1000,
        calls_s=6.0,
        cpu_jobs=1_000,
        items=1_000_000,
        few=1_000,
        many=1_000_000,
    ),
    "quick": Scale(
        jobs=4_000,
        one_by_one=1_000,
        in_bulk=5_000,
        calls=50,
        calls_s=2.0,
        cpu_jobs=100,
        items=100_000,
        few=1_000,
        many=50_000,
    ),
    "tiny": Scale(
        jobs=100,
        one_by_one=40,
        in_bulk=100,
        calls=5,
        calls_s=1.0,
        cpu_jobs=10,
        items=2_000,
        few=100,
        many=1_000,
    ),
}
