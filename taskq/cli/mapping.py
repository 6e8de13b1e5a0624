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
from taskq.cli.jsonl import error_row, result_row
from taskq.cli.messages import say, say_document
from taskq.cli.output import OutputClosed, RowWriter
from taskq.cli.pool import MOMENT, opened
from taskq.errors import PoolBroken, QueueClosed
from taskq.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from taskq.cli.jsonl import Lines
    from taskq.cli.lines import Outcome
    from taskq.cli.output import Output
    from taskq.cli.resume import Earlier
    from taskq.config import Settings
    from taskq.option_fields import JobOptionFields
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


def run_plan(plan: Plan, lines: Lines, output: Output, earlier: Earlier) -> int:
    """Run a plan to its end and tell how it went; return the exit code."""
    tally = Tally(rows=earlier.rows, failed=earlier.failed, skipped=earlier.rows, began=time.monotonic())
    try:
        _run(plan, lines, output, tally)
    except KeyboardInterrupt:
        _tell_interrupted(tally, output)
        raise
    _tell_end(plan, tally)
    return Exit.FAILED if tally.failed else Exit.OK


def _run(plan: Plan, lines: Lines, output: Output, tally: Tally) -> None:
    with (
        _stopped_by_output() as stop,
        RowWriter(output, stop) as writer,
        _progress(plan, lines, output, tally) as progress,
        opened(plan.settings, plan.settings.processes) as queue,
    ):
        for sent, outcome in _stream(plan, queue, lines):
            place = lines.taken(sent)
            if place is None:
                continue
            item, number = place
            index = item if plan.unordered else None
            tally.rows += 1
            if type(outcome) is bytes:
                writer.put(result_row(outcome, index))
                progress.advance()
                continue
            if isinstance(outcome, (PoolBroken, QueueClosed)):
                raise outcome
            writer.put(error_row(outcome, number, index, tracebacks=plan.tracebacks))
            progress.advance(failed=1)
            tally.fail(number, _words(outcome))
            if plan.stop:
                queue.shutdown(cancel_futures=True, grace=MOMENT)
                return


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


def _stream(plan: Plan, queue: TaskQueue, lines: Lines) -> Iterable[tuple[int, Any]]:
    bound = queue.options(**plan.options)
    stream: Any = bound.imap_unordered if plan.unordered else bound.imap
    outcomes: Iterable[tuple[int, Any]] = stream(
        plan.function, lines, chunksize=plan.settings.chunksize, return_exceptions=True, with_index=True
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


def _tell_interrupted(tally: Tally, output: Output) -> None:
    cure = "; run it again with --resume to go on" if output.resumable else ""
    say(f"map: interrupted after {tally.rows:,} rows{cure}")
