"""Render a run: tables on the terminal, Markdown for a README, JSON for machines (and back from it)."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table as RichTable

from bench.goals import verdicts
from bench.measure import Case, Record
from bench.suite import load_suite
from bench.summary import Summary
from bench.tables import Table, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

Facts = dict[str, Any]


def summary_of(facts: Facts, records: Sequence[Record]) -> Summary:
    """Return the summary of a run of the suite that its facts name."""
    return Summary(load_suite(facts.get("suite", "local")), records)


def print_tables(console: Console, summary: Summary, facts: Facts) -> None:
    """Print every table, then the circumstances."""
    for table in tables(summary):
        console.print(table.title, style="bold", highlight=False)
        console.print(_rich(table))
    console.print(headline(facts, summary), style="dim")


def markdown(summary: Summary, facts: Facts) -> str:
    """Return the tables and the circumstances as Markdown."""
    parts = [f"### {table.title}\n\n{markdown_table(table)}\n" for table in tables(summary)]
    return "\n".join([*parts, headline(facts, summary) + "\n"])


def headline(facts: Facts, summary: Summary) -> str:
    """Tell in a few words what was measured, where and when."""
    machine, settings = facts["machine"], facts["settings"]
    bad, count = summary.disturbed()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"Medians of {settings['rounds']} rounds, {settings['processes']} processes, "
        f"scale {settings['scale']}. "
        f"{machine['cpus']} x {machine['cpu']}, {machine['memory_gb']} GB, {machine['kernel']}, "
        f"{machine['python']}. "
        f"{versions}. Commit {facts['commit'] or '-'}, {facts['date']}. "
        f"{count} measurements, {bad} of them disturbed by other load."
    )


def save(path: Path, facts: Facts, records: Sequence[Record]) -> None:
    """Write circumstances, figures, goals and every single measurement as JSON."""
    summary = summary_of(facts, records)
    data = {
        **facts,
        "goals": [dataclasses.asdict(verdict) for verdict in verdicts(summary)],
        "figures": list(_figures(summary)),
        "records": [dataclasses.asdict(record) for record in records],
    }
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[Facts, list[Record]]:
    """Read back what `save` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    records = [Record(**{**record, "case": Case(**record["case"])}) for record in data.pop("records")]
    return data, records


def _figures(summary: Summary) -> Iterator[dict[str, object]]:
    for test in summary.tests():
        for case in summary.cases(test):
            for metric in summary.suite.tests[test].metrics:
                if spread := summary.spread(case, metric.key):
                    row = {**dataclasses.asdict(case), "metric": metric.key, "unit": metric.unit}
                    yield {**row, **dataclasses.asdict(spread)}


def _rich(table: Table) -> RichTable:
    made = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, name in enumerate(table.head):
        text = index < table.text_columns
        made.add_column(name, justify="left" if text else "right", no_wrap=index == 0 or not text, overflow="fold")
    style = "bold red" if table.title.startswith("Goals") else "bold green"
    for index, row in enumerate(table.rows):
        made.add_row(*row, style=style if index in table.marked else None)
    return made


def markdown_table(table: Table) -> str:
    """Return one table as Markdown."""
    rule = ["---" if index < table.text_columns else "---:" for index in range(len(table.head))]
    rows = [
        tuple(f"**{cell}**" if cell else "" for cell in row) if index in table.marked else row
        for index, row in enumerate(table.rows)
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [table.head, tuple(rule), *rows])
