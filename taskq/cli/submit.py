"""`taskq submit`: hand over one task, one command, or a file of them; or run one here and give its outcome.

    the URL is local://      submit_here: runs it on this machine, prints its result
    any other                submit_far: keeps it in the store, prints its id; --wait prints its result

This file reads the command line and decides which of the two it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskq.cli.job_flags import job_flags, read_job_flags
from taskq.cli.options import CommandAfterDashes, dashed, pool_flags, read_settings
from taskq.cli.request import Request
from taskq.cli.signals import interruptible
from taskq.cli.stores import settle_url
from taskq.cli.submit_far import submit_far
from taskq.cli.submit_here import submit_here
from taskq.cli.surroundings import surroundings_flags, take_surroundings

if TYPE_CHECKING:
    from taskq.config import Settings

__all__ = ["submit"]

HELP = """Submit one task, or one command, as a job, and print its id; with --wait, its result as JSON.

\b
ARGS after a task (= is text, := is JSON, @ reads a file):
  text   key=text   :=json   key:=json   @file   key=@file   :=@file   key:=@file

A task is named module:function and found as `python -m` would find it. A command stands after --; workers run
it when they were started with --allow-commands, in the folder where it was submitted (on Redis: where the worker
was started, or in --cwd), with the worker's environment and what --env adds. With --wait the job is run here when
no worker is about, prints of a task go to stderr, a command's output passes through, and its exit code is the exit
code. --url local:// needs no store: the job runs here at once.

\b
Examples:
  taskq submit tasks:thumbnail a.jpg size:=128
  taskq submit tasks:thumbnail a.jpg --wait
  taskq submit tasks:report --at 06:30 --queue nightly --key report --retries 3
  taskq submit tasks:report --args-json '{"year": 2026, "parts": ["a", "b"]}'
  taskq submit tasks:summary @notes.txt --wait --raw > summary.txt
  taskq submit tasks:thumbnail --jsonl items.jsonl > ids.txt
  taskq submit --timeout 1h -- ffmpeg -i in.mov out.mp4
  taskq submit math:factorial :=20 --url local://
"""


class SubmitCommand(CommandAfterDashes):
    """Show ARGS in the usage line."""

    usage = "[OPTIONS] (MODULE:FUNCTION [ARGS]... | -- COMMAND...)"


@click.command("submit", cls=SubmitCommand, help=HELP, short_help="Submit a task or a command as a job.")
@click.argument("target", required=False, metavar="MODULE:FUNCTION")
@click.argument("words", nargs=-1, metavar="[ARGS]...")
@click.option("--args-json", metavar="JSON", help="Arguments as JSON: an object, an array, or one value.")
@click.option("--jsonl", metavar="FILE|-", type=click.Path(), help="A job for each JSON line; - is stdin.")
@click.option("--wait", is_flag=True, help="Wait for the result; local:// always does.")
@click.option("--raw", is_flag=True, help="Print a result that is a text without quotes.")
@click.option("--unchecked", is_flag=True, help="Submit by name a task that is not installed here.")
@surroundings_flags
@job_flags
@pool_flags
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    target: str | None,
    words: tuple[str, ...],
    args_json: str | None,
    jsonl: str | None,
    *,
    raw: bool,
    wait: bool,
    unchecked: bool,
    **flags: Any,
) -> int:
    """Run the command."""
    url = settle_url(flags["url"])
    after = dashed(ctx) or ()
    if target is None and not after:
        raise click.UsageError("give a task, as module:function, or a command after --")
    surroundings = take_surroundings(flags, url, is_command=target is None)
    options = read_job_flags(flags)
    settings = read_settings(flags)
    request = Request(
        target=target,
        words=words + after if target is not None else (),
        command=after if target is None else (),
        args_json=args_json,
        jsonl=jsonl,
        wait=wait,
        raw=raw,
        unchecked=unchecked,
        tracebacks=flags["tracebacks"],
        as_json=flags["as_json"],
        verbose=flags["log_level"] is not None,
        options=options,
        surroundings=surroundings,
    )
    request.check()
    with interruptible():
        return _run(request, settings, url)


def _run(request: Request, settings: Settings, url: str) -> int:
    if url.partition("://")[0].lower() == "local":
        if request.jsonl is not None:
            raise click.UsageError("local:// keeps no jobs: taskq map runs one for each line, here")
        return submit_here(request, settings, url)
    if settings.processes is not None or settings.start_method is not None:
        raise click.UsageError("--processes and --start-method are for local://: elsewhere workers run the jobs")
    return submit_far(request, settings, url)
