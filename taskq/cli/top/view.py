"""From what was seen, and what the user looks at, to the lines that fill the screen. Pure.

    title, figures          2 lines, and the message line
    panels                  each as high as its rows, as far as there is room; the one in focus gets most;
                            on a low screen it alone is shown
    keys                    the last line

Whatever was seen, the picture has as many lines as the screen, and none is wider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from taskq.cli.format import (
    JOB_COLUMNS,
    QUEUE_COLUMNS,
    WORKER_COLUMNS,
    age,
    brief_error,
    clock,
    progress_text,
    queue_row,
    run_time,
    worker_row,
)
from taskq.cli.screen import printable
from taskq.cli.show import detail_lines
from taskq.cli.tables import Column, cut, table
from taskq.cli.top.state import KEYS, PANELS, rows_of
from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.cli.screen import Line, Screen, Signs
    from taskq.cli.top.model import Snapshot
    from taskq.cli.top.state import View
    from taskq.store import JobRecord

__all__ = ["picture", "plain_lines", "spark"]

#: Lines of a panel that is shown beside others: its name, its headings, a row, and a blank line.
PANEL_LEAST = 4

#: Columns of a progress bar.
BAR = 10

#: The styles of what is chosen, and of what is in focus.
CHOSEN = "reverse"
FOCUS = "bold cyan"

RUNNING_COLUMNS = (
    JOB_COLUMNS[0],
    Column(name="TASK", least=20),
    Column(name="QUEUE", rank=4, least=7),
    Column(name="AGE", right=True),
    Column(name="PROGRESS", rank=1),
    Column(name="TRY", right=True, rank=6),
    Column(name="WORKER", rank=5, least=8),
)

FAILED_COLUMNS = (
    JOB_COLUMNS[0],
    Column(name="TASK", least=20),
    Column(name="QUEUE", rank=4, least=7),
    Column(name="AGO", right=True, rank=3),
    Column(name="TRIES", right=True, rank=5),
    Column(name="WHY", least=16, rank=1),
)

TITLES = {"queues": "Queues", "running": "Running", "failed": "Failed", "workers": "Workers"}
NOTHING = {
    "queues": "no queues yet",
    "running": "nothing runs",
    "failed": "nothing failed",
    "workers": "no workers: taskq worker starts one",
}


def picture(snapshot: Snapshot, view: View, screen: Screen, height: int) -> list[Line]:
    """Return exactly `height` lines, none wider than the screen."""
    room = max(1, height - 4)
    if view.help:
        body = _help()
    elif view.detail is not None:
        body = _detail(snapshot, view, screen, room)
    else:
        body = _panels(snapshot, view, screen, room)
    body = [*body, *[[] for _ in range(room)]][:room]
    lines = [*_head(snapshot, screen), *body, _message(snapshot, view), _keys(view)]
    return [_fitted(line, screen) for line in lines[:height]]


# --- above and below


def _head(snapshot: Snapshot, screen: Screen) -> list[Line]:
    width = screen.width or 80
    moment = clock(snapshot.now, snapshot.now)
    name = cut(f"taskq top  {printable(snapshot.url)}", max(10, width - len(moment) - 2), screen.signs.cut)
    gap = " " * max(1, width - cell_len(name) - len(moment))
    return [[(name, "bold"), (gap + moment, "")], _figures(snapshot, screen, width)]


def _figures(snapshot: Snapshot, screen: Screen, width: int) -> Line:
    rate = snapshot.rates[-1] if snapshot.rates else 0.0
    parts = [
        (f"{rate:,.1f} jobs/s ", "bold green" if rate else ""),
        (f" {snapshot.count(State.QUEUED):,} wait", ""),
        (f"  {snapshot.count(State.RUNNING):,} run", "blue"),
        (f"  {snapshot.count(State.FAILED):,} failed", "red" if snapshot.count(State.FAILED) else ""),
        (f"  {len(snapshot.workers)} worker{'s' * (len(snapshot.workers) != 1)}", ""),
    ]
    room = width - sum(len(text) for text, _ in parts) - 2
    if room >= 8:  # noqa: PLR2004 - fewer say nothing
        parts.append(("  " + spark(snapshot.rates, min(room, 60), screen.signs), "green"))
    return parts


def spark(values: Sequence[float], width: int, signs: Signs) -> str:
    """Return the last values as a line of bars; the highest is the height."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    levels = len(signs.sparks) - 1
    return "".join(signs.sparks[round(value / top * levels) if top > 0 else 0] for value in shown)


def _message(snapshot: Snapshot, view: View) -> Line:
    if snapshot.trouble:
        return [(printable(snapshot.trouble), "red")]
    return [(printable(view.message), "yellow")]


def _keys(view: View) -> Line:
    if view.help:
        return [("any key: back", "dim")]
    if view.detail is not None:
        return [("? help  q quit  esc back  j/k scroll  C cancel  K kill  R retry  P pause", "dim")]
    return [("? help  q quit  tab panel  j/k row  enter detail  C cancel  K kill  R retry  P pause", "dim")]


def _help() -> list[Line]:
    return [[("Keys", "bold")], [], *[[(f"  {keys:<22}", "cyan"), (words, "")] for keys, words in KEYS]]


# --- panels


def _panels(snapshot: Snapshot, view: View, screen: Screen, room: int) -> list[Line]:
    shown = PANELS if room >= PANEL_LEAST * len(PANELS) else (view.panel,)
    heights = _heights(snapshot, view, shown, room)
    return [line for panel in shown for line in _panel(snapshot, view, panel, screen, heights[panel])]


def _heights(snapshot: Snapshot, view: View, shown: Sequence[str], room: int) -> dict[str, int]:
    """Return each panel's height: the least of each, then what they want, the one in focus first."""
    heights = dict.fromkeys(shown, PANEL_LEAST)
    spare = room - PANEL_LEAST * len(shown)
    for panel in sorted(shown, key=lambda name: (name != view.panel, PANELS.index(name))):
        wanted = max(0, len(rows_of(snapshot, panel)) - 1)
        more = min(spare, wanted)
        heights[panel] += more
        spare -= more
    return heights


def _panel(snapshot: Snapshot, view: View, panel: str, screen: Screen, height: int) -> list[Line]:
    """Return the lines of a panel: its name, its headings, rows around the chosen one, a blank line."""
    focus = panel == view.panel
    keys = rows_of(snapshot, panel)
    title: Line = [(TITLES[panel], FOCUS if focus else "bold"), (f" ({len(keys)})" if keys else "", "dim")]
    if not keys:
        return [title, [(NOTHING[panel], "dim")], *[[] for _ in range(height - 2)]]
    heading, *rows = table(*_table(snapshot, panel, screen), screen)
    space = max(1, height - 3)
    at = view.index(panel, keys)
    first = min(max(0, at - space // 2), max(0, len(rows) - space))
    lines = [
        _chosen(row, screen) if focus and number == at else row
        for number, row in enumerate(rows)
        if first <= number < first + space
    ]
    return [title, heading, *lines, *[[] for _ in range(height - 2 - len(lines))]]


def _table(snapshot: Snapshot, panel: str, screen: Screen) -> tuple[Sequence[Column], list[list[str]]]:
    now = snapshot.now
    if panel == "queues":
        return QUEUE_COLUMNS, [queue_row(record, snapshot.workers, now) for record in snapshot.queues]
    if panel == "workers":
        return WORKER_COLUMNS, [worker_row(record, now) for record in snapshot.workers]
    if panel == "running":
        return RUNNING_COLUMNS, [_running_row(record, now, screen) for record in snapshot.running]
    return FAILED_COLUMNS, [_failed_row(record, now) for record in snapshot.failed]


def _running_row(record: JobRecord, now: float, screen: Screen) -> list[str]:
    return [
        record.id,
        record.label or record.task,
        record.queue,
        age(run_time(record, now)),
        _bar(record, screen),
        str(record.attempts),
        record.worker or "",
    ]


def _bar(record: JobRecord, screen: Screen) -> str:
    """Return a job's progress as a bar, where it knows its total."""
    done, total = record.progress or (0, None)
    if not total:
        return progress_text(record)
    full = min(BAR, done * BAR // total)
    return f"{screen.signs.full * full}{screen.signs.empty * (BAR - full)} {min(done, total) * 100 // total:3} %"


def _failed_row(record: JobRecord, now: float) -> list[str]:
    ago = None if record.ended_at is None else now - record.ended_at
    return [
        record.id,
        record.label or record.task,
        record.queue,
        age(ago),
        str(record.attempts),
        brief_error(record),
    ]


def _chosen(line: Line, screen: Screen) -> Line:
    text = "".join(part for part, _ in line)
    return [(text + " " * max(0, (screen.width or 0) - cell_len(text)), CHOSEN)]


# --- one job


def _detail(snapshot: Snapshot, view: View, screen: Screen, room: int) -> list[Line]:
    """Return the facts of a job, and as much of the end of its log as there is room for."""
    seen = snapshot.detail
    if seen is None:
        return [[("looking ...", "dim")]]
    if seen.record is None or seen.record.id != view.detail:
        return [[(f"{view.detail} is no longer kept" if seen.record is None else "looking ...", "dim")]]
    facts = detail_lines(seen.record, snapshot.now, screen)[: max(1, room - 3)]
    space = max(1, room - len(facts) - 2)
    texts = seen.log.decode(errors="replace").splitlines()
    last = max(space, len(texts) - view.scroll)
    shown = texts[max(0, last - space) : last] if texts else []
    log: list[Line] = [[(printable(text.expandtabs(4)), "")] for text in shown]
    return [*facts, [], [("Log", "bold"), (f" ({len(texts)} lines)" if texts else " (empty)", "dim")], *log]


def _fitted(line: Line, screen: Screen) -> Line:
    """Cut a line that is too wide."""
    room = screen.width
    if room is None or sum(cell_len(text) for text, _ in line) <= room:
        return line
    fitted = []
    for text, style in line:
        short = cut(text, room, screen.signs.cut) if room > 0 else ""
        fitted.append((short, style))
        room -= cell_len(short)
    return fitted


# --- without a terminal


def plain_lines(snapshot: Snapshot, screen: Screen) -> list[Line]:
    """Return all panels one below the other, for a file or a pipe."""
    counted = f"{snapshot.count(State.QUEUED):,} wait, {snapshot.count(State.RUNNING):,} run"
    failed = f"{snapshot.count(State.FAILED):,} failed"
    lines: list[Line] = [[(printable(snapshot.url), "bold")], [(f"{counted}, {failed}", "")]]
    for panel in PANELS:
        rows = rows_of(snapshot, panel)
        lines += [[], [(TITLES[panel], "bold")]]
        lines += table(*_table(snapshot, panel, screen), screen) if rows else [[(NOTHING[panel], "dim")]]
    return lines
