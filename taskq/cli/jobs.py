"""Commands about jobs and queues: result, wait, logs, cancel, retry, pause, resume and purge."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from taskq.allowlist import COMMAND
from taskq.cli.exits import Exit, exit_of, exit_of_all
from taskq.cli.stores import ago, ends, jobs_of, opened_store, store_flags
from taskq.cli.tell import ask, emit_document, emit_foreign, emit_line, say
from taskq.durations import parse_duration
from taskq.executor import Selection
from taskq.names import check_name
from taskq.states import TERMINAL, State
from taskq.survey import remove_all, retry_all, select

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskq.store import JobRecord, Store

__all__ = ["cancel", "logs", "pause", "purge", "result", "resume", "retry", "wait"]

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
    from taskq.cli.outcome import print_command_outcome, print_outcome  # noqa: PLC0415 - 15 ms that others do without

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
            say(f"timed out after {timeout} waiting for {', '.join(late)}", error=True)
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
            from taskq.captured import Stream, plain  # noqa: PLC0415 - as in `result`

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


CANCEL_HELP = """Cancel jobs: those that wait do not run, those that run are asked to stop, with --kill they are killed.

Prints a line for each: its id and its state now. Exit code 1 when one had ended before.

\b
Examples:
  taskq cancel 01KB2Z7XSGD0MB3V6RYA4F0001
  taskq cancel --kill 01KB2Z7XSGD0MB3V6RYA4F0001 01KB2Z7XSGD0MB3V6RYA4F0002
"""

RETRY_HELP = """Queue jobs that failed or were cancelled again, as if new; print the ids of those that were.

Exit code 1 when a job named has neither failed nor been cancelled.

\b
Examples:
  taskq retry 01KB2Z7XSGD0MB3V6RYA4F0001
  taskq retry --failed --queue mail
"""

PAUSE_HELP = """Have no jobs of these queues started until taskq resume; what runs goes on.

\b
Examples:
  taskq pause mail
"""

RESUME_HELP = """Have the jobs of paused queues started again.

\b
Examples:
  taskq resume mail
"""


@click.command("cancel", help=CANCEL_HELP, short_help="Cancel jobs.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--kill", is_flag=True, help="Kill those that run, at once.")
@store_flags
def cancel(ids: tuple[str, ...], *, kill: bool, **flags: Any) -> int:
    """Run the command."""
    with opened_store(flags) as store:
        records = jobs_of(store, ids)
        states = store.cancel([record.id for record in records], kill=kill)
        if flags["as_json"]:
            pairs = zip(records, states, strict=True)
            emit_document({"jobs": [{"id": record.id, "state": _name(state)} for record, state in pairs]})
        code = Exit.OK
        for record, state in zip(records, states, strict=True):
            if not flags["as_json"]:
                emit_line(f"{record.id} {_name(state)}")
            if state is State.RUNNING and not flags["as_json"]:
                how = "will be killed" if kill else "was asked to stop (--kill ends it at once)"
                say(f"{record.id} is running; it {how}")
            if state not in (State.CANCELLED, State.RUNNING):
                say(f"{record.id} cannot be cancelled, it has {_name(state)}", error=True)
                code = Exit.FAILED
        return code


def _name(state: State | None) -> str:
    return "gone" if state is None else str(state)


@click.command("retry", help=RETRY_HELP, short_help="Run failed jobs again.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--failed", is_flag=True, help="All jobs that failed.")
@click.option("--queue", metavar="NAME", help="With --failed: only of this queue.")
@click.option("--task", metavar="TASK", help="With --failed: only of this task, module:function.")
@click.option("--since", metavar="TIME", help="With --failed: only what was submitted no longer ago: 90, 10m, 7d.")
@store_flags
def retry(
    ids: tuple[str, ...], queue: str | None, task: str | None, since: str | None, *, failed: bool, **flags: Any
) -> int:
    """Run the command."""
    if bool(ids) == failed:
        raise click.UsageError("give the ids of jobs, or --failed for all that failed")
    for name, value in (("queue", queue), ("task", task), ("since", since)):
        if value is not None and not failed:
            raise click.UsageError(f"--{name} goes with --failed")
    wanted = Selection(states=(State.FAILED,), queue=queue, task=task, since=ago(since))
    with opened_store(flags) as store:
        records = jobs_of(store, ids) if ids else list(select(store, wanted))
        done = retry_all(store, records)
        if flags["as_json"]:
            emit_document({"retried": [record.id for record, again in done if again]})
        for record, again in done:
            if again and not flags["as_json"]:
                emit_line(record.id)
            if not again and ids:
                say(f"{record.id} is {record.state}: only what failed or was cancelled can be run again", error=True)
        if failed and not done:
            say(f"no failed jobs{'' if queue is None else f' in queue {queue}'}")
        return Exit.OK if failed or all(again for _, again in done) else Exit.FAILED


@click.command("pause", help=PAUSE_HELP, short_help="Start no more jobs of a queue.")
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@store_flags
def pause(queues: tuple[str, ...], **flags: Any) -> int:
    """Run the command."""
    with opened_store(flags) as store:
        known = {record.name for record in store.queues()}
        for name in queues:
            if name not in known:
                check_name("queue", name)
        for name in queues:
            store.pause(name)
            if name not in known:
                others = f"; there are {', '.join(sorted(known))}" if known else ""
                say(f"queue {name} has had no jobs yet; it is paused all the same{others}")
        if flags["as_json"]:
            emit_document({"paused": list(queues)})
        return Exit.OK


@click.command("resume", help=RESUME_HELP, short_help="Start the jobs of a paused queue again.")
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@store_flags
def resume(queues: tuple[str, ...], **flags: Any) -> int:
    """Run the command."""
    with opened_store(flags) as store:
        paused = {record.name for record in store.queues() if record.paused}
        for name in queues:
            store.resume(name)
            if name not in paused:
                say(f"queue {name} was not paused")
        if flags["as_json"]:
            emit_document({"resumed": list(queues)})
        return Exit.OK


PURGE_HELP = """Delete jobs, with their results and logs: those that have ended, or those in the states given.

Asks first. Running jobs are never deleted: cancel them. Prints how many are gone.

\b
Examples:
  taskq purge
  taskq purge --state failed --older 7d --yes
  taskq purge --queue mail --state queued --state scheduled
"""

#: The states that can be given: running jobs cannot be deleted.
CHOICES = [str(state) for state in State if state is not State.RUNNING]


@click.command("purge", help=PURGE_HELP, short_help="Delete jobs.")
@click.option("--state", "states", multiple=True, type=click.Choice(CHOICES), help="Default: all that have ended.")
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--task", metavar="TASK", help="Only of this task, module:function.")
@click.option("--older", metavar="TIME", help="Only what ended, or was submitted, longer ago: 90, 10m, 7d.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@store_flags
def purge(
    states: tuple[str, ...], queue: str | None, task: str | None, older: str | None, *, yes: bool, **flags: Any
) -> int:
    """Run the command."""
    chosen = tuple(map(State, states)) or tuple(sorted(TERMINAL))
    wanted = Selection(states=chosen, queue=queue, task=task, older_than=ago(older))
    with opened_store(flags) as store:
        found = list(select(store, wanted))
        if found and not yes and not _confirmed(found, store):
            say("nothing was deleted")
            return Exit.FAILED
        gone = remove_all(store, found)
        if flags["as_json"]:
            emit_document({"removed": gone})
        else:
            emit_line(f"{gone}")
        return Exit.OK


def _confirmed(found: Sequence[JobRecord], store: Store) -> bool:
    """Ask on the terminal.

    Raises:
        click.UsageError: there is nobody to ask.
    """
    counts = {state: sum(record.state is state for record in found) for state in State}
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"this would delete {told} in {store.url}, and there is no terminal to ask: add --yes")
    ask(f"Delete {told} in {store.url}? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
