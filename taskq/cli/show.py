"""Commands that show what there is: status, queues, workers and config show."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.exits import Exit
from taskq.cli.format import (
    JOB_COLUMNS,
    QUEUE_COLUMNS,
    WORKER_COLUMNS,
    age,
    brief_error,
    clock,
    job_document,
    job_row,
    meta_of,
    progress_text,
    queue_document,
    queue_row,
    run_time,
    worker_document,
    worker_row,
)
from taskq.cli.jsontext import Unwritable, to_text
from taskq.cli.screen import CLEAR, printable, stdout_screen
from taskq.cli.stores import ago, default_store_url, find_jobs, opened_store, store_flags
from taskq.cli.tables import STATE_STYLES, Column, table, wrapped
from taskq.cli.tell import emit, emit_document, say
from taskq.config import Settings, trace
from taskq.durations import parse_duration
from taskq.executor import Selection
from taskq.redact import safe_url
from taskq.states import TERMINAL, State
from taskq.survey import as_it_runs, select

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskq.cli.screen import Line, Screen
    from taskq.store import JobRecord, QueueRecord, Store, WorkerRecord

__all__ = ["JobsOrQueues", "config", "detail_lines", "queues", "status", "workers"]

STATUS_HELP = """Show where jobs stand: the queues and the newest jobs, or the jobs named.

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
    """The jobs and queues that the command line asks for."""

    words: tuple[str, ...]
    states: tuple[State, ...]
    queue: str | None
    task: str | None
    since: str | None
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
            return detail_lines(self.jobs[0], self.now, screen) if len(self.jobs) == 1 else self._jobs(screen)
        rows = [queue_row(record, self.workers, self.now) for record in self.queues]
        queues = table(QUEUE_COLUMNS, rows, screen) if rows else [[("no queues yet", "dim")]]
        more = [[(f"and {self.left_out:,} more: taskq queues shows all", "dim")]] if self.left_out else []
        return [*queues, *more, [], *self._jobs(screen)]

    def _jobs(self, screen: Screen) -> list[Line]:
        if not self.jobs:
            return [[("no jobs", "dim")]]
        return table(JOB_COLUMNS, [job_row(record, self.now) for record in self.jobs], screen)


@click.command("status", help=STATUS_HELP, short_help="Show queues and jobs.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--state", "states", multiple=True, type=click.Choice(list(map(str, State))), help="Only these.")
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--task", metavar="TASK", help="Only of this task, module:function.")
@click.option("--since", metavar="TIME", help="Only what was submitted no longer ago: 90, 10m, 7d.")
@click.option("--limit", "-n", metavar="N", type=click.IntRange(0), default=LIMIT, help="Jobs shown; default: 10.")
@click.option("--watch", "-w", is_flag=True, help="Keep showing until Ctrl-C, or until all named jobs have ended.")
@click.option("--every", metavar="TIME", default="1s", help="How often --watch looks; default: 1s.")
@store_flags
def status(
    ids: tuple[str, ...],
    states: tuple[str, ...],
    queue: str | None,
    limit: int,
    every: str,
    *,
    task: str | None,
    since: str | None,
    watch: bool,
    **flags: Any,
) -> int:
    """Run the command."""
    wanted = Wanted(words=ids, states=tuple(map(State, states)), queue=queue, task=task, since=since, limit=limit)
    ago(since)  # bad text is refused before a store is opened
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
    """Read what the command line asks for."""
    if wanted.words:
        found = find_jobs(store, wanted.words)
        missing = [word for word, record in zip(wanted.words, found, strict=True) if record is None]
        return JobsOrQueues(now=time.time(), jobs=[record for record in found if record is not None], missing=missing)
    meant = Selection(
        states=wanted.states, queue=wanted.queue, task=wanted.task, since=ago(wanted.since), limit=wanted.limit
    )
    jobs = list(select(store, meant)) if wanted.limit else []
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


QUEUES_HELP = """Show the queues: what waits, what runs, what became of the rest, and how long the oldest job waits.

\b
Examples:
  taskq queues
  taskq queues --url redis://queue-host/0 --json
"""

WORKERS_HELP = """Show the workers that are alive: where they run, what they serve, what they have done.

\b
Examples:
  taskq workers
  taskq workers --json
"""


@click.command("queues", help=QUEUES_HELP, short_help="Show the queues.")
@store_flags
def queues(**flags: Any) -> int:
    """Run the command."""
    with opened_store(flags, mode="ro") as store:
        serving, now = store.workers(), time.time()
        records = as_it_runs(store.queues(), serving)

        def lines(screen: Screen) -> Sequence[Line]:
            return table(QUEUE_COLUMNS, [queue_row(record, serving, now) for record in records], screen)

        emit(lambda: {"queues": [queue_document(r, serving) for r in records]}, lines, as_json=flags["as_json"])
        if not records and not flags["as_json"]:
            say(f"no queues in {store.url}: taskq submit makes one")
        return Exit.OK


@click.command("workers", help=WORKERS_HELP, short_help="Show the workers.")
@store_flags
def workers(**flags: Any) -> int:
    """Run the command."""
    with opened_store(flags, mode="ro") as store:
        records, now = store.workers(), time.time()

        def lines(screen: Screen) -> Sequence[Line]:
            return table(WORKER_COLUMNS, [worker_row(record, now) for record in records], screen)

        emit(lambda: {"workers": [worker_document(r) for r in records]}, lines, as_json=flags["as_json"])
        if not records and not flags["as_json"]:
            say("no workers: taskq worker starts one")
        return Exit.OK


#: Columns of the names of facts, and of a screen below which values begin on a line of their own.
NAME_WIDTH = 11

NARROW = 30


def detail_lines(record: JobRecord, now: float, screen: Screen) -> list[Line]:
    """Return the facts of a job, one per line; long ones go on in the next."""
    lines: list[Line] = []
    for name, value, style in _details(record, now):
        room = None if screen.width is None else max(NARROW, screen.width) - NAME_WIDTH
        first, *rest = wrapped(printable(value), room)
        lines.append([(f"{name:<{NAME_WIDTH}}", "bold"), (first, style)])
        lines += [[(" " * NAME_WIDTH, ""), (piece, style)] for piece in rest]
    return lines


def _details(record: JobRecord, now: float) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and style of all that is there to tell."""
    yield "id", record.id, ""
    yield "task", record.task, ""
    if record.label and record.label != record.task:
        yield "call", record.label, ""
    yield "state", _state_text(record), STATE_STYLES.get(str(record.state), "")
    if record.failure is not None:
        yield "error", brief_error(record), "red"
    if record.refusal is not None:
        yield "refused", " ".join(record.refusal.message.split()), "yellow"
    yield "queue", f"{record.queue}, priority {record.priority}" if record.priority else record.queue, ""
    if record.key is not None:
        yield "key", record.key, ""
    yield from _time_details(record, now)
    yield "attempts", _attempts_text(record), ""
    if record.worker:
        yield "worker", record.worker, ""
    if record.progress is not None:
        yield "progress", progress_text(record), ""
    if meta := meta_of(record):
        yield "meta", _as_text(meta), ""
    if record.depends_on:
        yield "needs", ", ".join(record.depends_on), ""


def _state_text(record: JobRecord) -> str:
    return f"{record.state} ({record.reason})" if record.reason is not None else str(record.state)


def _time_details(record: JobRecord, now: float) -> Iterator[tuple[str, str, str]]:
    told = {
        "submitted": record.submitted_at,
        "due": record.due_at,
        "expires": record.expires_at,
        "started": record.started_at,
        "ended": record.ended_at,
    }
    for name, instant in told.items():
        if instant is not None:
            distance = f"in {age(instant - now)}" if instant > now else f"{age(now - instant)} ago"
            yield name, f"{clock(instant, now)} ({distance})", ""
    ran = run_time(record, now)
    if ran is not None:
        yield "ran", age(ran), ""


def _attempts_text(record: JobRecord) -> str:
    crashes = f", {record.crashes} ended by a crash" if record.crashes else ""
    return f"{record.attempts}{crashes}"


def _as_text(value: object) -> str:
    try:
        return to_text(value)
    except Unwritable:
        return repr(value)


CONFIG_HELP = """Show the settings.

\b
Examples:
  taskq config show
"""

CONFIG_SHOW_HELP = """Show every setting, its value, and where it comes from; passwords are masked.

A flag wins over TASKQ_* in the environment, that over taskq.toml, that over [tool.taskq] in pyproject.toml.

\b
Examples:
  taskq config show
  taskq config show --json
"""

SETTING_COLUMNS = (
    Column(name="SETTING"),
    Column(name="VALUE", least=12),
    Column(name="FROM", least=12, rank=1),
)


@click.group("config", help=CONFIG_HELP, short_help="Show the settings and where they come from.")
def config() -> None:
    """Hold the commands."""


@config.command("show", help=CONFIG_SHOW_HELP, short_help="Show every setting.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def config_show(*, as_json: bool) -> int:
    """Run the command."""
    rows = _settings()
    emit(
        lambda: {"settings": {name: {"value": value, "from": place} for name, value, place in rows}},
        lambda screen: table(
            SETTING_COLUMNS, [(name, _setting_text(value), place) for name, value, place in rows], screen
        ),
        as_json=as_json,
    )
    return Exit.OK


def _settings() -> list[tuple[str, Any, str]]:
    said = trace()
    defaults = Settings()
    rows = []
    for name in Settings.field_names():
        value, place = said.get(name, (getattr(defaults, name), "default"))
        if name == "url" and place == "default":
            value, place = default_store_url(), "default; in code and for taskq map it is local://"
        rows.append((name, safe_url(value) if isinstance(value, str) else value, place))
    return rows


def _setting_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
