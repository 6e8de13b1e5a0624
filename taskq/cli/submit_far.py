"""`taskq submit` on a store: jobs are kept there for workers, and their ids printed.

    Request ──▶ Maker (the task, checked) ──line by line──▶ NewJob ──put──▶ id
                                                                       └── --wait ──▶ here.outcome_of ──▶ result

A line of --jsonl that makes no job is told, and the others are kept all the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taskq.allowlist import opens
from taskq.cli.emit import emit_document, emit_line
from taskq.cli.ended import print_outcome, print_waited_command
from taskq.cli.exits import Exit
from taskq.cli.here import outcome_of
from taskq.cli.jsonl import Lines, open_input
from taskq.cli.lines import BadLine, parse_line
from taskq.cli.making import maker_of
from taskq.cli.messages import say
from taskq.cli.output import CannotWrite, OutputClosed, need_stdout
from taskq.cli.records import job_document
from taskq.cli.resume import nothing_done
from taskq.cli.stores import opened_store, served
from taskq.errors import ConfigError, EncodeError
from taskq.shell import BadItem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.cli.making import Maker
    from taskq.cli.request import Request
    from taskq.config import Settings
    from taskq.store import NewJob, Store

__all__ = ["submit_far"]

#: Jobs kept in one step of --jsonl: one commit, one round trip.
BATCH = 500

#: stdin by number, which is not ours to close; stderr, where notes for people go.
STDIN, STDERR = 0, 2


def submit_far(request: Request, settings: Settings, url: str) -> int:
    """Keep what is asked for in the store; return the exit code."""
    need_stdout()
    with opened_store({"log_format": settings.log_format, "log_level": settings.log_level}, url, mode="rwc") as store:
        maker = maker_of(request, settings, store)
        if request.jsonl is not None:
            return _submit_lines(request, maker, store)
        (job_id,) = store.put([maker.from_request(request)])
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
    """Tell somebody at a terminal that nobody is there to run the job."""
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


def _submit_lines(request: Request, maker: Maker, store: Store) -> int:
    source, name = open_input(str(request.jsonl))
    failed, batch = 0, []
    try:
        for job in _jobs(maker, source, name):
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


def _jobs(maker: Maker, source: int, name: str) -> Iterator[NewJob | None]:
    """Yield the job of each line; None for one that makes none, which is told."""
    lines = Lines(source, name, nothing_done().done)
    for at, line in enumerate(lines):
        place = lines.taken(at)
        if place is None:
            continue
        try:
            yield maker.from_value(parse_line(line))
        except (BadLine, BadItem, EncodeError, ConfigError) as exc:
            say(f"line {place[1]}: {exc}", error=True)
            yield None
