"""The way of one job through the code, counted: `python -m bench.walk`; of the code itself: `--house`.

room   a file of taskq/ or executors/ in which something is called
call   a call of a function there (comprehensions left out), in any thread of any process
move   two consecutive calls of one thread in different rooms

Each walk runs in fresh processes, one job after some that warm up, with pauses, several times; the figures are those of
the job whose number of moves is the median: what happens once a second falls into some of the jobs only.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from bench import house
from bench.queues.place import RedisServer
from bench.walk_probe import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that one walk may take.
LIMIT_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A job to follow: its name, where it runs, and which of the probe's jobs it is."""

    name: str
    store: str
    job: str


WALKS = {
    walk.name: walk
    for walk in (
        Walk(name="local", store="local", job="direct"),
        Walk(name="local-dispatcher", store="local", job="timeout"),
        Walk(name="local-map", store="local", job="map"),
        Walk(name="sqlite", store="sqlite", job="direct"),
        Walk(name="redis", store="redis", job="direct"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a function of ours, and which thread of which process made it."""

    at: int
    thread: tuple[int, int]
    room: str
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The figures of one walk."""

    walk: str
    rooms: int
    calls: int
    moves: int
    threads: int


@click.command()
@click.option("--only", multiple=True, type=click.Choice(tuple(WALKS)), help="Only this walk; may be given again.")
@click.option("--times", default=5, show_default=True, type=click.IntRange(1), help="Measured jobs of each walk.")
@click.option("--steps", is_flag=True, help="Print the way itself: for each thread its rooms and calls in order.")
@click.option("--house", "of_house", is_flag=True, help="Print the figures of the code itself instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(*, only: tuple[str, ...], times: int, steps: bool, of_house: bool, as_json: bool) -> None:
    """Count the rooms, calls and moves of one job on each executor."""
    if of_house:
        house.show(house.survey(ROOT), as_json=as_json)
        return
    counts: list[Count] = []
    for name in only or tuple(WALKS):
        walk = WALKS[name]
        if walk.store == "redis" and shutil.which("redis-server") is None:
            click.echo(f"{name}: left out, there is no redis-server on PATH", err=True)
            continue
        calls = follow(walk, times)
        counts.append(count(walk.name, calls))
        if steps:
            _print_steps(walk.name, calls)
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in counts], indent=2))
    else:
        _print_table(counts)


def follow(walk: Walk, times: int) -> list[Call]:
    """Run one walk; return the calls of its job, in the order of time."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="walk-"))
        calls = Path(folder, "calls")
        calls.mkdir()
        url = stack.enter_context(_store(walk.store, folder))
        if walk.store != "local":
            stack.enter_context(_worker(url, str(calls)))
        program = "print(json.dumps(walk_probe.run_client(*sys.argv[1:4], int(sys.argv[4]))))"
        command = [
            sys.executable,
            "-c",
            f"import json, sys; from bench import walk_probe; {program}",
            walk.job,
            url,
            str(calls),
            str(times),
        ]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=True)
        spans = json.loads(done.stdout)
        found = list(_calls_in(calls))
    samples = [[call for call in found if begin <= call.at < end] for begin, end in spans]
    return sorted(samples, key=lambda sample: count("", sample).moves)[len(samples) // 2]


def count(name: str, calls: list[Call]) -> Count:
    """Return the figures of one job's calls."""
    ways = ways_of(calls)
    return Count(
        walk=name,
        rooms=len({call.room for call in calls}),
        calls=len(calls),
        moves=sum(before.room != after.room for way in ways for before, after in itertools.pairwise(way)),
        threads=len(ways),
    )


def ways_of(calls: list[Call]) -> list[list[Call]]:
    """Return the calls of each thread, the thread that was first in front."""
    ways: dict[tuple[int, int], list[Call]] = collections.defaultdict(list)
    for call in sorted(calls, key=lambda call: call.at):
        ways[call.thread].append(call)
    return list(ways.values())


def _calls_in(folder: Path) -> Iterator[Call]:
    """Read what the processes have written down."""
    for file in folder.iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            at, thread, room, function = line.split(" ", 3)
            yield Call(at=int(at), thread=(int(file.name), int(thread)), room=room, function=function)


@contextmanager
def _store(kind: str, folder: str) -> Iterator[str]:
    """Return the URL of a fresh place for jobs."""
    if kind == "redis":
        server = RedisServer()
        try:
            yield server.address
        finally:
            server.stop()
    else:
        yield "local://" if kind == "local" else f"sqlite:///{folder}/queue.db"


@contextmanager
def _worker(url: str, folder: str) -> Iterator[None]:
    """Run a worker with one process."""
    program = "import sys; from bench import walk_probe; walk_probe.run_worker(*sys.argv[1:])"
    environment = {**os.environ, "TASKQ_LOG_LEVEL": "warning"}
    worker = subprocess.Popen([sys.executable, "-c", program, url, folder], cwd=ROOT, env=environment)
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


def _print_table(counts: list[Count]) -> None:
    table = Table("walk")
    for heading in ("rooms", "calls", "moves", "threads"):
        table.add_column(heading, justify="right")
    for entry in counts:
        table.add_row(entry.walk, str(entry.rooms), str(entry.calls), str(entry.moves), str(entry.threads))
    Console().print(table)


def _print_steps(name: str, calls: list[Call]) -> None:
    """Print each thread's way: a line for each stay in a room."""
    for number, way in enumerate(ways_of(calls), 1):
        click.echo(f"{name}, thread {number}:")
        for room, stay in itertools.groupby(way, key=lambda call: call.room):
            click.echo(f"  {room:<40} {', '.join(call.function for call in stay)}")


if __name__ == "__main__":
    main()
