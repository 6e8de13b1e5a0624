"""What is measured inside one process: each scenario takes an opened system and returns its figures."""

from __future__ import annotations

import os
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from bench import work
from bench.gauges import MEGABYTE, PeakMemory, percentile, same
from bench.pools import sigkill
from bench.pools.scale import SCALES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bench.pools.scale import Scale
    from bench.pools.system import PoolSystem

#: Most tasks of one throughput measurement: it bounds the memory of systems that keep all results.
MOST_TASKS = 5_000_000
#: Seconds between two calls in the test `latency`, so that the pool is really idle.
IDLE_S = 0.003


def run(system: PoolSystem, way: str, test: str, scale: str) -> dict[str, float] | dict[str, str]:
    """Run the test of this name."""
    amounts = SCALES[scale]
    if test == "kill-running":
        return sigkill.kill_running(system, amounts.hang_s)
    if test == "kill-idle":
        return sigkill.kill_idle(system, amounts.hang_s)
    return SCENARIOS[test](system, way, amounts)


def no_op_ints(system: PoolSystem, way: str, scale: Scale) -> dict[str, float]:
    """Run `increment` over ints."""

    def once(count: int) -> None:
        total = sum(_numbers(system.run(way, work.increment, range(count))))
        same(total, count * (count + 1) // 2)

    return _rate(once, scale.throughput_s)


def no_op_dicts(system: PoolSystem, way: str, scale: Scale) -> dict[str, float]:
    """Run `echo` over small dicts."""
    identity = itemgetter("id")

    def once(count: int) -> None:
        results: Iterable[Any] = system.run(way, work.echo, _rows(count))
        same(sum(map(identity, results)), count * (count - 1) // 2)

    few: list[Any] = list(system.run(way, work.echo, _rows(100)))
    same(sorted(few, key=identity), list(_rows(100)))
    return _rate(once, scale.throughput_s)


def submit_and_wait(system: PoolSystem, _way: str, scale: Scale) -> dict[str, float]:
    """Submit no-op tasks one by one, then wait for every result."""

    def once(count: int) -> None:
        total = sum(_numbers(system.submit_all(work.increment, range(count))))
        same(total, count * (count + 1) // 2)

    return _rate(once, scale.throughput_s)


def latency(system: PoolSystem, _way: str, scale: Scale) -> dict[str, float]:
    """Time single calls, first with pauses in which the pool falls idle, then without."""
    _calls(system, 50, 0.0)
    spaced = _calls(system, scale.calls, IDLE_S)
    close = _calls(system, scale.calls, 0.0)
    return {
        "p50_us": percentile(spaced, 50) * 1e6,
        "p99_us": percentile(spaced, 99) * 1e6,
        "b2b_p50_us": percentile(close, 50) * 1e6,
        "b2b_p99_us": percentile(close, 99) * 1e6,
    }


def cpu(system: PoolSystem, way: str, scale: Scale) -> dict[str, float]:
    """Run tasks of 1 ms; the CPU time that they report, spread over the processes, is the ideal wall time."""
    _warm(system, way)
    before = time.perf_counter()
    inside = sum(_numbers(system.run(way, work.burn, [1] * scale.cpu_tasks)))
    wall = time.perf_counter() - before
    return {"efficiency": inside / system.processes / wall, "wall_s": wall}


def mixed(system: PoolSystem, way: str, scale: Scale) -> dict[str, float]:
    """Run long tasks spread evenly among short ones."""
    _warm(system, way)
    before = time.perf_counter()
    arrivals = [(row, time.monotonic()) for row in _lists(system.run(way, work.burn_and_tell, _short_and_long(scale)))]
    wall = time.perf_counter() - before
    rows = sorted(row for row, _ in arrivals)
    same([int(row[0]) for row in rows], list(range(scale.short_tasks + scale.long_tasks)))
    figures = {
        "over_ideal": wall / (sum(row[4] for row in rows) / system.processes),
        "overtaken_s": _longest_overtaken(rows),
        "wall_s": wall,
    }
    if way.startswith("imap_unordered"):
        figures["late_s"] = max(arrived - row[3] for row, arrived in arrivals)
    return figures


def megabytes(system: PoolSystem, way: str, scale: Scale) -> dict[str, float]:
    """Send bytes objects through `echo`; all differ, else pickle would send one once for a whole chunk."""
    _warm(system, way)
    objects = [os.urandom(16) * (MEGABYTE // 16) for _ in range(scale.objects)]
    before = time.perf_counter()
    received: list[Any] = list(system.run(way, work.echo, objects))
    wall = time.perf_counter() - before
    same(sorted(received), sorted(objects))
    return {"mb_per_s": 2 * scale.objects / wall}


def lazy(system: PoolSystem, way: str, scale: Scale) -> dict[str, float]:
    """Feed a generator to a consumer that pauses; watch the memory here and how far the input is read."""
    _warm(system, way)
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        while taken < scale.lazy_items:
            taken += 1
            yield taken

    memory = PeakMemory()
    before = time.perf_counter()
    results = iter(_numbers(system.run(way, work.increment, numbers())))
    total = sum(next(results) for _ in range(100))
    time.sleep(scale.pause_s)
    taken_in_pause = taken
    total += sum(results)
    wall = time.perf_counter() - before
    same(total, scale.lazy_items * (scale.lazy_items + 3) // 2)
    return {"grew_mb": memory.grown() / MEGABYTE, "taken": taken_in_pause, "wall_s": wall}


SCENARIOS: dict[str, Callable[[PoolSystem, str, Scale], dict[str, float]]] = {
    "noop-int": no_op_ints,
    "noop-dict": no_op_dicts,
    "submit": submit_and_wait,
    "latency": latency,
    "cpu": cpu,
    "mixed": mixed,
    "bytes": megabytes,
    "lazy": lazy,
}


def _rate(once: Callable[[int], None], seconds: float) -> dict[str, float]:
    """Repeat with more tasks until one run lasts long enough; return the figures of that run."""
    count = 2_000
    once(count)
    while True:
        cpu_before, before = time.process_time(), time.perf_counter()
        once(count)
        wall = time.perf_counter() - before
        if wall >= 0.7 * seconds or count == MOST_TASKS:
            used = time.process_time() - cpu_before
            return {"tasks_per_s": count / wall, "tasks": count, "parent_us_per_task": used / count * 1e6}
        count = min(MOST_TASKS, int(count * min(10.0, 1.1 * seconds / wall)))


def _calls(system: PoolSystem, calls: int, pause_s: float) -> list[float]:
    times = []
    for number in range(calls):
        time.sleep(pause_s)
        before = time.perf_counter()
        system.submit(work.increment, number)(30.0)
        times.append(time.perf_counter() - before)
    return times


def _rows(count: int) -> Iterator[dict[str, object]]:
    return ({"id": number, "name": "x", "score": 0.5} for number in range(count))


def _short_and_long(scale: Scale) -> list[list[int]]:
    """List [index, milliseconds]; each long task stands in the middle of its share of the short ones."""
    share = scale.short_tasks // scale.long_tasks + 1
    total = scale.short_tasks + scale.long_tasks
    return [[index, scale.long_ms if index % share == share // 2 else 1] for index in range(total)]


def _longest_overtaken(rows: list[list[float]]) -> float:
    """Return the longest time by which a short task started after one that stands behind it in the input.

    With rows in input order, `earliest` is the first start among all later tasks.
    """
    earliest, longest = float("inf"), 0.0
    for _, milliseconds, started, _, _ in reversed(rows):
        if milliseconds == 1:
            longest = max(longest, started - earliest)
        earliest = min(earliest, started)
    return longest


def _warm(system: PoolSystem, way: str) -> None:
    same(sum(_numbers(system.run(way, work.increment, range(256)))), 256 * 257 // 2)


def _numbers(results: Iterable[Any]) -> Iterable[float]:
    return results


def _lists(results: Iterable[Any]) -> Iterable[list[float]]:
    return results
