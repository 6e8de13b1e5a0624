"""`taskq cancel`, `taskq retry`, `taskq pause`, `taskq resume`: what people do to jobs and queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskq.cli.emit import emit_document, emit_line
from taskq.cli.exits import Exit
from taskq.cli.messages import say
from taskq.cli.stores import jobs_of, opened_store, store_flags
from taskq.names import check_name
from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskq.store import JobRecord, Store

__all__ = ["cancel", "in_pages", "pause", "resume", "retry"]

#: Jobs asked for at once where there may be many.
PAGE = 1000

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
                say(f"{record.id} runs; it was {'told to die' if kill else 'asked to stop (--kill ends it at once)'}")
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
@store_flags
def retry(ids: tuple[str, ...], queue: str | None, *, failed: bool, **flags: Any) -> int:
    """Run the command."""
    if bool(ids) == failed:
        raise click.UsageError("give the ids of jobs, or --failed for all that failed")
    if queue is not None and not failed:
        raise click.UsageError("--queue goes with --failed")
    with opened_store(flags) as store:
        records = jobs_of(store, ids) if ids else list(in_pages(store, (State.FAILED,), queue))
        done = _retry(store, records)
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


def _retry(store: Store, records: Sequence[JobRecord]) -> list[tuple[JobRecord, bool]]:
    done: list[tuple[JobRecord, bool]] = []
    for start in range(0, len(records), PAGE):
        page = records[start : start + PAGE]
        done += zip(page, store.retry([record.id for record in page]), strict=True)
    return done


def in_pages(store: Store, states: Sequence[State], queue: str | None = None) -> Iterator[JobRecord]:
    """Yield all jobs in these states, newest first; each once, also when some go or come meanwhile."""
    seen: set[str] = set()
    offset = 0
    while page := store.list(states=states, queue=queue, limit=PAGE, offset=offset):
        offset += len(page)
        for record in page:
            if record.id not in seen:
                seen.add(record.id)
                yield record


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
