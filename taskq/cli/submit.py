"""`taskq submit`: run one task, or one command, as a job and give its outcome."""

from __future__ import annotations

import os
import sys
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.arguments import parse_arguments
from taskq.cli.commands import run_attached_command, run_captured_command
from taskq.cli.exits import Exit
from taskq.cli.failures import describe, in_words, traceback_of
from taskq.cli.jsontext import to_json
from taskq.cli.messages import say
from taskq.cli.options import CommandAfterDashes, dashed, job_options, pool_flags, read_settings
from taskq.cli.output import claimed_stdout, need_stdout
from taskq.cli.pool import opened
from taskq.cli.signals import interruptible
from taskq.cli.target import check_call, find_task
from taskq.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.config import Settings
    from taskq.future import Job
    from taskq.job import JobOptionFields

__all__ = ["submit"]

#: stdout by number.
STDOUT = 1

HELP = """Run one task and print its result as JSON, or run one command.

\b
ARGS after a task (= is text, := is JSON, @ reads a file):
  text   key=text   :=json   key:=json   @file   key=@file   :=@file   key:=@file

A task is named module:function and found as `python -m` would find it. Its prints go to stderr. A command
stands after --; its output passes through, and its exit code is the exit code.

\b
Examples:
  taskq submit math:factorial :=20
  taskq submit tasks:thumbnail a.jpg size:=128 --timeout 30s --retries 2
  taskq submit tasks:report --args-json '{"year": 2026, "parts": ["a", "b"]}'
  taskq submit tasks:summary @notes.txt --raw > summary.txt
  taskq submit --timeout 1h -- ffmpeg -i in.mov out.mp4
"""


class SubmitCommand(CommandAfterDashes):
    """Show ARGS in the usage line."""

    usage = "[OPTIONS] (MODULE:FUNCTION [ARGS]... | -- COMMAND...)"


@click.command(cls=SubmitCommand, help=HELP, short_help="Run one task or command.")
@click.argument("target", required=False, metavar="MODULE:FUNCTION")
@click.argument("words", nargs=-1, metavar="[ARGS]...")
@click.option("--args-json", metavar="JSON", help="Arguments as JSON: an object, an array, or one value.")
@click.option("--raw", is_flag=True, help="Print a result that is a text without quotes.")
@click.option("--wait", is_flag=True, help="Wait for the result; local:// always does.")
@pool_flags
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    target: str | None,
    words: tuple[str, ...],
    args_json: str | None,
    *,
    raw: bool,
    wait: bool,  # noqa: ARG001 - for command lines that also serve a queue of other machines
    **flags: Any,
) -> int:
    """Run the command."""
    settings = read_settings(flags)
    after = dashed(ctx) or ()
    with interruptible():
        if target is not None:
            return _submit_task(target, (words + after, args_json), settings, flags, raw=raw)
        if not after:
            raise click.UsageError("give a task, as module:function, or a command after --")
        if args_json is not None or raw:
            raise click.UsageError("--args-json and --raw are for tasks, not for a command")
        return _submit_command(after, settings, flags)


def _submit_task(
    target: str, said: tuple[tuple[str, ...], str | None], settings: Settings, flags: Any, *, raw: bool
) -> int:
    with claimed_stdout() as stdout:
        need_stdout()
        function = find_task(target)
        arguments = parse_arguments(*said)
        check_call(target, function, arguments)
        options = job_options(settings, function)
        job, error = _run(settings, options, function, *arguments.args, **arguments.kwargs)
        if flags["as_json"]:
            _print(stdout, _document(job, error))
        elif error is None:
            value = job.result()
            text = value.encode(errors="replace") if raw and isinstance(value, str) else to_json(value)
            _print(stdout, text)
        return Exit.OK if error is None else _tell(target, error, flags)


def _submit_command(argv: tuple[str, ...], settings: Settings, flags: Any) -> int:
    run = run_captured_command if flags["as_json"] else run_attached_command
    job, error = _run(settings, job_options(settings, None), run, argv, settings.retries or 0)
    if flags["as_json"]:
        _print(STDOUT, _document(job, error))
    if error is None:
        code: int = job.result()["exit_code"]
        return code
    code = _tell(argv[0], error, flags)
    return Exit.WAIT_TIMEOUT if isinstance(error, JobTimeout) else code


def _run(
    settings: Settings, options: JobOptionFields, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[Job[Any], BaseException | None]:
    """Run a call on a pool of one process; return its job and its error."""
    with opened(settings, 1) as queue:
        job = queue.options(**options).submit(function, *args, **kwargs)
        try:
            return job, job.exception()
        except CancelledError as exc:
            return job, exc


def _tell(label: str, error: BaseException, flags: Any) -> Exit:
    """Say on stderr how a job failed; return the exit code."""
    say(f"{label} failed: {in_words(error)}", error=True)
    if flags["tracebacks"] and (trace := traceback_of(error)):
        sys.stderr.write(trace.rstrip() + "\n")
    return Exit.CANCELLED if isinstance(error, CancelledError) else Exit.FAILED


def _document(job: Job[Any], error: BaseException | None) -> bytes:
    """Return all that is known of a finished job, as JSON."""
    outcome = {"result": job.result()} if error is None else {"error": describe(error)}
    return to_json({"id": job.id, "state": str(job.state), "attempts": job.attempts, **outcome})


def _print(descriptor: int, text: bytes) -> None:
    data = memoryview(text + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]
