"""The outcome of a job, printed: a task's value, a command's exit code and output, or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskq.captured import STREAMS, Stream, as_document, output_of, plain, said_of_cut
from taskq.cli.exits import Exit, exit_of
from taskq.cli.tell import describe, emit_document, emit_foreign, in_words, say, say_foreign, traceback_of
from taskq.codec import decode
from taskq.shell import CommandFailed
from taskq.states import TERMINAL, Reason, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskq.cli.options import Request
    from taskq.job import Job
    from taskq.store import JobRecord

__all__ = [
    "outcome_document",
    "print_command_outcome",
    "print_outcome",
    "print_value",
    "print_waited_command",
    "say_traceback",
]


def print_outcome(record: JobRecord, *, raw: bool = False, tracebacks: bool = False, as_json: bool = False) -> int:
    """Print a job's outcome, or why there is none; return the exit code."""
    error = _error_of(record)
    if as_json:
        outcome: dict[str, Any] = {"result": _value_of(record)} if record.state is State.SUCCEEDED else {}
        emit_document(outcome_document(record, outcome if error is None else {"error": describe(error)}))
    elif record.state is State.SUCCEEDED:
        print_value(_value_of(record), raw=raw)
    _say_why_not(record, error, said=as_json, tracebacks=tracebacks)
    return exit_of(record.state)


def _say_why_not(record: JobRecord, error: BaseException | None, *, said: bool, tracebacks: bool) -> None:
    """Report on stderr a job that has not succeeded. `said`: a document has told it already."""
    if not said and record.state not in TERMINAL:
        say(f"{record.id} has not ended, it is {record.state}: taskq wait {record.id} waits for it", error=True)
    elif not said and record.state is not State.SUCCEEDED:
        say(f"{record.task} {_how_it_ended(record, error)}", error=True)
    if tracebacks and error is not None:
        say_traceback(error)


def _error_of(record: JobRecord) -> BaseException | None:
    failure = record.failure
    return None if failure is None or record.state is not State.FAILED else failure.to_exception(record.id)


def _value_of(record: JobRecord) -> Any:
    """Return the value of a job that succeeded."""
    return None if record.result is None else decode(record.result)


def print_value(value: Any, *, raw: bool) -> None:
    """Print a task's value as JSON; with `raw` a text as it is."""
    if raw and isinstance(value, str):
        emit_foreign([value.encode(errors="replace") + b"\n"], raw=True)
    else:
        emit_document(value)


def say_traceback(error: BaseException) -> None:
    """Write to stderr where in the task an error was raised, if it tells."""
    if trace := traceback_of(error):
        say_foreign(trace.rstrip().encode(errors="replace") + b"\n")


def outcome_document(job: Job[Any] | JobRecord, outcome: dict[str, Any]) -> dict[str, Any]:
    """Return a job that has ended as a document, with its result or its error."""
    return {"id": job.id, "state": str(job.state), "attempts": job.attempts, **outcome}


def _how_it_ended(record: JobRecord, error: BaseException | None) -> str:
    if error is not None:
        return f"failed: {in_words(error)}"
    return "was cancelled" if record.state is State.CANCELLED else "failed"


# --- commands
def print_command_outcome(
    record: JobRecord,
    log: Callable[[str], bytes],
    *,
    raw: bool = False,
    tracebacks: bool = False,
    as_json: bool = False,
) -> int:
    """Print a command's exit code and output, or with `raw` its output alone; return our exit code.

    `log` gives what a job has written, for failures that do not carry it.
    """
    error = _error_of(record)
    output = _output_of(record, error, log)
    if as_json:
        result = {} if output is None else as_document(output)
        failed = {} if error is None else {"error": {**describe(error), **result}}
        emit_document(outcome_document(record, {"result": result} if record.state is State.SUCCEEDED else failed))
    elif output is not None and raw:
        _pass_on(output, raw=True)
    elif output is not None:
        emit_document(as_document(output))
    _say_cut(output)
    _say_why_not(record, error, said=as_json, tracebacks=tracebacks)
    return exit_of(record.state)


def print_waited_command(record: JobRecord, log: Callable[[str], bytes], request: Request, *, shown: bool) -> int:
    """Pass on what a command has written, unless that is `shown` already; return the command's exit code."""
    error = _error_of(record)
    code = error.exit_code if isinstance(error, CommandFailed) else None
    if request.as_json:
        ended = print_command_outcome(record, log, tracebacks=request.tracebacks, as_json=True)
    elif record.state is State.SUCCEEDED or code is not None:
        output = None if shown else _output_of(record, error, log)
        if output is not None:
            _pass_on(output, raw=False)
        _say_cut(output)
        ended = Exit.OK
    else:
        ended = print_outcome(record, tracebacks=request.tracebacks)
    if record.reason is Reason.TIMEOUT:
        return Exit.WAIT_TIMEOUT
    return int(ended) if code is None else code


def _output_of(record: JobRecord, error: BaseException | None, log: Callable[[str], bytes]) -> Mapping[str, Any] | None:
    """Return exit code and output of a command in the form of `captured`; None where it has not ended by itself.

    Where stdout and stderr are not known apart, stdout has both.
    """
    if record.state is State.SUCCEEDED:
        value = _value_of(record)
        return value if isinstance(value, dict) else {"exit_code": 0, "stdout": str(value)}
    if not isinstance(error, CommandFailed):
        return None
    output = error.output or plain("stdout", Stream(log(record.id), 0, b""))
    return {"exit_code": error.exit_code, **output}


def _pass_on(output: Mapping[str, Any], *, raw: bool) -> None:
    stdout, stderr = (output_of(output, name) for name in STREAMS)
    emit_foreign([stdout], raw=raw)
    say_foreign(stderr, raw=raw)


def _say_cut(output: Mapping[str, Any] | None) -> None:
    for sentence in said_of_cut(output or {}):
        say(f"{sentence}; taskq logs has the first MiB")
