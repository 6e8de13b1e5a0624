"""The command `python -m bench`."""

from __future__ import annotations

import compileall
import dataclasses
import importlib.util
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import measure, report
from bench.catalog import TESTS
from bench.machine import circumstances
from bench.scale import SCALES
from bench.summary import Summary
from bench.systems import SYSTEMS, load

RESULTS = Path(__file__).resolve().parent / "results"


class Names(click.ParamType[tuple[str, ...]]):
    """A list of known names with commas between them."""

    name = "NAME,NAME"

    def __init__(self, known: tuple[str, ...]) -> None:
        """Accept these names."""
        self.known = known

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split and check."""
        names = tuple(name.strip() for name in str(value).split(",") if name.strip())
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is not one of: {', '.join(self.known)}", param, ctx)
        return names


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Rounds over all systems.")
@click.option("--only", type=Names(tuple(SYSTEMS)), help=f"Only these systems: {', '.join(SYSTEMS)}.")
@click.option("--tests", type=Names(tuple(TESTS)), help=f"Only these tests: {', '.join(TESTS)}.")
@click.option("--quick", is_flag=True, help="One round of little work: a look in 90 s, not figures to publish.")
@click.option("--scale", type=click.Choice(tuple(SCALES)), help="Amount of work (default: full; with --quick: quick).")
@click.option("--processes", default=2, show_default=True, type=click.IntRange(1), help="Processes of each pool.")
@click.option("--repeats", type=click.FloatRange(0), help="Seconds for repeats of disturbed measurements [120].")
@click.option("--out", default=RESULTS, type=click.Path(file_okay=False, path_type=Path), help="Folder of the results.")
@click.option("--name", help="Name of the result files (default: latest for all of it, else partial).")
@click.option(
    "--show", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Show an earlier run's JSON."
)
def main(
    *,
    rounds: int,
    only: tuple[str, ...] | None,
    tests: tuple[str, ...] | None,
    quick: bool,
    scale: str | None,
    processes: int,
    repeats: float | None,
    out: Path,
    name: str | None,
    show: Path | None,
) -> None:
    """Measure taskq and its peers on the same work in alternating rounds.

    Prints tables, and writes NAME.json, NAME.md and NAME.png into the folder of the results.
    """
    if show:
        facts, records = report.read(show)
        report.print_tables(_terminal(), Summary(records), facts)
        return
    settings = measure.Settings(
        scale=scale or ("quick" if quick else "full"),
        processes=processes,
        rounds=1 if quick else rounds,
        repeats_s=repeats if repeats is not None else 0.0 if quick else 120.0,
        steps_per_ms=measure.steps_per_ms(),
    )
    _compile()
    systems = _installed(only or tuple(SYSTEMS))
    facts = {**circumstances(systems), "settings": dataclasses.asdict(settings)}
    records = _measure(measure.plan(tests or TESTS, systems, settings), settings)
    complete = settings.scale == "full" and not only and not tests
    _deliver(out, name or ("latest" if complete else "partial"), facts, records)


def _compile() -> None:
    """Write the byte code of this checkout, as pip does when it installs a distribution: the peers have theirs."""
    for package in ("taskq", "executors"):
        compileall.compile_dir(RESULTS.parent.parent / package, quiet=2)


def _installed(systems: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the systems whose library is not there, and say so."""
    missing = [key for key in systems if importlib.util.find_spec(load(key).imports.partition(".")[0]) is None]
    if missing:
        click.echo(f"not installed, left out: {', '.join(missing)} (they come with the extra `bench`)", err=True)
    return tuple(key for key in systems if key not in missing)


def _measure(steps: list[tuple[int, measure.Case]], settings: measure.Settings) -> list[measure.Record]:
    """Measure all, with a bar on a terminal, else a line for each test."""
    terminal = sys.stderr.isatty()
    columns = (
        TextColumn("{task.description:<46}"),
        BarColumn(None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # drawn only between measurements: a thread that redraws would be load
    progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False, disable=not terminal)
    records: list[measure.Record] = []
    measured = measure.run(steps, settings)
    with progress:
        bar = progress.add_task("", total=len(steps))
        for _, case in steps:
            if not terminal and (not records or records[-1].case.test != case.test):
                click.echo(f"measuring {case.test} ({len(records)} of {len(steps)} done)", err=True)
            progress.update(bar, description=f"{case.test} {case.system} {case.way}"[:46], refresh=True)
            records.append(next(measured))
            progress.advance(bar)
    return records


def _deliver(out: Path, name: str, facts: report.Facts, records: list[measure.Record]) -> None:
    """Write the files and print the tables."""
    out.mkdir(parents=True, exist_ok=True)
    summary = Summary(records)
    report.save(out / f"{name}.json", facts, records)
    (out / f"{name}.md").write_text(report.markdown(summary, facts), encoding="utf-8")
    report.print_tables(_terminal(), summary, facts)
    for case, error in summary.failures().items():
        click.echo(f"failed: {case.test} {case.system} {case.way}: {error}", err=True)
    written = [f"{name}.json", f"{name}.md"]
    if importlib.util.find_spec("matplotlib"):
        from bench import plot

        title = f"taskq and its peers on {facts['settings']['processes']} processes: the best way of each"
        plot.draw(out / f"{name}.png", summary, title, report.headline(facts, summary))
        written.append(f"{name}.png")
    else:
        click.echo("no plot: matplotlib is not installed (it comes with the extra `bench`)", err=True)
    click.echo(f"written to {out}: {', '.join(written)}")


def _terminal() -> Console:
    """Return the standard output: as wide as the terminal, or 100 columns in a file."""
    console = Console()
    return console if console.is_terminal else Console(width=100)


if __name__ == "__main__":
    main()
