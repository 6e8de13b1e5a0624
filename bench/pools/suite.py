"""All of the suite `local`."""

from __future__ import annotations

from bench.pools.catalog import PANELS, TESTS
from bench.pools.goals import GOALS
from bench.pools.systems import SYSTEMS
from bench.suite import Suite

SUITE = Suite(
    key="local",
    title="taskq and its peers",
    results="latest",
    tests=TESTS,
    systems=SYSTEMS,
    goals=GOALS,
    panels=PANELS,
)
