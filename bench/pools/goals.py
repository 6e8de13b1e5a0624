"""What taskq is to reach on one machine, mostly against a peer of the same run."""

from __future__ import annotations

from bench.pools.systems import PEERS
from bench.suite import Goal


def _no_op(test: str, text: str, factor: float) -> tuple[Goal, ...]:
    ways = ("imap_unordered", "map")
    return tuple(
        Goal(text=f"{text}, {way}", test=test, metric="tasks_per_s", way=way, peers=("pool",), factor=factor)
        for way in ways
    )


def _against_chunks_of_64(way: str) -> Goal:
    return Goal(
        text=f"no-op ints, {way}",
        test="noop-int",
        metric="tasks_per_s",
        way=way,
        peers=("pool",),
        peer_way="imap_unordered c=64",
        factor=2.0,
    )


def _latency(metric: str, text: str, peer: str, factor: float) -> Goal:
    return Goal(text=text, test="latency", metric=metric, way="submit", peers=(peer,), factor=factor)


def _alone(test: str, metric: str, text: str, ways: tuple[str, ...], limit: float) -> tuple[Goal, ...]:
    return tuple(Goal(text=f"{text}, {way}", test=test, metric=metric, way=way, plus=limit) for way in ways)


GOALS = (
    *_no_op("noop-int", "no-op ints", 0.75),
    _against_chunks_of_64("imap_unordered"),
    _against_chunks_of_64("map"),
    *_no_op("noop-dict", "no-op dicts", 1.0),
    Goal(text="no-op submit", test="submit", metric="tasks_per_s", way="submit", peers=("pool",), factor=5.0),
    _latency("p50_us", "latency p50, 3 ms apart", "pool", 0.7),
    _latency("b2b_p50_us", "latency p50, back to back", "pool", 0.7),
    _latency("p99_us", "latency p99, 3 ms apart", "executor", 1.0),
    _latency("b2b_p99_us", "latency p99, back to back", "executor", 1.0),
    *_alone("cpu", "efficiency", "1 ms tasks", ("submit", "map", "imap_unordered"), 0.97),
    *_alone("mixed", "over_ideal", "long and short", ("submit", "map", "imap_unordered"), 1.1),
    *(
        Goal(text=f"1 MB in and out, {way}", test="bytes", metric="mb_per_s", way=way, peers=PEERS, factor=1.2)
        for way in ("imap_unordered", "submit")
    ),
    *_alone("lazy", "grew_mb", "lazy input", ("imap_unordered", "map"), 20.0),
    Goal(
        text="start to first result, fork",
        test="start",
        metric="first_result_ms",
        way="submit",
        system="taskq-fork",
        peers=("pool",),
        plus=20.0,
    ),
    Goal(text="import taskq", test="import", metric="import_ms", way="import", plus=40.0),
)
