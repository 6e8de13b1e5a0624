"""What taskq is to reach, mostly against a peer of the same run. The bench tells; it asserts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.catalog import TESTS
from bench.measure import Case
from bench.systems import SYSTEMS, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.catalog import Metric
    from bench.summary import Summary

#: All systems that are not taskq.
PEERS = tuple(key for key in SYSTEMS if not key.startswith("taskq"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound for one way of taskq: factor x the best of the peers + plus; without peers, `plus` alone."""

    text: str
    test: str
    metric: str
    way: str
    system: str = "taskq"
    peers: tuple[str, ...] = ()
    #: Only this way of the peer; None: the best of all its ways.
    peer_way: str | None = None
    factor: float = 1.0
    plus: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A goal with the figures of a run; `theirs`, `ratio` and `peer` are None where it names no peer."""

    goal: Goal
    metric: Metric
    ours: float
    theirs: float | None
    peer: str | None
    ratio: float | None
    #: What `ours` had to reach.
    bound: float
    met: bool


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


def verdicts(summary: Summary) -> Iterator[Verdict]:
    """Judge every goal for which this run has the figures."""
    for goal in GOALS:
        metric = next(metric for metric in TESTS[goal.test].metrics if metric.key == goal.metric)
        ours = summary.spread(Case(test=goal.test, system=goal.system, way=goal.way), goal.metric)
        theirs = summary.best(metric, _peer_cases(goal))
        if ours and (theirs or not goal.peers):
            yield _judge(goal, metric, ours.median, theirs)


def _judge(goal: Goal, metric: Metric, ours: float, theirs: tuple[Case, float] | None) -> Verdict:
    case, figure = theirs or (None, None)
    bound = goal.factor * (figure or 0.0) + goal.plus
    return Verdict(
        goal=goal,
        metric=metric,
        ours=ours,
        theirs=figure,
        peer=f"{load(case.system).title} {case.way}" if case else None,
        ratio=ours / figure if figure else None,
        bound=bound,
        met=ours >= bound if metric.more else ours <= bound,
    )


def _peer_cases(goal: Goal) -> list[Case]:
    return [
        Case(test=goal.test, system=peer, way=way)
        for peer in goal.peers
        for way in load(peer).ways.get(goal.test, ())
        if goal.peer_way in (None, way)
    ]
