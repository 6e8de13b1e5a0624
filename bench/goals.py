"""Judge the goals of a suite by the figures of a run. The bench tells; it asserts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.measure import Case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.suite import Goal, Metric, Suite
    from bench.summary import Summary


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


def verdicts(summary: Summary) -> Iterator[Verdict]:
    """Judge every goal for which this run has the figures."""
    suite = summary.suite
    for goal in suite.goals:
        metric = suite.tests[goal.test].metric(goal.metric)
        ours = summary.spread(Case(test=goal.test, system=goal.system, way=goal.way), goal.metric)
        theirs = summary.best(metric, _peer_cases(suite, goal))
        if ours and (theirs or not goal.peers):
            yield _judge(suite, goal, metric, ours.median, theirs)


def _judge(suite: Suite, goal: Goal, metric: Metric, ours: float, theirs: tuple[Case, float] | None) -> Verdict:
    case, figure = theirs or (None, None)
    bound = goal.factor * (figure or 0.0) + goal.plus
    return Verdict(
        goal=goal,
        metric=metric,
        ours=ours,
        theirs=figure,
        peer=f"{suite.system(case.system).title} {case.way}" if case else None,
        ratio=ours / figure if figure else None,
        bound=bound,
        met=ours >= bound if metric.more else ours <= bound,
    )


def _peer_cases(suite: Suite, goal: Goal) -> list[Case]:
    return [
        Case(test=goal.test, system=peer, way=way)
        for peer in goal.peers
        for way in suite.system(peer).ways.get(goal.test, ())
        if goal.peer_way in (None, way)
    ]
