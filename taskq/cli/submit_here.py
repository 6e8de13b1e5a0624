"""`taskq submit --url local://`: run one task, or one command, in a process of our own and give its outcome."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from taskq.cli.arguments import parse_arguments
from taskq.cli.commands import run_attached_command, run_captured_command
from taskq.cli.exits import Exit
from taskq.cli.failures import describe, in_words, traceback_of
from taskq.cli.jsontext import to_json
from taskq.cli.messages import say, say_foreign
from taskq.cli.options import job_options
from taskq.cli.output import claimed_stdout, need_stdout, write_all
from taskq.cli.pool import opened
from taskq.cli.target import check_call, find_task
from taskq.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.cli.request import Request
    from taskq.config import Settings
    from taskq.job import Job
    from taskq.options import JobOptionFields

__all__ = ["submit_here"]

#: stdout by number.
STDOUT = 1


def submit_here(request: Request, settings: Settings, url: str) -> int:
    """Run what is asked for; return the exit code."""
    if request.target is None:
        return _submit_command(request, settings, url)
    return _submit_task(request, request.target, settings, url)


def _submit_task(request: Request, target: str, settings: Settings, url: str) -> int:
    with claimed_stdout() as stdout:
        need_stdout()
        function = find_task(target)
        arguments = parse_arguments(request.words, request.args_json)
        check_call(target, function, arguments)
        options = job_options(settings, function, request.options)
        job, error = _run(settings, url, options, function, *arguments.args, **arguments.kwargs)
        if request.as_json:
            _print(stdout, _document(job, error))
        elif error is None:
            value = job.result()
            text = value.encode(errors="replace") if request.raw and isinstance(value, str) else to_json(value)
            _print(stdout, text)
        return Exit.OK if error is None else _tell(request, error)


def _submit_command(request: Request, settings: Settings, url: str) -> int:
    run = run_captured_command if request.as_json else run_attached_command
    options = job_options(settings, None, request.options)
    retries = settings.retries or 0
    job, error = _run(settings, url, options, run, request.command, retries, **request.surroundings)
    if request.as_json:
        _print(STDOUT, _document(job, error))
    if error is None:
        code: int = job.result()["exit_code"]
        return code
    code = _tell(request, error)
    return Exit.WAIT_TIMEOUT if isinstance(error, JobTimeout) else code


def _run(
    settings: Settings, url: str, options: JobOptionFields, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[Job[Any], BaseException | None]:
    """Run a call on a pool of one process; return its job and its error."""
    with opened(settings, 1, url) as queue:
        job = queue.options(**options).submit(function, *args, **kwargs)
        try:
            return job, job.exception()
        except CancelledError as exc:
            return job, exc


def _tell(request: Request, error: BaseException) -> Exit:
    """Say on stderr how a job failed; return the exit code."""
    say(f"{request.label} failed: {in_words(error)}", error=True)
    if request.tracebacks and (trace := traceback_of(error)):
        say_foreign(trace.rstrip().encode(errors="replace") + b"\n")
    return Exit.CANCELLED if isinstance(error, CancelledError) else Exit.FAILED


def _document(job: Job[Any], error: BaseException | None) -> bytes:
    """Return all that is known of a finished job, as JSON."""
    outcome = {"result": job.result()} if error is None else {"error": describe(error)}
    return to_json({"id": job.id, "state": str(job.state), "attempts": job.attempts, **outcome})


def _print(descriptor: int, text: bytes) -> None:
    write_all(descriptor, text + b"\n", "stdout")
