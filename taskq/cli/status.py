"""`taskq status`: where jobs stand."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.emit import emit, emit_document
from taskq.cli.exits import Exit
from taskq.cli.facts import fact_lines
from taskq.cli.messages import say
from taskq.cli.records import JOB_COLUMNS, QUEUE_COLUMNS, as_it_runs, job_document, job_row, queue_document, queue_row
from taskq.cli.screen import CLEAR, stdout_screen
from taskq.cli.stores import find_jobs, opened_store, store_flags
from taskq.cli.tables import table
from taskq.config import parse_duration
from taskq.states import TERMINAL, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.cli.screen import Line, Screen
    from taskq.store import JobRecord, QueueRecord, Store, WorkerRecord

__all__ = ["JobsOrQueues", "status"]

HELP = """Show where jobs stand: the queues and the newest jobs, or the jobs named.

An id may be cut short: as much of its start or its end as no other job has.

\b
Examples:
  taskq status
  taskq status --state failed --limit 50
  taskq status --watch --queue mail
  taskq status 01KB2Z7XSGD0MB3V6RYA4F0001
  taskq status --json
"""

#: Jobs shown unless --limit says otherwise.
LIMIT = 10

#: Queues shown and looked at.
QUEUES = 500

#: Seconds between two looks of --watch.
EVERY = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks to see."""

    words: tuple[str, ...]
    states: tuple[State, ...]
    queue: str | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsOrQueues:
    """What was seen at one moment."""

    now: float
    jobs: Sequence[JobRecord]
    queues: Sequence[QueueRecord] | None = None
    workers: Sequence[WorkerRecord] = ()
    missing: Sequence[str] = ()
    left_out: int = 0

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        queues: dict[str, Any] = (
            {} if self.queues is None else {"queues": [queue_document(q, self.workers) for q in self.queues]}
        )
        if self.left_out:
            queues["queues_left_out"] = self.left_out
        return {**queues, "jobs": [job_document(record) for record in self.jobs]}

    def lines(self, screen: Screen) -> list[Line]:
        """Return it for people: one job as a list of facts, several as a table."""
        if self.queues is None:
            return fact_lines(self.jobs[0], self.now, screen) if len(self.jobs) == 1 else self._jobs(screen)
        rows = [queue_row(record, self.workers, self.now) for record in self.queues]
        queues = table(QUEUE_COLUMNS, rows, screen) if rows else [[("no queues yet", "dim")]]
        more = [[(f"and {self.left_out:,} more: taskq queues shows all", "dim")]] if self.left_out else []
        return [*queues, *more, [], *self._jobs(screen)]

    def _jobs(self, screen: Screen) -> list[Line]:
        if not self.jobs:
            return [[("no jobs", "dim")]]
        return table(JOB_COLUMNS, [job_row(record, self.now) for record in self.jobs], screen)


@click.command("status", help=HELP, short_help="Show queues and jobs.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--state", "states", multiple=True, type=click.Choice(list(map(str, State))), help="Only these.")
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--limit", "-n", metavar="N", type=click.IntRange(0), default=LIMIT, help="Jobs shown; default: 10.")
@click.option("--watch", "-w", is_flag=True, help="Go on showing, until Ctrl-C or all named jobs have ended.")
@click.option("--every", metavar="TIME", default="1s", help="How often --watch looks; default: 1s.")
@store_flags
def status(
    ids: tuple[str, ...],
    states: tuple[str, ...],
    queue: str | None,
    limit: int,
    every: str,
    *,
    watch: bool,
    **flags: Any,
) -> int:
    """Run the command."""
    wanted = Wanted(words=ids, states=tuple(map(State, states)), queue=queue, limit=limit)
    period = parse_duration(every)
    with opened_store(flags, mode="ro") as store:
        seen = look(store, wanted)
        if watch:
            seen = _watch(store, wanted, seen, period, as_json=flags["as_json"])
        elif seen.jobs or not seen.missing or flags["as_json"]:
            emit(seen.document, seen.lines, as_json=flags["as_json"])
        for word in seen.missing:
            say(f"no job {word}: it was never submitted to {store.url}, or is no longer kept", error=True)
        return Exit.NOT_FOUND if seen.missing else Exit.OK


def look(store: Store, wanted: Wanted) -> JobsOrQueues:
    """Ask the store for what is wanted."""
    if wanted.words:
        found = find_jobs(store, wanted.words)
        missing = [word for word, record in zip(wanted.words, found, strict=True) if record is None]
        return JobsOrQueues(now=time.time(), jobs=[record for record in found if record is not None], missing=missing)
    jobs = store.list(states=wanted.states, queue=wanted.queue, limit=wanted.limit) if wanted.limit else []
    workers = store.workers()
    seen, more = store.some_queues(QUEUES, () if wanted.queue is None else (wanted.queue,))
    queues = [record for record in as_it_runs(seen, workers) if wanted.queue in (None, record.name)]
    left_out = more if wanted.queue is None else 0
    return JobsOrQueues(now=time.time(), jobs=jobs, queues=queues, workers=workers, left_out=left_out)


def _watch(store: Store, wanted: Wanted, seen: JobsOrQueues, every: float, *, as_json: bool) -> JobsOrQueues:
    while True:
        if as_json:
            emit_document(seen.document())
        else:
            _redraw(seen)
        if wanted.words and all(record.state in TERMINAL for record in seen.jobs):
            return seen
        time.sleep(every)
        seen = look(store, wanted)


def _redraw(seen: JobsOrQueues) -> None:
    screen = stdout_screen()
    lines = seen.lines(screen)
    if screen.terminal:
        sys.stdout.write(CLEAR)
        lines = lines[: max(1, os.get_terminal_size(sys.stdout.fileno()).lines - 1)]
    screen.show(lines)
