"""`taskq map`: a task, or a command, for every line of a file of JSON lines.

    Lines ──line──▶ TaskQueue.imap ──outcome──▶ row ──▶ RowWriter
                                       └──▶ Tally, Progress

Nothing is kept: a million lines take no more memory than a thousand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from taskq.cli import map_command as map_command_line
from taskq.cli import map_line
from taskq.cli.arguments import find_task
from taskq.cli.exits import Exit
from taskq.cli.journal import Journal, JournaledLines, recover
from taskq.cli.jsonl import Lines, error_row, open_input, result_row
from taskq.cli.line_task import run_command_line, run_line
from taskq.cli.options import (
    CommandAfterDashes,
    command_flags,
    dashed,
    job_options,
    pool_flags,
    read_command_flags,
    read_settings,
)
from taskq.cli.resume import Either, nothing_done, read_back, rewriting
from taskq.cli.row_writer import RowWriter, file_output, refuse_own_input, stdout_output
from taskq.cli.run_inline import take_from_the_dead
from taskq.cli.signals import end_at_once, interruptible, opened_queue
from taskq.cli.stores import served
from taskq.cli.streams import OutputClosed, claimed_stdout
from taskq.cli.tell import in_words, say, say_document
from taskq.connect import is_durable, open_store
from taskq.errors import ConfigError, PoolBroken, QueueClosed
from taskq.progress import Progress
from taskq.tasks import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from taskq.cli.journal import Known
    from taskq.cli.jsonl import Place
    from taskq.cli.line_task import Outcome
    from taskq.cli.resume import Earlier
    from taskq.cli.row_writer import Output
    from taskq.config import Settings
    from taskq.options import JobOptionFields
    from taskq.queue import TaskQueue

__all__ = ["Plan", "map_command", "run_plan"]

#: Descriptor of stdin, which is not ours to close.
STDIN = 0

HELP = """Run a task for every line of a file: a JSON line in, a JSON line out.

A line that is an object is the task's keyword arguments, an array its arguments, anything else its one
argument. Blank lines are passed over. A line that fails gives {"error": {"type", "message", "line"}} in its
place, and exit code 1 in the end; the others go on. Rows come in the order of the lines; with --unordered as
they are done, each as {"index": ..., "result": ...}, index counting from 0.

In a command after --, {} stands for the line's value, {name} for a field of an object, {0} for an entry of an
array, and {.} {/} {//} {/.} for the value's path without extension, file name, folder, and file name without
extension; without any of these the value is added at the end. Its exit code and output are the row.

\b
Examples:
  taskq map tasks:thumbnail --jsonl items.jsonl > thumbnails.jsonl
  taskq map tasks:thumbnail --jsonl items.jsonl -o thumbnails.jsonl --resume
  taskq map tasks:thumbnail --jsonl items.jsonl -o thumbnails.jsonl --retry-failed
  jq -c '.items[]' big.json | taskq map shop.prices:convert --jsonl - --unordered
  taskq map --jsonl files.jsonl -- gzip -k {}
  taskq map --jsonl videos.jsonl --timeout 1h --retries 1 -- ffmpeg -i {} {.}.mp4
"""


@click.command("map", cls=CommandAfterDashes, help=HELP, short_help="Run a task or command per line.")
@click.argument("target", required=False, metavar="MODULE:FUNCTION")
@click.option("--jsonl", metavar="FILE|-", required=True, type=click.Path(), help="The lines; - is stdin.")
@click.option("--output", "-o", metavar="FILE", type=click.Path(), help="Where rows go; default: stdout.")
@click.option("--resume", is_flag=True, help="Skip lines that have a row in the output; a failed last row runs again.")
@click.option("--retry-failed", is_flag=True, help="As --resume, and run every line again whose row is an error.")
@click.option("--force", is_flag=True, help="Overwrite an output file that is not empty.")
@click.option("--unordered", is_flag=True, help="Write rows as they are done, with their index.")
@click.option(
    "--on-error",
    type=click.Choice(["continue", "stop"]),
    default="continue",
    help="Whether to go on after a line that failed; default: continue.",
)
@click.option("--chunksize", metavar="N", help="Lines in a batch; default: by measured time.")
@click.option("--progress/--no-progress", default=None, help="Show how far it is; default: on a terminal.")
@command_flags
@pool_flags
@click.pass_context
def map_command(
    ctx: click.Context,
    /,
    target: str | None,
    jsonl: str,
    output: str | None,
    on_error: str,
    *,
    resume: bool,
    retry_failed: bool,
    force: bool,
    unordered: bool,
    tracebacks: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Run the command."""
    said = {name: flags.pop(name) for name in ("cwd", "env")}
    settings = read_settings(flags)
    command_options = read_command_flags(said, settings.url, is_command=target is None)
    with interruptible(), contextlib.ExitStack() as stack:
        stdout = stack.enter_context(claimed_stdout())
        plan = _plan(
            target,
            dashed(ctx),
            settings,
            command_options,
            unordered=unordered,
            stop=on_error == "stop",
            tracebacks=tracebacks,
            as_json=as_json,
            again=retry_failed,
        )
        keep = resume or retry_failed
        source, name = open_input(jsonl)
        stack.callback(_close, source)
        place = stack.enter_context(_output(output, stdout, source, keep=keep, force=force))
        earlier = read_back(place, unordered=unordered, again=retry_failed) if keep else nothing_done()
        _advise(plan, target)
        with _journal(plan.settings.url, place, keep=keep) as journal:
            known = {} if journal is None else _recover(plan, journal, earlier)
            lines = Lines(source, name, Either(earlier.done, known.copy()) if known else earlier.done)
            if not earlier.failures:
                return run_plan(plan, lines, place, earlier, journal=journal, known=known)
            with rewriting(place, earlier, unordered=unordered) as rewrite:
                return run_plan(plan, lines, rewrite.output, earlier, journal=journal, known=known, kept=rewrite.before)


def _plan(
    target: str | None,
    command: tuple[str, ...] | None,
    settings: Settings,
    command_options: dict[str, Any],
    **choices: bool,
) -> Plan:
    """Return what is run for each line.

    Raises:
        UnknownTask, ConfigError: there is no such task or command.
        click.UsageError: neither or both are given.
    """
    if target is not None and command:
        raise click.UsageError("give a task or a command after --, not both")
    if target is not None:
        task = find_task(target)
        options = job_options(settings, task)
        run = partial(map_line, name_of(task)) if is_durable(settings.url) else partial(run_line, target)
        return Plan(label=target, function=run, options=options, settings=settings, **choices)
    if not command:
        raise click.UsageError("give a task, as module:function, or a command after --")
    if "{" not in command[0] and shutil.which(command[0]) is None:
        raise ConfigError(f"{command[0]}: command not found")
    how = {"limit": _share(settings.url), **command_options} if is_durable(settings.url) else command_options
    run_command = map_command_line if is_durable(settings.url) else run_command_line
    function = partial(run_command, command, settings.retries or 0, **how)
    options = job_options(settings, None)
    return Plan(label=command[0], function=function, options=options, settings=settings, **choices)


def _share(url: str) -> int:
    """Return the bytes of each stream of a command whose row fits a result of a store, also as base64 beside a text."""
    with contextlib.closing(open_store(url)) as store:
        return store.max_bytes // 16


@contextlib.contextmanager
def _output(name: str | None, stdout: int, source: int, *, keep: bool, force: bool) -> Iterator[Output]:
    if name is not None and name != "-":
        with file_output(name, source, keep=keep, force=force) as output:
            yield output
    else:
        refuse_own_input(stdout, "stdout", source)
        yield stdout_output(stdout)


@contextlib.contextmanager
def _journal(url: str, output: Output, *, keep: bool) -> Iterator[Journal | None]:
    """Open the journal of a map on a store whose output can be resumed; when the block ends well, it goes."""
    if not (output.resumable and is_durable(url)):
        yield None
        return
    try:
        journal = Journal.open(output, keep=keep)
    except OSError as exc:
        say(f"no journal beside {output.name} ({exc.strerror or exc}): --resume will not know lines that are under way")
        yield None
        return
    try:
        yield journal
        with contextlib.closing(open_store(url)) as store:
            journal.finish(store)
    finally:
        journal.close()


def _recover(plan: Plan, journal: Journal, earlier: Earlier) -> Known:
    """Return what became of lines that an earlier run has sent and written no row of."""
    if not journal.earlier:
        return {}
    told = False

    def look(chunks: int) -> None:
        nonlocal told
        if not told:
            say(f"{chunks:,} jobs of the earlier run are still running: waiting for them")
            told = True

    with contextlib.closing(open_store(plan.settings.url)) as store:
        return recover(store, journal.earlier, earlier.done, look, take_from_the_dead)


def _advise(plan: Plan, target: str | None) -> None:
    """Warn when no worker serves the queue, so that the map waits."""
    url, queue = plan.settings.url, plan.options["queue"]
    if is_durable(url):
        with contextlib.closing(open_store(url)) as store:
            if not served(store, queue):
                flag = "--allow-commands" if target is None else "--import MODULE"
                say(f"no worker serves queue {queue} now, so this waits: taskq worker {flag} starts one")


def _close(source: int) -> None:
    if source != STDIN:
        os.close(source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of one `taskq map`."""

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
    """Run a plan to its end and report the result; return the exit code.

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
        opened_queue(plan.settings, plan.settings.processes) as queue,
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
