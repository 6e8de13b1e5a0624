"""What is measured inside one process: a client of the queue, with its workers beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import work
from bench.gauges import MEGABYTE, PeakMemory, percentile, same
from bench.queues import waiting
from bench.queues.place import Folder, RedisServer
from bench.queues.scale import SCALES
from bench.queues.workers import Workers, watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.queues.jobs import Run
    from bench.queues.place import Place
    from bench.queues.scale import Scale
    from bench.queues.system import QueueSystem

#: Seconds between two round trips, so that the workers are really idle.
IDLE_S = 0.005
#: Round trips that are not counted: workers start, connections open.
WARM_UP = 10
#: Processes that submit at once in the tests `four-...`.
SUBMITTERS = 4
#: Worker processes of the test `ten`.
TEN = 10
#: Memory-backed folder for the records, so that their writes do not disturb the disk under test.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a plain file of ours with a random name


def run(system: QueueSystem, way: str, test: str, scale: str) -> dict[str, float]:
    """Run the test of this name; `-full` and `-normal` behind it say how durable the file is to be."""
    place = RedisServer() if system.lives_in == "redis" else Folder()
    with tempfile.NamedTemporaryFile(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None) as records:
        scenario, _, durability = test.partition("-")
        os.environ.update(
            BENCH_ADDRESS=place.address,
            BENCH_WAY=way,
            BENCH_DURABILITY=durability or "full",
            BENCH_RECORDS=records.name,
        )
        system.address = place.address
        bench = Bench(system, place, Path(records.name), SCALES[scale])
        return SCENARIOS[scenario](bench)


class Bench:
    """One measurement: the system, where its jobs live, the records that they leave, the amounts of work."""

    def __init__(self, system: QueueSystem, place: Place, records: Path, scale: Scale) -> None:
        """Put them together."""
        self.system = system
        self.place = place
        self.records = records
        self.scale = scale

    def workers(self) -> Workers:
        """Return the workers, not started."""
        return Workers(self.system.workers())


def submit(bench: Bench) -> dict[str, float]:
    """Submit jobs one by one; no worker runs."""
    return _submit(bench, bench.system.enqueue, bench.scale.one_by_one)


def bulk(bench: Bench) -> dict[str, float]:
    """Submit many jobs by what the library has for that; no worker runs."""
    return _submit(bench, bench.system.enqueue_many, bench.scale.in_bulk)


def _submit(bench: Bench, enqueue: Callable[[str, range], object], count: int) -> dict[str, float]:
    bench.system.open()
    enqueue("noop", range(20))
    spent = bench.place.usage()
    before = time.perf_counter()
    enqueue("noop", range(count))
    wall = time.perf_counter() - before
    return {"jobs_per_s": count / wall, **bench.place.cost(spent, count)}


def four(bench: Bench) -> dict[str, float]:
    """Submit jobs one by one from four processes at once."""
    each = bench.scale.one_by_one // SUBMITTERS
    kind = type(bench.system)
    command = [sys.executable, "-m", "bench.queues.submitter", kind.__module__, kind.__name__, str(each)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(SUBMITTERS)
    ]
    _hear(started, "ready")
    before = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    _hear(started, "done")
    return {"jobs_per_s": each * SUBMITTERS / (time.perf_counter() - before)}


def _hear(processes: list[subprocess.Popen[str]], word: str) -> None:
    for process in processes:
        assert process.stdout is not None
        same(process.stdout.readline().strip(), word)


def drain(bench: Bench) -> dict[str, float]:
    """Work off jobs that were queued before the workers started, until all results are stored."""
    count = int(bench.scale.jobs * bench.system.share)
    runs, started_at, ended_at, costs = _work_off(bench, "noop", count)
    first = min(run.began for run in runs)
    return {
        "jobs_per_s": count / (ended_at - first),
        "from_start_per_s": count / (ended_at - started_at),
        "jobs": count,
        "runs": len(runs),
        **costs,
    }


def ten(bench: Bench) -> dict[str, float]:
    """Do as `drain` with ten processes."""
    bench.system.processes = TEN
    return drain(bench)


def cpu(bench: Bench) -> dict[str, float]:
    """Work off jobs of 10 ms; the CPU time inside them, spread over the processes, is the ideal wall time."""
    runs, _, ended_at, _ = _work_off(bench, "burn", bench.scale.cpu_jobs)
    wall = ended_at - min(run.began for run in runs)
    return {"efficiency": sum(run.cpu_s for run in runs) / bench.system.processes / wall, "wall_s": wall}


def _work_off(bench: Bench, task: str, count: int) -> tuple[list[Run], float, float, dict[str, float]]:
    """Queue jobs, start the workers, read all results; return runs, start, end and what a job has cost."""
    system = bench.system
    system.open()
    empty = bench.place.usage()
    enqueue = system.enqueue_many if system.takes_many else system.enqueue
    handles = enqueue(task, range(count))
    queued = bench.place.usage()
    with bench.workers() as workers:
        runs, ended_at = watch(workers, bench.records, count, lambda: system.stored(handles))
        same(len(runs), len(runs) if system.flawed else count)
        costs = bench.place.cost(queued, count)
        before = time.perf_counter()
        results = system.results(handles)
        costs["results_per_s"] = count / (time.perf_counter() - before)
        _check(system, list(range(count)), results)
    # a finished job's memory counts from the empty queue, the commands of the workers from the full one
    costs["bytes_per_job"] += (queued.size_bytes - empty.size_bytes) / count
    return runs, workers.started_at, ended_at, costs


def _check(system: QueueSystem, expected: list[int], found: list[object]) -> None:
    """Compare results; of a system with a known defect, only those that are there."""
    there = [place for place, result in enumerate(found) if result is not None or not system.flawed]
    same([found[place] for place in there], [expected[place] for place in there])


def latency(bench: Bench) -> dict[str, float]:
    """Submit single jobs to idle workers and wait for each result."""
    bench.system.open()
    with bench.workers():
        for number in range(WARM_UP):
            _check(bench.system, [number], [bench.system.call(number)])
        times: list[float] = []
        end = time.monotonic() + bench.scale.calls_s
        while len(times) < bench.scale.calls and time.monotonic() < end:
            time.sleep(IDLE_S)
            before = time.perf_counter()
            answer = bench.system.call(len(times))
            times.append(time.perf_counter() - before)
            same(answer, len(times) - 1)
    return {"p50_ms": percentile(times, 50) * 1e3, "p99_ms": percentile(times, 99) * 1e3, "calls": len(times)}


def map_items(bench: Bench) -> dict[str, float]:
    """Map a no-op function over many items; watch the memory here and in Redis."""
    system, items = bench.system, bench.scale.items
    system.open()
    with bench.workers():
        same(system.call(0), 0)
        empty = bench.place.usage()
        if isinstance(bench.place, RedisServer):
            bench.place.forget_peak()
        memory = PeakMemory()
        before = time.perf_counter()
        total = sum(system.map(work.increment, range(items)))
        wall = time.perf_counter() - before
        same(total, items * (items + 1) // 2)
        figures = {"items_per_s": items / wall, "grew_mb": memory.grown() / MEGABYTE}
        if isinstance(bench.place, RedisServer):
            figures["redis_mb"] = (bench.place.peak_bytes() - empty.size_bytes) / MEGABYTE
    return figures


def long_queue(bench: Bench) -> dict[str, float]:
    """Claim jobs from a short and from a long queue."""
    bench.system.open()
    return waiting.compare(bench.system, bench.place, few=bench.scale.few, many=bench.scale.many)


SCENARIOS: dict[str, Callable[[Bench], dict[str, float]]] = {
    "submit": submit,
    "bulk": bulk,
    "four": four,
    "drain": drain,
    "ten": ten,
    "cpu": cpu,
    "latency": latency,
    "map": map_items,
    "waiting": long_queue,
}
