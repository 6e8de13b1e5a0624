"""A suite: what is measured on which systems, what is to be reached, and what the picture shows.

Three of them: `local` (pools of processes on one machine), `redis` and `sqlite` (queues whose jobs outlive a process).
All names, titles and units in tables, pictures and JSON come from these records.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.system import load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.system import System

#: Key on the command line -> module that has the suite as `SUITE`.
SUITES = {
    "local": "bench.pools.suite",
    "redis": "bench.queues.redis_suite",
    "sqlite": "bench.queues.sqlite_suite",
}


#: Amounts of work: to publish, for a look, to prove that it works. Each suite has its own table of them.
SCALES = ("full", "quick", "tiny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of a test."""

    key: str
    label: str
    unit: str
    #: True when more is better.
    more: bool = True
    #: Decimals shown for small figures.
    decimals: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One test: its figures, and how many rounds it wants (None: as many as asked for)."""

    key: str
    title: str
    metrics: tuple[Metric, ...]
    rounds: int | None = None

    def metric(self, key: str) -> Metric:
        """Return the figure of this name."""
        return next(metric for metric in self.metrics if metric.key == key)


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
class Panel:
    """One panel of the picture. `floor`: where a linear axis starts; None: a logarithmic axis."""

    test: str
    metric: str
    title: str
    unit: str
    floor: float | None = None
    #: Whether ratios mean something; those of a few hundred kB of memory do not.
    ratios: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """All of one suite."""

    key: str
    title: str
    #: Name of the result files of a whole run.
    results: str
    tests: Mapping[str, Test]
    #: Key on the command line -> module and class of the adapter. The order is that of the rounds.
    systems: Mapping[str, tuple[str, str]]
    goals: tuple[Goal, ...]
    panels: tuple[Panel, ...]
    #: Says in words what is missing besides Python packages, or nothing.
    missing: Callable[[], str] = lambda: ""
    #: Versions of what is not a Python package, and other facts of this machine that its figures hang on.
    versions: Callable[[], dict[str, str]] = dict

    def system(self, key: str) -> type[System]:
        """Return the adapter with this key."""
        return load(*self.systems[key])


def by_key(*tests: Test) -> dict[str, Test]:
    """Return the tests by their names, in this order."""
    return {test.key: test for test in tests}


def load_suite(key: str) -> Suite:
    """Return the suite with this key of `SUITES`."""
    suite: Suite = importlib.import_module(SUITES[key]).SUITE
    return suite
