"""Put the figures of the last whole runs into README.md: `python -m bench.readme`.

    results/latest.json  ──▶  <!-- bench local -->  goals, kills, circumstances  <!-- end -->
    results/redis.json   ──▶  <!-- bench redis -->  ...

So no figure there is typed by hand, and a test can tell when one is old.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bench import report
from bench.suite import load_suite
from bench.tables import goal_table, kill_table

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SECTION = re.compile(r"(?<=<!-- bench )(?P<suite>\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def filled(text: str, section: Callable[[str], str]) -> str:
    """Return the text with each section between its marks made anew."""
    return SECTION.sub(lambda mark: f"{mark['suite']}{mark[2]}{section(mark['suite'])}", text)


def section_of(suite: str) -> str:
    """Return the section of a suite by the results of its last whole run."""
    path = ROOT / "bench" / "results" / f"{load_suite(suite).results}.json"
    if not path.exists():
        return "\nNo whole run has been published yet.\n\n"
    facts, records = report.read(path)
    summary = report.summary_of(facts, records)
    tables = [table for table in (goal_table(summary), kill_table(summary)) if table]
    parts = [f"{table.title}:\n\n{report.markdown_table(table)}\n" for table in tables]
    return "\n" + "\n".join([*parts, report.headline(facts, summary) + "\n\n"])


def main() -> None:
    """Rewrite README.md."""
    README.write_text(filled(README.read_text(encoding="utf-8"), section_of), encoding="utf-8")


if __name__ == "__main__":
    main()
