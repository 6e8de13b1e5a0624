"""The loop of `taskq map`: lines to the pool, outcomes to rows, and a count of both.

    Lines ──line──▶ TaskQueue.imap ──outcome──▶ row ──▶ RowWriter
                                       └──▶ Tally, Progress

Nothing is kept: a million lines take no more memory than a thousand.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskq.cli.exits import Exit
from taskq.cli.failures import in_words
from taskq.cli.journal import JournaledLines
from taskq.cli.jsonl import error_row, result_row
from taskq.cli.messages import say, say_document
from taskq.cli.output import OutputClosed, RowWriter
from taskq.cli.pool import end_at_once, opened
from taskq.errors import PoolBroken, QueueClosed
from taskq.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from taskq.cli.journal import Journal, Known
    from taskq.cli.jsonl import Lines, Place
    from taskq.cli.lines import Outcome
    from taskq.cli.output import Output
    from taskq.cli.resume import Earlier
    from taskq.config import Settings
    from taskq.options import JobOptionFields
    from taskq.queue import TaskQueue

__all__ = ["Plan", "run_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Hold what one `taskq map` is to do."""

    label: str
    function: Callable[[bytes], Outcome]
    options: JobOptionFields
    settings: Settings
    unordered: bool
    stop: bool
    tracebacks: bool
    as_json: bool
    #: Whether lines that failed in an earlier run run again.
    again: bool = False


@dataclass(slots=True, kw_only=True)
class Tally:
    """Count rows and errors, those of earlier runs included, and keep the first error's words."""

    rows: int
    failed: int
    skipped: int
    began: float
    first: str = ""

    def fail(self, line: int, words: str) -> None:
        """Count an error."""
        self.failed += 1
        self.first = self.first or f"line {line}: {words}"


def run_plan(
    plan: Plan,
    lines: Lines,
    output: Output,
    earlier: Earlier,
    *,
    journal: Journal | None = None,
    known: Known | None = None,
    kept: Callable[[int], Iterator[bytes]] | None = None,
) -> int:
    """Run a plan to its end and tell how it went; return the exit code.

    `known`: outcomes of an earlier run that have no row. `kept`: gives the earlier rows that come before an item's.
    """
    tally = Tally(rows=earlier.rows, failed=earlier.failed, skipped=earlier.rows, began=time.monotonic())
    try:
        _run(plan, lines, output, tally, journal=journal, known=dict(sorted((known or {}).items())), kept=kept)
    except KeyboardInterrupt:
        _tell_interrupted(plan, tally, output)
        raise
    _tell_end(plan, tally)
    return Exit.FAILED if tally.failed else Exit.OK


def _run(
    plan: Plan,
    lines: Lines,
    output: Output,
    tally: Tally,
    *,
    journal: Journal | None,
    known: Known,
    kept: Callable[[int], Iterator[bytes]] | None,
) -> None:
    with (
        _stopped_by_output() as stop,
        RowWriter(output, stop) as writer,
        _progress(plan, lines, output, tally) as progress,
        opened(plan.settings, plan.settings.processes) as queue,
    ):
        rows = _Rows(plan, writer, tally, progress, kept)
        if journal is not None:
            journal.write_to(writer)
        for sent, outcome in _stream(plan, queue, lines, journal):
            place = lines.taken(sent)
            fine = place is None or (rows.before(known, place[0]) and rows.put(place, outcome))
            if journal is not None:
                journal.row(sent)
            if not fine:
                if journal is not None:
                    journal.keep()
                end_at_once(queue)
                return
        rows.before(known, None)


class _Rows:
    """Make rows of outcomes, and count them."""

    def __init__(
        self,
        plan: Plan,
        writer: RowWriter,
        tally: Tally,
        progress: Progress,
        kept: Callable[[int], Iterator[bytes]] | None,
    ) -> None:
        self._kept = kept
        self._plan = plan
        self._writer = writer
        self._tally = tally
        self._progress = progress

    def before(self, known: Known, item: int | None) -> bool:
        """Write what is known of items before this one, of all for None; return whether the map is to go on."""
        while known:
            first = next(iter(known))
            if item is not None and first > item and not self._plan.unordered:
                break
            number, outcome = known.pop(first)
            if not self.put((first, number), outcome):
                return False
        return True

    def put(self, place: Place, outcome: Outcome | BaseException) -> bool:
        """Write a row; return whether the map is to go on."""
        item, number = place
        index = item if self._plan.unordered else None
        if isinstance(outcome, (PoolBroken, QueueClosed)):
            raise outcome
        if self._kept is not None:
            for row in self._kept(item):
                self._writer.put(row)
        self._tally.rows += 1
        if isinstance(outcome, bytes):
            self._writer.put(result_row(outcome, index))
            self._progress.advance()
            return True
        self._writer.put(error_row(outcome, number, index, tracebacks=self._plan.tracebacks))
        self._progress.advance(failed=1)
        self._tally.fail(number, _words(outcome))
        return not self._plan.stop


@contextlib.contextmanager
def _stopped_by_output() -> Iterator[Callable[[], None]]:
    """Yield what ends the block from another thread when rows cannot be written: the next may be long in coming.

    Main thread only. The error itself is raised where the block of the rows ends.
    """
    main, broken = threading.get_ident(), threading.Event()

    def stop() -> None:
        broken.set()
        signal.pthread_kill(main, signal.SIGPIPE)

    def raise_it(_signum: int, _frame: FrameType | None) -> None:
        if broken.is_set():  # it also comes of any write to a process that has ended, whose error is dealt with there
            raise OutputClosed("the rows cannot be written")

    before = signal.signal(signal.SIGPIPE, raise_it)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGPIPE, before)


def _stream(plan: Plan, queue: TaskQueue, lines: Lines, journal: Journal | None) -> Iterable[tuple[int, Any]]:
    bound = queue.options(**plan.options)
    stream: Any = bound.imap_unordered if plan.unordered else bound.imap
    items = lines if journal is None else JournaledLines(lines, journal)
    outcomes: Iterable[tuple[int, Any]] = stream(
        plan.function, items, chunksize=plan.settings.chunksize, return_exceptions=True, with_index=True
    )
    return outcomes


def _progress(plan: Plan, lines: Lines, output: Output, tally: Tally) -> Progress:
    """Return the bar; none by default where the rows themselves scroll over the terminal."""
    enabled = plan.settings.progress
    if enabled is None and os.isatty(output.descriptor):
        enabled = False
    progress = Progress(None, plan.label, enabled)
    progress.advance(tally.rows, tally.failed)
    if progress.shown:
        lines.show_total(progress)
    return progress


def _words(outcome: list[Any] | BaseException) -> str:
    return in_words(outcome) if isinstance(outcome, BaseException) else f"{outcome[0]}: {outcome[1]}"


def _tell_end(plan: Plan, tally: Tally) -> None:
    if plan.as_json:
        say_document(_document(tally))
    elif plan.stop and tally.first:
        say(f"map: stopped at {tally.first}", error=True)
    elif tally.failed:
        first = f"; the first: {tally.first}" if tally.first else ", all in an earlier run"
        say(f"map: {tally.failed:,} of {tally.rows:,} lines failed{first}", error=True)


def _document(tally: Tally) -> dict[str, Any]:
    return {
        "rows": tally.rows,
        "failed": tally.failed,
        "skipped": tally.skipped,
        "duration_s": round(time.monotonic() - tally.began, 3),
    }


def _tell_interrupted(plan: Plan, tally: Tally, output: Output) -> None:
    flag = "--retry-failed" if plan.again else "--resume"
    cure = f"; run it again with {flag} to go on" if output.resumable else ""
    say(f"map: interrupted after {tally.rows:,} rows{cure}")
