"""A summary as tables of text, which report.py renders for a terminal and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.goals import verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.goals import Verdict
    from bench.measure import Case
    from bench.suite import Metric, Test
    from bench.summary import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells of text under a title; the first `text_columns` hold text, the others numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 2
    marked: frozenset[int] = frozenset()


def number(value: float, decimals: int = 2) -> str:
    """Write a figure so that it can be read at a glance: 8.29M, 65,918, 512, 0.98."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.2f}M"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{decimals}f}"


def tables(summary: Summary) -> Iterator[Table]:
    """Make a table of each test, one of the kills, and one of the goals."""
    for key in summary.tests():
        test = summary.suite.tests[key]
        if len(test.metrics) == 1:
            yield _one_figure(summary, test)
        elif test.metrics:
            yield _more_figures(summary, test)
    if kills := kill_table(summary):
        yield kills
    if goals := goal_table(summary):
        yield goals


def goal_table(summary: Summary) -> Table | None:
    """Make the table of goals: what was to be reached, against whom, and whether it was."""
    found = list(verdicts(summary))
    if not found:
        return None
    return Table(
        title=f"Goals: {sum(verdict.met for verdict in found)} of {len(found)} met",
        head=("work", "compared with", "theirs", "taskq", "ratio", "goal", "met"),
        rows=tuple(_goal_row(verdict) for verdict in found),
        marked=frozenset(index for index, verdict in enumerate(found) if not verdict.met),
    )


def _goal_row(verdict: Verdict) -> tuple[str, ...]:
    goal, metric = verdict.goal, verdict.metric
    sign = "≥" if metric.more else "≤"
    relative = goal.peers and not goal.plus
    bound = f"{goal.factor:g}x" if relative else f"{number(verdict.bound, metric.decimals)} {metric.unit}".strip()
    return (
        goal.text,
        verdict.peer.removeprefix("multiprocessing.") if verdict.peer else "-",
        "-" if verdict.theirs is None else number(verdict.theirs, metric.decimals),
        number(verdict.ours, metric.decimals),
        f"{verdict.ratio:.2f}" if verdict.ratio else "-",
        f"{sign} {bound}",
        "yes" if verdict.met else "no",
    )


def _one_figure(summary: Summary, test: Test) -> Table:
    """One row per case: median, range, and how many times better the best way of taskq is."""
    metric = test.metrics[0]
    cases = _best_first(summary, test, metric)
    ours = summary.best(metric, [case for case in cases if _is_taskq(case)])
    rows: list[tuple[str, ...]] = []
    for case in cases:
        spread = summary.spread(case, metric.key)
        if spread is None:
            rows.append((summary.suite.system(case.system).title, case.way, "failed", "", ""))
            continue
        span = f"{number(spread.least, metric.decimals)} - {number(spread.most, metric.decimals)}"
        span = span if spread.rounds > 1 else ""
        median = number(spread.median, metric.decimals)
        better = "" if ours is None or _is_taskq(case) else _better(metric, ours[1], spread.median)
        rows.append((summary.suite.system(case.system).title, case.way, median, span, better))
    return _marked(test.title, ("system", "way", metric.label, "least - most", "taskq better"), rows, cases)


def _more_figures(summary: Summary, test: Test) -> Table:
    """One row per case, the medians of several figures."""
    cases = _best_first(summary, test, test.metrics[0])
    rows: list[tuple[str, ...]] = []
    for case in cases:
        spreads = [(metric, summary.spread(case, metric.key)) for metric in test.metrics]
        cells = [number(spread.median, metric.decimals) if spread else "failed" for metric, spread in spreads]
        rows.append((summary.suite.system(case.system).title, case.way, *cells))
    return _marked(test.title, ("system", "way", *(metric.label for metric in test.metrics)), rows, cases)


def kill_table(summary: Summary) -> Table | None:
    """Make the table of what a SIGKILL does, of the suites that kill."""
    systems = dict.fromkeys(case.system for test in ("kill-running", "kill-idle") for case in summary.cases(test))
    rows = [
        (summary.suite.system(system).title.removeprefix("multiprocessing."), *_kill_words(summary, system))
        for system in systems
    ]
    if not rows:
        return None
    head = (
        "system",
        "the task it ran",
        "20 other tasks",
        "pool afterwards",
        "after the kill of an idle one",
    )
    marked = frozenset(index for index, system in enumerate(systems) if system.startswith("taskq"))
    return Table(title="SIGKILL of one process of the pool", head=head, rows=tuple(rows), text_columns=5, marked=marked)


def _kill_words(summary: Summary, system: str) -> tuple[str, ...]:
    asked = (
        ("kill-running", "task"),
        ("kill-running", "others"),
        ("kill-running", "pool"),
        ("kill-idle", "idle"),
    )
    answers = []
    for test, key in asked:
        case = next((case for case in summary.cases(test) if case.system == system), None)
        answers.append(summary.words(case, key) if case else "-")
    return tuple(answers)


def _marked(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]], cases: list[Case]) -> Table:
    marked = frozenset(index for index, case in enumerate(cases) if _is_taskq(case))
    return Table(title=title, head=head, rows=tuple(rows), marked=marked)


def _best_first(summary: Summary, test: Test, metric: Metric) -> list[Case]:
    def rank(case: Case) -> float:
        spread = summary.spread(case, metric.key)
        if spread is None:
            return float("inf")
        return -spread.median if metric.more else spread.median

    return sorted(summary.cases(test.key), key=rank)


def _better(metric: Metric, ours: float, theirs: float) -> str:
    """Return how many times better ours is; below 1 it is worse."""
    above, below = (ours, theirs) if metric.more else (theirs, ours)
    return f"{above / below:.2f}x" if below else "-"


def _is_taskq(case: Case) -> bool:
    return case.system.startswith("taskq")
