"""The suite `sqlite`: taskq and the queues that need no server.

FULL: a job is on the disk when submit returns. NORMAL: a power cut may take the last ones, a crash takes none.
"""

from __future__ import annotations

import sqlite3

from bench.queues.metrics import BYTES, FROM_START, GREW, ITEMS, P50, P99, RATE, RESULTS
from bench.queues.place import sync_us
from bench.suite import Goal, Metric, Panel, Suite, Test, by_key

SYSTEMS = {
    "taskq": ("bench.queues.taskq_queue", "TaskqOnFile"),
    "taskq-signed": ("bench.queues.taskq_queue", "SignedOnFile"),
    "huey": ("bench.queues.huey_queue", "HueyOnFile"),
    "persist-queue": ("bench.queues.persist_queue", "PersistQueue"),
    "litequeue": ("bench.queues.litequeue_queue", "Litequeue"),
    "flexiq": ("bench.queues.flexiq_queue", "FlexiqQueue"),
}
PEERS = tuple(key for key in SYSTEMS if key not in {"taskq", "taskq-signed"})
FULL = ("huey", "persist-queue")
NORMAL = ("huey", "litequeue", "flexiq")

TESTS = by_key(
    Test(key="submit-full", title="Submit one by one, FULL", metrics=(RATE,)),
    Test(key="submit-normal", title="Submit one by one, NORMAL", metrics=(RATE,)),
    Test(key="four-full", title="Submit from four processes at once, FULL", metrics=(RATE,)),
    Test(key="four-normal", title="Submit from four processes at once, NORMAL", metrics=(RATE,)),
    Test(key="bulk-full", title="Submit in bulk, FULL", metrics=(RATE,)),
    Test(key="bulk-normal", title="Submit in bulk, NORMAL", metrics=(RATE,)),
    Test(
        key="drain-full",
        title="No-op jobs that were queued before the worker starts, worked off, FULL",
        metrics=(RATE, FROM_START, RESULTS, BYTES),
    ),
    Test(key="drain-normal", title="The same, NORMAL", metrics=(RATE, FROM_START, RESULTS, BYTES)),
    Test(
        key="latency",
        title="Submit to result from process to process, worker idle, ms",
        metrics=(P50, P99),
    ),
    Test(key="map", title="A no-op function over many items in one map", metrics=(ITEMS, GREW)),
    Test(
        key="waiting",
        title="Claim one job while few and while many wait",
        metrics=(
            Metric(key="slower", label="many / few", unit="x", more=False),
            Metric(key="few_us", label="few, us", unit="us", more=False, decimals=0),
            Metric(key="many_us", label="many, us", unit="us", more=False, decimals=0),
            BYTES,
        ),
        rounds=1,
    ),
)


def _rate(test: str, text: str, way: str, peers: tuple[str, ...] = (), **bound: float) -> Goal:
    return Goal(text=text, test=test, metric="jobs_per_s", way=way, peers=peers, **bound)  # type: ignore[arg-type]


GOALS = (
    _rate("submit-full", "submit one by one, FULL", "submit", FULL, factor=1.0),
    _rate("submit-normal", "submit one by one, NORMAL", "submit", NORMAL, factor=1.0),
    _rate("four-full", "submit from four processes, FULL", "submit", FULL, factor=1.0),
    _rate("four-normal", "submit from four processes, NORMAL", "submit", NORMAL, factor=1.0),
    _rate("bulk-full", "submit in bulk, FULL", "submit_many", plus=50_000),
    _rate("drain-full", "no-op jobs worked off, FULL", "taskq worker", plus=15_000),
    _rate("drain-full", "no-op jobs worked off, FULL", "taskq worker", FULL, factor=4.0),
    _rate("drain-normal", "no-op jobs worked off, NORMAL", "taskq worker", plus=20_000),
    Goal(text="latency p50", test="latency", metric="p50_ms", way="result()", plus=3.0),
    Goal(text="claim, 1,000,000 waiting against 1,000", test="waiting", metric="slower", way="claim", plus=2.0),
)

PANELS = (
    Panel(test="submit-full", metric="jobs_per_s", title="Submit one by one, power-cut safe", unit="jobs/s"),
    Panel(test="submit-normal", metric="jobs_per_s", title="Submit one by one, crash safe", unit="jobs/s"),
    Panel(test="four-full", metric="jobs_per_s", title="From four processes, power-cut safe", unit="jobs/s"),
    Panel(test="four-normal", metric="jobs_per_s", title="From four processes, crash safe", unit="jobs/s"),
    Panel(test="drain-full", metric="jobs_per_s", title="Jobs worked off, power-cut safe", unit="jobs/s"),
    Panel(test="drain-normal", metric="jobs_per_s", title="Jobs worked off, crash safe", unit="jobs/s"),
    Panel(test="latency", metric="p50_ms", title="Submit to result, p50", unit="milliseconds"),
)


def _versions() -> dict[str, str]:
    return {"SQLite": sqlite3.sqlite_version, "fdatasync of 100 bytes:": f"{sync_us():.0f} us"}


SUITE = Suite(
    key="sqlite",
    title="taskq and queues without a server",
    results="sqlite",
    tests=TESTS,
    systems=SYSTEMS,
    goals=GOALS,
    panels=PANELS,
    versions=_versions,
)
