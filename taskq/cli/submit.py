"""`taskq submit`: one task, one command, or a file of them, run on this machine or kept in a store.

    the URL is local://    local: it runs in a process of this program, and its result is printed
    any other              remote: Request ──▶ JobBuilder (the task, checked) ──line by line──▶ NewJob ──put──▶ id
                                                             --wait ──▶ run_inline.outcome_of ──▶ result

A line of --jsonl that makes no job is told, and the others are kept all the same.
"""

from __future__ import annotations

import os
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import click

from taskq.allowlist import opens
from taskq.cli.arguments import check_call, find_task, parse_arguments
from taskq.cli.exits import Exit
from taskq.cli.format import job_document
from taskq.cli.job_builder import job_builder_of
from taskq.cli.jsonl import Lines, open_input
from taskq.cli.line_task import BadLine, parse_line, run_attached_command, run_captured_command
from taskq.cli.options import (
    CommandAfterDashes,
    Request,
    command_flags,
    dashed,
    job_flags,
    job_options,
    pool_flags,
    read_command_flags,
    read_job_flags,
    read_settings,
)
from taskq.cli.outcome import outcome_document, print_outcome, print_value, print_waited_command, say_traceback
from taskq.cli.resume import nothing_done
from taskq.cli.run_inline import outcome_of
from taskq.cli.signals import interruptible, opened_queue
from taskq.cli.stores import opened_store, served, settle_url
from taskq.cli.streams import CannotWrite, OutputClosed, claimed_stdout, need_stdout
from taskq.cli.tell import describe, emit_document, emit_line, in_words, say
from taskq.errors import ConfigError, EncodeError, JobTimeout
from taskq.shell import BadItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq.cli.job_builder import JobBuilder
    from taskq.config import Settings
    from taskq.job import Job
    from taskq.options import JobOptionFields
    from taskq.store import NewJob, Store

__all__ = ["submit"]

HELP = """Submit one task, or one command, as a job, and print its id; with --wait, its result as JSON.

\b
ARGS after a task (= is text, := is JSON, @ reads a file):
  text   key=text   :=json   key:=json   @file   key=@file   :=@file   key:=@file

A task is named module:function and found as `python -m` would find it. A command stands after --; workers run
it when they were started with --allow-commands, in the folder where it was submitted (on Redis: where the worker
was started, or in --cwd), with the worker's environment and what --env adds. With --wait the job is run here when
no worker is running, prints of a task go to stderr, a command's output passes through, and its exit code is the exit
code. --url local:// needs no store: the job runs here at once.

\b
Examples:
  taskq submit tasks:thumbnail a.jpg size:=128
  taskq submit tasks:thumbnail a.jpg --wait
  taskq submit tasks:report --at 06:30 --queue nightly --key report --retry 3
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
@command_flags
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
    command_options = read_command_flags(flags, url, is_command=target is None)
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
        command_options=command_options,
    )
    request.check()
    with interruptible():
        return _run(request, settings, url)


def _run(request: Request, settings: Settings, url: str) -> int:
    if url.partition("://")[0].lower() == "local":
        if request.jsonl is not None:
            raise click.UsageError("local:// keeps no jobs: taskq map runs one for each line, here")
        return _submit_local(request, settings, url)
    if settings.processes is not None or settings.start_method is not None:
        raise click.UsageError("--processes and --start-method are for local://: elsewhere workers run the jobs")
    return _submit_remote(request, settings, url)


# --- local


def _submit_local(request: Request, settings: Settings, url: str) -> int:
    """Run the request in this program; return the exit code."""
    if request.target is None:
        return _submit_command(request, settings, url)
    return _submit_task(request, request.target, settings, url)


def _submit_task(request: Request, target: str, settings: Settings, url: str) -> int:
    need_stdout()
    with claimed_stdout():
        function = find_task(target)
        arguments = parse_arguments(request.words, request.args_json)
        check_call(target, function, arguments)
        options = job_options(settings, function, request.options)
        job, error = _run_local(settings, url, options, function, *arguments.args, **arguments.kwargs)
    if request.as_json:
        _print_document(job, error)
    elif error is None:
        print_value(job.result(), raw=request.raw)
    return Exit.OK if error is None else _tell_failure(request, error)


def _submit_command(request: Request, settings: Settings, url: str) -> int:
    run = run_captured_command if request.as_json else run_attached_command
    options = job_options(settings, None, request.options)
    retries = settings.retries or 0
    job, error = _run_local(settings, url, options, run, request.command, retries, **request.command_options)
    if request.as_json:
        _print_document(job, error)
    if error is None:
        code: int = job.result()["exit_code"]
        return code
    code = _tell_failure(request, error)
    return Exit.WAIT_TIMEOUT if isinstance(error, JobTimeout) else code


def _run_local(
    settings: Settings, url: str, options: JobOptionFields, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[Job[Any], BaseException | None]:
    """Run a call on a pool of one process; return its job and its error."""
    with opened_queue(settings, 1, url) as queue:
        job = queue.options(**options).submit(function, *args, **kwargs)
        try:
            return job, job.exception()
        except CancelledError as exc:
            return job, exc


def _tell_failure(request: Request, error: BaseException) -> Exit:
    """Report on stderr how a job failed; return the exit code."""
    say(f"{request.label} failed: {in_words(error)}", error=True)
    if request.tracebacks:
        say_traceback(error)
    return Exit.CANCELLED if isinstance(error, CancelledError) else Exit.FAILED


def _print_document(job: Job[Any], error: BaseException | None) -> None:
    outcome = {"result": job.result()} if error is None else {"error": describe(error)}
    emit_document(outcome_document(job, outcome))


# --- remote


#: Jobs kept in one step of --jsonl: one commit, one round trip.
BATCH = 500

#: stdin by number, which is not ours to close; stderr, where notes for people go.
STDIN, STDERR = 0, 2


def _submit_remote(request: Request, settings: Settings, url: str) -> int:
    """Put the request into the store; return the exit code."""
    need_stdout()
    with opened_store({"log_format": settings.log_format, "log_level": settings.log_level}, url, mode="rwc") as store:
        builder = job_builder_of(request, settings, store)
        if request.jsonl is not None:
            return _submit_lines(request, builder, store)
        (job_id,) = store.put([builder.from_request(request)])
        if request.wait:
            return _wait(request, store, job_id)
        _tell_kept(request, store, [job_id])
        _advise(store, job_id)
        return Exit.OK


def _tell_kept(request: Request, store: Store, ids: list[str]) -> None:
    kept = f"{len(ids):,} jobs are kept all the same, {ids[0]} to {ids[-1]}" if ids[1:] else f"job {ids[0]} is kept"
    try:
        _print_kept(request, store, ids)
    except CannotWrite as exc:
        raise CannotWrite(f"{exc}; {kept}") from None
    except OutputClosed:
        say(kept)
        raise


def _print_kept(request: Request, store: Store, ids: list[str]) -> None:
    if request.as_json:
        for record in store.get(ids):
            emit_document({} if record is None else job_document(record))
    else:
        for job_id in ids:
            emit_line(job_id)


def _advise(store: Store, job_id: str) -> None:
    """Tell a person at a terminal that no worker will run the job."""
    if os.isatty(STDERR):
        (record,) = store.get([job_id])
        if record is not None and not served(store, record.queue):
            say(f"no worker serves queue {record.queue} now: taskq worker {opens(record.task)} starts one")


# --- one job
def _wait(request: Request, store: Store, job_id: str) -> int:
    record, shown = outcome_of(store, job_id, request)
    if request.command:
        return print_waited_command(record, store.log, request, shown=shown)
    return print_outcome(record, raw=request.raw, tracebacks=request.tracebacks, as_json=request.as_json)


# --- a file of jobs
def _submit_lines(request: Request, builder: JobBuilder, store: Store) -> int:
    source, name = open_input(str(request.jsonl))
    failed, batch = 0, []
    try:
        for job in _jobs_of_lines(builder, source, name):
            if job is None:
                failed += 1
                continue
            batch.append(job)
            if len(batch) >= BATCH:
                _tell_kept(request, store, store.put(batch))
                batch = []
        if batch:
            _tell_kept(request, store, store.put(batch))
    finally:
        if source != STDIN:
            os.close(source)
    if failed:
        say(f"{failed:,} lines of {name} were not submitted; the others were", error=True)
    return Exit.FAILED if failed else Exit.OK


def _jobs_of_lines(builder: JobBuilder, source: int, name: str) -> Iterator[NewJob | None]:
    """Yield the job of each line; None for a bad line, which is reported."""
    lines = Lines(source, name, nothing_done().done)
    for at, line in enumerate(lines):
        place = lines.taken(at)
        if place is None:
            continue
        try:
            yield builder.from_value(parse_line(line))
        except (BadLine, BadItem, EncodeError, ConfigError) as exc:
            say(f"line {place[1]}: {exc}", error=True)
            yield None
