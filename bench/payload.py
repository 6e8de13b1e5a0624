"""How fast large values travel: `make bench-payload`.

A sweep over sizes and kinds of values, as an argument and as a result, by taskq and by `ProcessPoolExecutor`, in
alternating rounds in one program. Writes `results/payload.*`: JSON, Markdown, and a picture of the ratios.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from taskq import TaskQueue

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).resolve().parent / "results"
MIB = 1 << 20
SIZES = (1, 4, 16, 64, 256, 1024)
DIRECTIONS = ("in", "out")
#: Characters of one text of the list.
TEXT = 1000
KINDS: dict[str, Callable[[int], Any]] = {
    "bytes": lambda size: os.urandom(MIB) * (size // MIB),
    "numpy": lambda size: np.arange(size // 8, dtype=np.float64),
    "str": lambda size: "taskq-1 " * (size // 8),
    "list": lambda size: [f"{number:0{TEXT}}" for number in range(size // TEXT)],
}
#: Bytes that a system moves for one figure, at least, in values one after the other.
PORTION = 64 * MIB
#: Rounds of sizes from which one call takes so long that few of them do.
FEW_FROM, FEW = 256 * MIB, 2

_kept: dict[tuple[str, int], Any] = {}


def take(value: Any) -> int:
    """Receive a value."""
    return len(value)


def give(kind: str, size: int) -> Any:
    """Return a value that was made before."""
    return _kept[kind, size]


def keep(kind: str, size: int) -> int:
    """Make the only value that is kept here; return the process's number."""
    if (kind, size) not in _kept:
        _kept.clear()
        _kept[kind, size] = KINDS[kind](size)
    return os.getpid()


def seconds_in(executor: Executor, value: Any, calls: int) -> float:
    """Return what it takes to have a value as the argument of so many calls."""
    started = perf_counter()
    for _ in range(calls):
        assert executor.submit(take, value).result() == len(value)
    return (perf_counter() - started) / calls


def seconds_out(executor: Executor, kind: str, size: int, calls: int) -> float:
    """Return what it takes to have a value as the result of so many calls."""
    executor.submit(keep, kind, size).result()
    length = len(executor.submit(give, kind, size).result())
    started = perf_counter()
    for _ in range(calls):
        assert len(executor.submit(give, kind, size).result()) == length
    return (perf_counter() - started) / calls


def measure(executors: dict[str, Executor], kind: str, mib: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each direction: MiB/s of each system in every round, and the ratio of the medians."""
    size = mib * MIB
    calls = max(1, PORTION // size)
    rounds = 1 if mib == max(SIZES) else min(rounds, FEW) if size >= FEW_FROM else rounds
    value = KINDS[kind](size)
    found: dict[str, dict[str, list[float]]] = {way: {name: [] for name in executors} for way in DIRECTIONS}
    for number in range(rounds):
        turn = list(executors.items())
        for name, executor in turn if number % 2 == 0 else turn[::-1]:
            found["in"][name].append(mib / seconds_in(executor, value, calls))
            gc.collect()
    del value
    for number in range(rounds):
        turn = list(executors.items())
        for name, executor in turn if number % 2 == 0 else turn[::-1]:
            found["out"][name].append(mib / seconds_out(executor, kind, size, calls))
            executor.submit(keep, "bytes", MIB).result()
            gc.collect()
    return [row_of(kind, mib, way, found[way]) for way in DIRECTIONS]


def row_of(kind: str, mib: int, way: str, speeds: dict[str, list[float]]) -> dict[str, Any]:
    """Return one cell of the table."""
    ours, theirs = (statistics.median(values) for values in speeds.values())
    return {"kind": kind, "mib": mib, "way": way, "speeds": speeds, "ratio": ours / theirs}


def text_of(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown: MiB/s of both, and how many times as fast taskq is."""
    lines = ["| value | way | MiB | taskq MiB/s | ProcessPoolExecutor MiB/s | ratio |", "|---|---|---|---|---|---|"]
    for row in rows:
        ours, theirs = (statistics.median(values) for values in row["speeds"].values())
        lines.append(
            f"| {row['kind']} | {row['way']} | {row['mib']} | {ours:,.0f} | {theirs:,.0f} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios: one panel for each way, one line for each kind of value."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, way in zip(figure.subplots(1, len(DIRECTIONS), sharey=True), DIRECTIONS, strict=True):
        for kind in KINDS:
            points = [(row["mib"], row["ratio"]) for row in rows if (row["kind"], row["way"]) == (kind, way)]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=kind)
        axes.axhline(1, color="#7b8794", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="MiB of the value", title=f"{way}: taskq / ProcessPoolExecutor")
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.set_yticks((0.5, 1, 2, 4, 8, 16), ("0.5", "1", "2", "4", "8", "16"))
        axes.minorticks_off()
        axes.legend()
    figure.savefig(path, dpi=120)


@click.command()
@click.option("--max-mib", default=max(SIZES), show_default=True, help="Leave larger values out: 1024 takes 8 GB.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Alternating rounds of a cell.")
@click.option("--out", default=RESULTS, type=click.Path(file_okay=False, path_type=Path), help="Folder of the results.")
@click.option("--name", default="payload", show_default=True, help="Name of the result files.")
def main(*, max_mib: int, rounds: int, out: Path, name: str) -> None:
    """Measure how fast large values travel."""
    rows: list[dict[str, Any]] = []
    context = get_context("forkserver")
    # One process each: both are measured with what one value takes, and only one of them holds it.
    with TaskQueue("local://", processes=1) as ours, ProcessPoolExecutor(1, mp_context=context) as theirs:
        executors: dict[str, Executor] = {"taskq": ours, "ProcessPoolExecutor": theirs}
        for mib in SIZES:
            for kind in KINDS if mib <= max_mib else ():
                rows += measure(executors, kind, mib, rounds)
                click.echo(text_of(rows[-2:]).split("\n", 2)[2], nl=False)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(text_of(rows), encoding="utf-8")
    draw(rows, out / f"{name}.png")
    worst = min(rows, key=lambda row: float(row["ratio"]))
    click.echo(f"lowest ratio: {worst['ratio']:.2f} ({worst['kind']} {worst['way']}, {worst['mib']} MiB)")


if __name__ == "__main__":
    main()
