"""Records to figures: the median, least and most of each, over the undisturbed rounds."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.measure import FOREIGN_LIMIT, Case

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.measure import Record
    from bench.suite import Metric, Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure over the rounds."""

    median: float
    least: float
    most: float
    rounds: int


class Summary:
    """The figures of a whole run, asked by test, system, way and metric."""

    def __init__(self, suite: Suite, records: Sequence[Record]) -> None:
        """Group the records by case, in the order in which they were measured."""
        self.suite = suite
        self._by_case: dict[Case, list[Record]] = {}
        for record in records:
            self._by_case.setdefault(record.case, []).append(record)

    def cases(self, test: str) -> list[Case]:
        """List what was measured in this test."""
        return [case for case in self._by_case if case.test == test]

    def tests(self) -> list[str]:
        """List the tests that were run, in the order of the suite."""
        return [test for test in self.suite.tests if self.cases(test)]

    def spread(self, case: Case, metric: str) -> Spread | None:
        """Return the figure of one case; None when no measurement gave it."""
        values = [
            float(record.figures[metric])
            for record in _undisturbed(self._by_case.get(case, []))
            if metric in record.figures
        ]
        if not values:
            return None
        return Spread(median=statistics.median(values), least=min(values), most=max(values), rounds=len(values))

    def words(self, case: Case, key: str) -> str:
        """Return an answer in words; how often each came, when the rounds differ."""
        found = Counter(str(record.figures.get(key, "failed")) for record in self._by_case.get(case, []))
        if len(found) == 1:
            return next(iter(found))
        return ", ".join(f"{word} ({count} of {found.total()})" for word, count in found.most_common())

    def failures(self) -> dict[Case, str]:
        """Return the first error of each case that had one."""
        return {
            record.case: record.error for group in self._by_case.values() for record in reversed(group) if record.error
        }

    def best(self, metric: Metric, cases: Iterable[Case]) -> tuple[Case, float] | None:
        """Return the case with the best median, and that median."""
        found = [(case, spread.median) for case in cases if (spread := self.spread(case, metric.key))]
        return (max if metric.more else min)(found, key=lambda pair: pair[1], default=None)

    def disturbed(self) -> tuple[int, int]:
        """Count the measurements that other load disturbed in all their tries, and all measurements."""
        records = [record for group in self._by_case.values() for record in group]
        return sum(not _quiet(record) for record in records), len(records)


def _quiet(record: Record) -> bool:
    # more than the limit of the driver: one short foreign burst in a short measurement does not spoil it
    return record.foreign is None or record.foreign <= 2 * FOREIGN_LIMIT


def _undisturbed(records: list[Record]) -> list[Record]:
    """Drop disturbed rounds when there are others of the same case."""
    return [record for record in records if _quiet(record)] or records
