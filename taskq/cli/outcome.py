"""`taskq result`, `taskq wait`, `taskq logs`: what became of jobs, and what they say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from taskq.allowlist import COMMAND
from taskq.captured import Stream, plain
from taskq.cli.emit import emit_document, emit_foreign, emit_line
from taskq.cli.ended import print_command_outcome, print_outcome
from taskq.cli.exits import Exit
from taskq.cli.messages import say
from taskq.cli.stores import jobs_of, opened_store, store_flags
from taskq.cli.waiting import ends, exit_of, exit_of_all
from taskq.config import parse_duration
from taskq.states import TERMINAL, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.store import Store

__all__ = ["logs", "result", "wait"]

#: Seconds between two looks of `logs -f`: quick to the eye, and next to nothing for a store.
LOG_EVERY = 0.2

RESULT_HELP = """Print a job's result as JSON; of a failed one say why, and exit with 1.

That of a command is its exit code and its output, also when it failed; --raw passes its output on, byte for byte.

Exit codes: 0 it succeeded, 1 it failed, 5 it was cancelled, 124 it has not ended, 4 there is no such job.

\b
Examples:
  taskq result 01KB2Z7XSGD0MB3V6RYA4F0001
  taskq result 01KB2Z7XSGD0MB3V6RYA4F0001 --wait --timeout 10m
  taskq result --raw 3V6RYA4F0001 > summary.txt
"""

WAIT_HELP = """Wait until jobs have ended; print a line for each as it ends: its id and its state.

Exit codes: 0 all succeeded, 1 one failed, 5 one was cancelled, 124 the time was over, 4 there is no such job. With
--any it is that of the first that ends.

\b
Examples:
  taskq wait 01KB2Z7XSGD0MB3V6RYA4F0001
  taskq wait --any --timeout 1h 01KB2Z7XSGD0MB3V6RYA4F0001 01KB2Z7XSGD0MB3V6RYA4F0002
"""

LOGS_HELP = """Print what a job has written to stdout and stderr, and logged; the first MiB of it is kept.

On a terminal control characters are shown as signs, unless --raw is given; to files and pipes bytes go as they are.

\b
Examples:
  taskq logs 01KB2Z7XSGD0MB3V6RYA4F0001
  taskq logs --follow 3V6RYA4F0001
"""


# --- result


@click.command("result", help=RESULT_HELP, short_help="Print a job's result.")
@click.argument("job_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait for its end.")
@click.option("--timeout", metavar="TIME", help="Wait no longer than this: 90, 1.5s, 10m, 1h.")
@click.option("--raw", is_flag=True, help="Print a text without quotes, and of a command its output as it is.")
@click.option("--tracebacks", is_flag=True, help="Show where in the task an error was raised.")
@store_flags
def result(job_id: str, timeout: str | None, *, wait: bool, raw: bool, tracebacks: bool, **flags: Any) -> int:
    """Run the command."""
    patience = None if timeout is None else parse_duration(timeout)
    with opened_store(flags, mode="ro") as store:
        (record,) = jobs_of(store, [job_id], payload=True)
        if record.state not in TERMINAL and (wait or timeout is not None):
            for _ in ends(store, [record.id], patience):
                pass
            (record,) = jobs_of(store, [record.id], payload=True)
        if record.task == COMMAND:
            return print_command_outcome(record, store.log, raw=raw, tracebacks=tracebacks, as_json=flags["as_json"])
        return print_outcome(record, raw=raw, tracebacks=tracebacks, as_json=flags["as_json"])


# --- wait


@click.command("wait", help=WAIT_HELP, short_help="Wait until jobs have ended.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--any", "first", is_flag=True, help="Wait for one of them only.")
@click.option("--timeout", metavar="TIME", help="Wait no longer than this: 90, 1.5s, 10m, 1h.")
@store_flags
def wait(ids: tuple[str, ...], timeout: str | None, *, first: bool, **flags: Any) -> int:
    """Run the command."""
    patience = None if timeout is None else parse_duration(timeout)
    with opened_store(flags, mode="ro") as store:
        states = {record.id: record.state for record in jobs_of(store, ids)}
        for job_id, state in _as_they_end(store, states, patience):
            states[job_id] = state
            if flags["as_json"]:
                emit_document({"id": job_id, "state": str(state)})
            else:
                emit_line(f"{job_id} {state}")
            if first:
                return exit_of(state)
        late = [job_id for job_id, state in states.items() if state not in TERMINAL]
        if late:
            say(f"waited {timeout} in vain for {', '.join(late)}", error=True)
            return Exit.WAIT_TIMEOUT
        return exit_of_all(states.values())


def _as_they_end(store: Store, states: dict[str, State], patience: float | None) -> Iterator[tuple[str, State]]:
    for job_id, state in list(states.items()):
        if state in TERMINAL:
            yield job_id, state
    open_ids = [job_id for job_id, state in states.items() if state not in TERMINAL]
    for ended in ends(store, open_ids, patience):
        if ended is not None:
            yield ended.id, ended.state


# --- logs


@click.command("logs", help=LOGS_HELP, short_help="Print what a job has written.")
@click.argument("job_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.option("--raw", is_flag=True, help="On a terminal too, print control characters as they are.")
@store_flags
def logs(job_id: str, *, follow: bool, raw: bool, **flags: Any) -> int:
    """Run the command."""
    with opened_store(flags, mode="ro") as store:
        (record,) = jobs_of(store, [job_id])
        pieces = _pieces(store, record.id, follow=follow)
        if flags["as_json"]:
            emit_document({"id": record.id, **plain("log", Stream(b"".join(pieces), 0, b""))})
            return Exit.OK
        emit_foreign(pieces, raw=raw)
        return Exit.OK


def _pieces(store: Store, job_id: str, *, follow: bool) -> Iterator[bytes]:
    """Yield what a job has written; with `follow` also what is yet to come, until the job has ended."""
    offset = 0
    while True:
        (record,) = store.get([job_id])  # before the log: what comes after the end is not missed
        piece = store.log(job_id, offset)
        offset += len(piece)
        if piece:
            yield piece
        if not follow or record is None or record.state in TERMINAL:
            return
        time.sleep(LOG_EVERY)
