"""The command `python -m bench`."""

from __future__ import annotations

import compileall
import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import measure, report
from bench.machine import circumstances
from bench.suite import SCALES, SUITES, Suite, load_suite

if TYPE_CHECKING:
    from collections.abc import Mapping

RESULTS = Path(__file__).resolve().parent / "results"


class Names(click.ParamType[tuple[str, ...]]):
    """A list of names with commas between them."""

    name = "NAME,NAME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split; which names there are hangs on the suite."""
        del param, ctx
        return tuple(name.strip() for name in str(value).split(",") if name.strip())


@click.command()
@click.argument("key", metavar="[SUITE]", type=click.Choice(tuple(SUITES)), default="local")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Rounds over all systems.")
@click.option("--only", type=Names(), help="Only these systems; a wrong name lists them.")
@click.option("--tests", type=Names(), help="Only these tests; a wrong name lists them.")
@click.option("--quick", is_flag=True, help="One round of little work: a look, not figures to publish.")
@click.option("--scale", type=click.Choice(SCALES), help="Amount of work (default: full; with --quick: quick).")
@click.option("--processes", default=2, show_default=True, type=click.IntRange(1), help="Processes of each system.")
@click.option("--repeats", type=click.FloatRange(0), help="Seconds for repeats of disturbed measurements [120].")
@click.option("--out", default=RESULTS, type=click.Path(file_okay=False, path_type=Path), help="Folder of the results.")
@click.option("--name", help="Name of the result files (default: the suite's for all of it, else partial).")
@click.option(
    "--show", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Show an earlier run's JSON."
)
def main(
    *,
    key: str,
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

    SUITE is local (pools of processes; the default), redis or sqlite (queues that outlive a process).

    Prints tables, and writes NAME.json, NAME.md and NAME.png into the folder of the results.
    """
    if show:
        facts, records = report.read(show)
        report.print_tables(_terminal(), report.summary_of(facts, records), facts)
        return
    suite = load_suite(key)
    settings = measure.Settings(
        scale=scale or ("quick" if quick else "full"),
        processes=processes,
        rounds=1 if quick else rounds,
        repeats_s=repeats if repeats is not None else 0.0 if quick else 120.0,
        steps_per_ms=measure.steps_per_ms(),
    )
    systems = _installed(suite, _known(only, suite.systems, "--only"))
    chosen = _known(tests, suite.tests, "--tests")
    steps = measure.plan(suite, chosen, systems, settings)
    _compile()
    facts = {**circumstances(suite, systems), "settings": dataclasses.asdict(settings)}
    records = _measure(suite, steps, settings)
    _deliver(out, name or results_name(suite, systems, chosen, settings.scale), facts, records)


def results_name(suite: Suite, systems: tuple[str, ...], tests: tuple[str, ...], scale: str) -> str:
    """Return the name of the result files: the suite's only for all tests of all systems, at full scale."""
    whole = scale == "full" and {*systems, *tests} == {*suite.systems, *suite.tests}
    return suite.results if whole else "partial"


def _known(names: tuple[str, ...] | None, known: Mapping[str, object], option: str) -> tuple[str, ...]:
    """Return the names that were asked for, or all."""
    for name in names or ():
        if name not in known:
            raise click.BadParameter(f"{name!r} is not one of: {', '.join(known)}", param_hint=option)
    return names or tuple(known)


def _compile() -> None:
    """Write the byte code of this checkout, as pip does when it installs a distribution: the peers have theirs."""
    compileall.compile_dir(RESULTS.parent.parent / "taskq", quiet=2)


def _installed(suite: Suite, systems: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the systems whose library is not there, and say so."""
    if missing := suite.missing():
        raise click.ClickException(missing)
    absent = [key for key in systems if not measure.is_installed(suite.system(key))]
    if absent:
        click.echo(f"not installed, left out: {', '.join(absent)} (make bench installs them)", err=True)
    return tuple(key for key in systems if key not in absent)


def _measure(suite: Suite, steps: list[tuple[int, measure.Case]], settings: measure.Settings) -> list[measure.Record]:
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
    measured = measure.run(suite, steps, settings)
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
    summary = report.summary_of(facts, records)
    report.save(out / f"{name}.json", facts, records)
    (out / f"{name}.md").write_text(report.markdown(summary, facts), encoding="utf-8")
    report.print_tables(_terminal(), summary, facts)
    for case, error in summary.failures().items():
        click.echo(f"failed: {case.test} {case.system} {case.way}: {error}", err=True)
    written = [f"{name}.json", f"{name}.md"]
    if importlib.util.find_spec("matplotlib"):
        from bench import plot

        title = f"{summary.suite.title} on {facts['settings']['processes']} processes: the best way of each"
        plot.draw(out / f"{name}.png", summary, title, report.headline(facts, summary))
        written.append(f"{name}.png")
    else:
        click.echo("no plot: matplotlib is not installed (make bench installs it)", err=True)
    click.echo(f"written to {out}: {', '.join(written)}")


def _terminal() -> Console:
    """Return the standard output: as wide as the terminal, or 100 columns in a file."""
    console = Console()
    return console if console.is_terminal else Console(width=100)


if __name__ == "__main__":
    main()
