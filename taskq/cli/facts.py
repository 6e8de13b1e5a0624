"""All that is known of one job, as a list for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from taskq.cli.jsontext import Unwritable, to_text
from taskq.cli.records import brief_error, meta_of, progress_text, run_time
from taskq.cli.screen import printable
from taskq.cli.tables import STATE_STYLES
from taskq.cli.times import age, clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.cli.screen import Line, Screen
    from taskq.store import JobRecord

__all__ = ["fact_lines"]

#: Columns of the names of facts, and of a screen below which values begin on a line of their own.
NAME = 11
NARROW = 30


def fact_lines(record: JobRecord, now: float, screen: Screen) -> list[Line]:
    """Return the facts of a job, one per line; long ones go on in the next."""
    lines: list[Line] = []
    for name, value, style in _facts(record, now):
        room = None if screen.width is None else max(NARROW, screen.width) - NAME
        first, *rest = _wrapped(printable(value), room)
        lines.append([(f"{name:<{NAME}}", "bold"), (first, style)])
        lines += [[(" " * NAME, ""), (piece, style)] for piece in rest]
    return lines


def _facts(record: JobRecord, now: float) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and style of all that is there to tell."""
    yield "id", record.id, ""
    yield "task", record.task, ""
    if record.label and record.label != record.task:
        yield "call", record.label, ""
    yield "state", _state(record), STATE_STYLES.get(str(record.state), "")
    if record.failure is not None:
        yield "error", brief_error(record), "red"
    if record.refusal is not None:
        yield "refused", " ".join(record.refusal.message.split()), "yellow"
    yield "queue", f"{record.queue}, priority {record.priority}" if record.priority else record.queue, ""
    if record.key is not None:
        yield "key", record.key, ""
    yield from _times(record, now)
    yield "attempts", _attempts(record), ""
    if record.worker:
        yield "worker", record.worker, ""
    if record.progress is not None:
        yield "progress", progress_text(record), ""
    if meta := meta_of(record):
        yield "meta", _as_text(meta), ""
    if record.depends_on:
        yield "needs", ", ".join(record.depends_on), ""


def _state(record: JobRecord) -> str:
    return f"{record.state} ({record.reason})" if record.reason is not None else str(record.state)


def _times(record: JobRecord, now: float) -> Iterator[tuple[str, str, str]]:
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


def _attempts(record: JobRecord) -> str:
    crashes = f", {record.crashes} ended by a crash" if record.crashes else ""
    return f"{record.attempts}{crashes}"


def _as_text(value: object) -> str:
    try:
        return to_text(value)
    except Unwritable:
        return repr(value)


def _wrapped(text: str, room: int | None) -> list[str]:
    """Break a text into pieces that fit, at any character: ids and JSON have few spaces."""
    if room is None or cell_len(text) <= room:
        return [text]
    pieces, piece = [], ""
    for sign in text:
        if cell_len(piece + sign) > room:
            pieces.append(piece)
            piece = ""
        piece += sign
    return [*pieces, piece]
