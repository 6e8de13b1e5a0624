"""Put the figures of the last whole runs into README.md: `python -m bench.readme`.

    results/latest.json  ──▶  <!-- bench local -->  ten goals, circumstances  <!-- end -->
    results/redis.json   ──▶  <!-- bench redis -->  ...

So no figure there is typed by hand, and a test can tell when one is old. Of the goals the README has those by which
users decide, and every one that was missed; all stand in the results' own Markdown.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import report
from bench.suite import load_suite
from bench.tables import goal_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.tables import Table

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
#: Suite -> the work and the start of the peer's name of the goals that are shown, in their order.
SHOWN = {
    "local": (
        ("no-op ints, imap_unordered", "Pool imap_unordered c=4096"),
        ("no-op dicts, imap_unordered", ""),
        ("no-op submit", ""),
        ("latency p50, 3 ms apart", ""),
        ("latency p99, 3 ms apart", ""),
        ("1 ms tasks, imap_unordered", ""),
        ("long and short, imap_unordered", ""),
        ("1 MB in and out, imap_unordered", ""),
        ("lazy input, imap_unordered", ""),
        ("start to first result, fork", ""),
    ),
    "redis": (
        ("no-op jobs worked off", "rq"),
        ("no-op jobs worked off", "Huey"),
        ("with 10 processes", ""),
        ("Redis memory per finished job", ""),
        ("submit one by one", ""),
        ("submit in bulk", ""),
        ("latency p50", "Huey"),
        ("latency p99", "Huey"),
        ("map, items/s", ""),
        ("10 ms jobs, efficiency", ""),
    ),
    "sqlite": (
        ("submit one by one, FULL", ""),
        ("submit one by one, NORMAL", ""),
        ("submit from four processes, FULL", ""),
        ("submit from four processes, NORMAL", ""),
        ("submit in bulk, FULL", ""),
        ("no-op jobs worked off, FULL", ""),
        ("no-op jobs worked off, NORMAL", ""),
        ("latency p50", ""),
        ("claim, 1,000,000 waiting against 1,000", ""),
    ),
}
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
    table = goal_table(summary)
    headline = report.headline(facts, summary) + "\n\n"
    if table is None:
        return f"\n{headline}"
    shown = _shown(table, SHOWN[suite])
    title = f"{table.title}, {len(shown.rows)} of them here, all in `bench/results/{path.stem}.md`"
    return f"\n{title}:\n\n{report.markdown_table(shown)}\n\n{headline}"


def _shown(table: Table, wanted: Sequence[tuple[str, str]]) -> Table:
    """Return the rows of these goals, and of those that were missed."""
    kept = [
        index
        for index, (work, peer, *_) in enumerate(table.rows)
        if index in table.marked or any(work == text and peer.startswith(start) for text, start in wanted)
    ]
    marked = frozenset(place for place, index in enumerate(kept) if index in table.marked)
    return replace(table, rows=tuple(table.rows[index] for index in kept), marked=marked)


def main() -> None:
    """Rewrite README.md."""
    README.write_text(filled(README.read_text(encoding="utf-8"), section_of), encoding="utf-8")


if __name__ == "__main__":
    main()
