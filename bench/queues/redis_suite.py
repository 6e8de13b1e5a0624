"""The suite `redis`: taskq and the task queues that people run on Redis today."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from bench.queues.metrics import BYTES, COMMANDS, FROM_START, GREW, ITEMS, P50, P99, RATE, RESULTS, ROUND_TRIPS
from bench.suite import Goal, Metric, Panel, Suite, Test, by_key

SYSTEMS = {
    "taskq": ("bench.queues.taskq_queue", "TaskqOnRedis"),
    "taskq-signed": ("bench.queues.taskq_queue", "SignedOnRedis"),
    "rq": ("bench.queues.rq_queue", "Rq"),
    "rq-simple": ("bench.queues.rq_queue", "RqSimple"),
    "celery": ("bench.queues.celery_queue", "CeleryQueue"),
    "dramatiq": ("bench.queues.dramatiq_queue", "DramatiqQueue"),
    "huey": ("bench.queues.huey_queue", "HueyOnRedis"),
    "saq": ("bench.queues.saq_queue", "SaqQueue"),
    "taskiq": ("bench.queues.taskiq_queue", "TaskiqQueue"),
}
PEERS = tuple(key for key in SYSTEMS if key not in {"taskq", "taskq-signed"})

TESTS = by_key(
    Test(
        key="drain",
        title="No-op jobs that were queued before the workers start, worked off, results stored",
        metrics=(RATE, FROM_START, RESULTS, COMMANDS, ROUND_TRIPS, BYTES),
    ),
    Test(key="ten", title="The same with 10 worker processes", metrics=(RATE, FROM_START, COMMANDS, BYTES)),
    Test(key="submit", title="Submit, one call for each job", metrics=(RATE, COMMANDS, ROUND_TRIPS)),
    Test(key="bulk", title="Submit in bulk", metrics=(RATE, COMMANDS)),
    Test(key="latency", title="Submit to result, workers idle, ms", metrics=(P50, P99)),
    Test(
        key="map",
        title="A no-op function over many items in one map",
        metrics=(ITEMS, Metric(key="redis_mb", label="Redis MB", unit="MB", more=False, decimals=1), GREW),
    ),
    Test(
        key="cpu",
        title="Jobs of 10 ms CPU: CPU seconds inside jobs / processes / wall",
        metrics=(Metric(key="efficiency", label="efficiency", unit="", decimals=3),),
    ),
)


def _drain(metric: str, text: str, **bound: float) -> Goal:
    return Goal(text=text, test="drain", metric=metric, way="taskq worker", **bound)  # type: ignore[arg-type]


def _latency(metric: str, text: str, **bound: Any) -> Goal:
    return Goal(text=text, test="latency", metric=metric, way="result()", **bound)


def _map(metric: str, text: str, bound: float) -> Goal:
    return Goal(text=text, test="map", metric=metric, way="imap_unordered", plus=bound)


NO_OP = "no-op jobs worked off"
GOALS = (
    _drain("jobs_per_s", NO_OP, plus=15_000),
    Goal(text=NO_OP, test="drain", metric="jobs_per_s", way="taskq worker", peers=("rq",), factor=100),
    Goal(text=NO_OP, test="drain", metric="jobs_per_s", way="taskq worker", peers=PEERS, factor=2.4),
    _drain("commands_per_job", "Redis commands per job", plus=14),
    _drain("bytes_per_job", "Redis memory per finished job", plus=1_000),
    Goal(text="with 10 processes", test="ten", metric="jobs_per_s", way="taskq worker", peers=PEERS, factor=1.5),
    Goal(text="submit one by one", test="submit", metric="jobs_per_s", way="submit", plus=10_000),
    Goal(text="submit in bulk", test="bulk", metric="jobs_per_s", way="submit_many", plus=80_000),
    _latency("p50_ms", "latency p50", plus=0.8),
    _latency("p50_ms", "latency p50", peers=PEERS, factor=0.86),  # 0.8 of the 0.93 ms at which the goal was set
    _latency("p99_ms", "latency p99", plus=2.0),
    _latency("p99_ms", "latency p99", peers=PEERS, factor=1.0),
    _map("items_per_s", "map, items/s", 300_000),
    _map("redis_mb", "map, memory in Redis", 50),
    _map("grew_mb", "map, memory in the client", 40),
    Goal(text="10 ms jobs, efficiency", test="cpu", metric="efficiency", way="taskq worker", plus=0.95),
)

PANELS = (
    Panel(test="drain", metric="jobs_per_s", title="No-op jobs worked off", unit="jobs/s"),
    Panel(test="ten", metric="jobs_per_s", title="With 10 processes", unit="jobs/s"),
    Panel(test="submit", metric="jobs_per_s", title="Submit one by one", unit="jobs/s"),
    Panel(test="bulk", metric="jobs_per_s", title="Submit in bulk", unit="jobs/s"),
    Panel(test="latency", metric="p50_ms", title="Submit to result, p50", unit="milliseconds"),
    Panel(test="latency", metric="p99_ms", title="Submit to result, p99", unit="milliseconds"),
    Panel(test="drain", metric="bytes_per_job", title="Redis memory per finished job", unit="bytes"),
    Panel(test="cpu", metric="efficiency", title="Jobs of 10 ms CPU", unit="share of the ideal speed", floor=0.0),
)


def _missing() -> str:
    return "" if shutil.which("redis-server") else "there is no redis-server on PATH: apt-get install redis-server"


def _versions() -> dict[str, str]:
    words = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout.split()
    return {"redis-server": next((word[2:] for word in words if word.startswith("v=")), "?")}


SUITE = Suite(
    key="redis",
    title="taskq and task queues on Redis",
    results="redis",
    tests=TESTS,
    systems=SYSTEMS,
    goals=GOALS,
    panels=PANELS,
    missing=_missing,
    versions=_versions,
)
