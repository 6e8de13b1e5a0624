"""The tests of the suite `local` and the panels of its picture."""

from __future__ import annotations

from bench.suite import Metric, Panel, Test, by_key

RATE = Metric(key="tasks_per_s", label="tasks/s", unit="/s")

TESTS = by_key(
    Test(key="noop-int", title="No-op tasks, an int in and out", metrics=(RATE,)),
    Test(key="noop-dict", title="No-op tasks, a small dict in and out", metrics=(RATE,)),
    Test(key="submit", title="No-op submit + result, a handle for each task", metrics=(RATE,)),
    Test(
        key="latency",
        title="Latency of one job on an idle pool: calls 3 ms apart, and back to back",
        metrics=(
            Metric(key="p50_us", label="p50", unit="us", more=False, decimals=0),
            Metric(key="p99_us", label="p99", unit="us", more=False, decimals=0),
            Metric(key="b2b_p50_us", label="back to back p50", unit="us", more=False, decimals=0),
            Metric(key="b2b_p99_us", label="p99", unit="us", more=False, decimals=0),
        ),
    ),
    Test(
        key="cpu",
        title="Tasks of 1 ms CPU: CPU seconds inside tasks / processes / wall",
        metrics=(Metric(key="efficiency", label="efficiency", unit="", decimals=3),),
    ),
    Test(
        key="mixed",
        title="Long tasks among 1 ms tasks: wall / ideal, and how long later tasks overtook a short one",
        metrics=(
            Metric(key="over_ideal", label="wall / ideal", unit="x", more=False, decimals=3),
            Metric(key="overtaken_s", label="longest overtaken", unit="s", more=False, decimals=3),
        ),
        rounds=1,
    ),
    Test(
        key="bytes",
        title="Bytes objects of 1 MB in and out, all different",
        metrics=(Metric(key="mb_per_s", label="MB/s", unit="MB/s", decimals=0),),
    ),
    Test(
        key="lazy",
        title="Lazy input, a consumer that pauses: growth of the parent, input taken by then",
        metrics=(
            Metric(key="grew_mb", label="memory growth", unit="MB", more=False, decimals=1),
            Metric(key="taken", label="items taken", unit="", more=False, decimals=0),
            Metric(key="wall_s", label="whole run", unit="s", more=False),
        ),
        rounds=1,
    ),
    Test(
        key="start",
        title="Start of the process to the first result",
        metrics=(Metric(key="first_result_ms", label="ms", unit="ms", more=False, decimals=1),),
        rounds=9,
    ),
    Test(
        key="import",
        title="Time of the import",
        metrics=(Metric(key="import_ms", label="ms", unit="ms", more=False, decimals=1),),
        rounds=5,
    ),
    Test(key="kill-running", title="SIGKILL of a process that runs a task", metrics=(), rounds=1),
    Test(key="kill-idle", title="SIGKILL of an idle process", metrics=(), rounds=4),
)

PANELS = (
    Panel(test="noop-int", metric="tasks_per_s", title="No-op tasks, ints", unit="tasks/s"),
    Panel(test="noop-dict", metric="tasks_per_s", title="No-op tasks, small dicts", unit="tasks/s"),
    Panel(test="submit", metric="tasks_per_s", title="submit + result", unit="tasks/s"),
    Panel(test="latency", metric="p50_us", title="Latency of one job, p50", unit="microseconds"),
    Panel(test="latency", metric="p99_us", title="Latency of one job, p99", unit="microseconds"),
    Panel(test="bytes", metric="mb_per_s", title="1 MB in and out", unit="MB/s"),
    Panel(test="cpu", metric="efficiency", title="Tasks of 1 ms CPU", unit="share of the ideal speed", floor=0.0),
    Panel(
        test="mixed",
        metric="over_ideal",
        title="Long tasks among short ones",
        unit="time / ideal time, from 1.0",
        floor=1.0,
    ),
    Panel(
        test="lazy",
        metric="grew_mb",
        title="Memory over a lazy input",
        unit="MB grown",
        floor=0.0,
        ratios=False,
    ),
    Panel(test="start", metric="first_result_ms", title="Start to first result", unit="ms", floor=0.0),
    Panel(test="import", metric="import_ms", title="Import", unit="ms", floor=0.0),
)
