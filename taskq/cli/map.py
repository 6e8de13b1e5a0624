"""`taskq map`: run a task, or a command, for every line of a file of JSON lines."""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.commands import run_command_line
from taskq.cli.far_lines import run_far_line
from taskq.cli.here import take_from_the_dead
from taskq.cli.journal import Journal, recover
from taskq.cli.jsonl import Lines, open_input
from taskq.cli.lines import run_line
from taskq.cli.mapping import Plan, run_plan
from taskq.cli.messages import say
from taskq.cli.options import CommandAfterDashes, dashed, job_options, pool_flags, read_settings
from taskq.cli.output import claimed_stdout, file_output, refuse_own_input, stdout_output
from taskq.cli.resume import Either, nothing_done, read_back
from taskq.cli.rewrite import rewriting
from taskq.cli.signals import interruptible
from taskq.cli.stores import served
from taskq.cli.surroundings import surroundings_flags, take_surroundings
from taskq.cli.target import find_task
from taskq.connect import is_durable, open_store
from taskq.errors import ConfigError
from taskq.tasks import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.cli.journal import Known
    from taskq.cli.output import Output
    from taskq.cli.resume import Earlier
    from taskq.config import Settings

__all__ = ["map_command"]

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
@click.option("--force", is_flag=True, help="Write over an output file that holds something already.")
@click.option("--unordered", is_flag=True, help="Write rows as they are done, with their index.")
@click.option(
    "--on-error",
    type=click.Choice(["continue", "stop"]),
    default="continue",
    help="Whether to go on after a line that failed; default: continue.",
)
@click.option("--chunksize", metavar="N", help="Lines handed over at once; default: by measured time.")
@click.option("--progress/--no-progress", default=None, help="Show how far it is; default: on a terminal.")
@surroundings_flags
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
    surroundings = take_surroundings(said, settings.url, is_command=target is None)
    with interruptible(), contextlib.ExitStack() as stack:
        stdout = stack.enter_context(claimed_stdout())
        plan = _plan(
            target,
            dashed(ctx),
            settings,
            surroundings,
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
    surroundings: dict[str, Any],
    **choices: bool,
) -> Plan:
    """Decide what is run for each line.

    Raises:
        UnknownTask, ConfigError: there is no such task or command.
        click.UsageError: neither or both are given.
    """
    if target is not None and command:
        raise click.UsageError("give a task or a command after --, not both")
    if target is not None:
        task = find_task(target)
        options = job_options(settings, task)
        run = partial(run_far_line, name_of(task)) if is_durable(settings.url) else partial(run_line, target)
        return Plan(label=target, function=run, options=options, settings=settings, **choices)
    if not command:
        raise click.UsageError("give a task, as module:function, or a command after --")
    if "{" not in command[0] and shutil.which(command[0]) is None:
        raise ConfigError(f"{command[0]}: command not found")
    how = {"limit": _share(settings.url), **surroundings} if is_durable(settings.url) else surroundings
    function = partial(run_command_line, command, settings.retries or 0, **how)
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
            say(f"{chunks:,} jobs of the earlier run are at work still: waiting for them")
            told = True

    with contextlib.closing(open_store(plan.settings.url)) as store:
        return recover(store, journal.earlier, earlier.done, look, take_from_the_dead)


def _advise(plan: Plan, target: str | None) -> None:
    """Say so when the map will wait for a worker to come."""
    url, queue = plan.settings.url, plan.options["queue"]
    if is_durable(url):
        with contextlib.closing(open_store(url)) as store:
            if not served(store, queue):
                flag = "--allow-commands" if target is None else "--import MODULE"
                say(f"no worker serves queue {queue} now, so this waits: taskq worker {flag} starts one")


def _close(source: int) -> None:
    if source != STDIN:
        os.close(source)
