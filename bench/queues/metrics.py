"""Figures that both suites of queues have."""

from __future__ import annotations

from bench.suite import Metric

RATE = Metric(key="jobs_per_s", label="jobs/s", unit="/s", decimals=0)
FROM_START = Metric(key="from_start_per_s", label="from start", unit="/s", decimals=0)
RESULTS = Metric(key="results_per_s", label="results read/s", unit="/s", decimals=0)
BYTES = Metric(key="bytes_per_job", label="bytes/job", unit="B", more=False, decimals=0)
COMMANDS = Metric(key="commands_per_job", label="commands/job", unit="", more=False)
ROUND_TRIPS = Metric(key="round_trips_per_job", label="round trips/job", unit="", more=False)
P50 = Metric(key="p50_ms", label="p50", unit="ms", more=False)
P99 = Metric(key="p99_ms", label="p99", unit="ms", more=False)
ITEMS = Metric(key="items_per_s", label="items/s", unit="/s", decimals=0)
GREW = Metric(key="grew_mb", label="client grew MB", unit="MB", more=False, decimals=1)
