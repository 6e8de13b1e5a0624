"""What the user looks at, and which key does what. Pure: a press makes a new state, and maybe an order.

Destructive keys are upper case, so that no slip of the finger cancels a job.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from taskq.cli.top.model import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taskq.cli.top.model import Snapshot
    from taskq.store import JobRecord

__all__ = ["KEYS", "PANELS", "View", "press", "rows_of"]

#: The panels, from above.
PANELS = ("queues", "running", "failed", "workers")

#: The panels whose rows are jobs.
JOB_PANELS = ("running", "failed")

#: Rows that a page key moves.
PAGE = 10

#: The keys, for the help.
KEYS = (
    ("up, down, k, j", "choose a row"),
    ("tab, shift-tab", "go to the next panel, or back"),
    ("home, end, g, G", "the first row, the last one"),
    ("enter", "look at a job closely, with its log"),
    ("esc", "back"),
    ("C", "cancel the job: it is asked to stop"),
    ("K", "kill the job: its process is ended at once"),
    ("R", "run a failed job again"),
    ("P", "pause the queue, or resume it"),
    ("?", "this help"),
    ("q", "quit"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The view. `chosen`: the name or id of the chosen row of each panel, so that it stays when rows move.

    `detail`: the id of the job that is looked at closely. `scroll`: lines of its log between the end and the screen.
    """

    panel: str = "running"
    chosen: Mapping[str, str] = field(default_factory=dict)
    detail: str | None = None
    scroll: int = 0
    help: bool = False
    message: str = ""
    done: bool = False

    def index(self, panel: str, rows: Sequence[str]) -> int:
        """Return which row of a panel is chosen."""
        chosen = self.chosen.get(panel)
        return rows.index(chosen) if chosen in rows else 0

    def target(self, snapshot: Snapshot) -> str | None:
        """Return the name or id of the row that keys act on."""
        rows = rows_of(snapshot, self.panel)
        return rows[self.index(self.panel, rows)] if rows else None

    def job(self, snapshot: Snapshot) -> str | None:
        """Return the id of the job that keys act on."""
        return self.detail or (self.target(snapshot) if self.panel in JOB_PANELS else None)


def rows_of(snapshot: Snapshot, panel: str) -> list[str]:
    """Return the names or ids of a panel's rows."""
    if panel == "queues":
        return [record.name for record in snapshot.queues]
    if panel == "workers":
        return [record.name for record in snapshot.workers]
    jobs: Sequence[JobRecord] = snapshot.running if panel == "running" else snapshot.failed
    return [record.id for record in jobs]


def press(view: View, key: str, snapshot: Snapshot) -> tuple[View, Order | None]:
    """Return the view after a key, and what to do in the store."""
    view = replace(view, message="")
    if view.help:
        return replace(view, help=False), None
    if key in ORDERS:
        return _order(view, key, snapshot)
    if key in ("?", "q"):
        return replace(view, help=key == "?", done=key == "q"), None
    return (_press_in_panels(view, key, snapshot) if view.detail is None else _press_in_detail(view, key)), None


def _press_in_panels(view: View, key: str, snapshot: Snapshot) -> View:
    if key in ("tab", "backtab", "right", "left"):
        step = 1 if key in ("tab", "right") else -1
        return replace(view, panel=PANELS[(PANELS.index(view.panel) + step) % len(PANELS)])
    if key == "enter":
        return replace(view, detail=view.job(snapshot), scroll=0)
    return _move(view, key, rows_of(snapshot, view.panel))


def _press_in_detail(view: View, key: str) -> View:
    if key in ("esc", "enter", "left", "backspace"):
        return replace(view, detail=None)
    steps = {"up": 1, "k": 1, "down": -1, "j": -1, "pageup": PAGE, "pagedown": -PAGE, "end": -view.scroll}
    return replace(view, scroll=max(0, view.scroll + steps.get(key, 0)))


#: Where a key leads from a row, of so many.
MOVES: Mapping[str, Callable[[int, int], int]] = {
    "up": lambda at, _: at - 1,
    "k": lambda at, _: at - 1,
    "down": lambda at, _: at + 1,
    "j": lambda at, _: at + 1,
    "pageup": lambda at, _: at - PAGE,
    "pagedown": lambda at, _: at + PAGE,
    "home": lambda _, __: 0,
    "g": lambda _, __: 0,
    "end": lambda _, count: count - 1,
    "G": lambda _, count: count - 1,
}


def _move(view: View, key: str, rows: Sequence[str]) -> View:
    if key not in MOVES or not rows:
        return view
    at = MOVES[key](view.index(view.panel, rows), len(rows))
    return replace(view, chosen={**view.chosen, view.panel: rows[min(max(at, 0), len(rows) - 1)]})


ORDERS = {"C": "cancel", "K": "kill", "R": "retry", "P": "pause"}


def _order(view: View, key: str, snapshot: Snapshot) -> tuple[View, Order | None]:
    if key == "P":
        return _pause(view, snapshot)
    job_id = view.job(snapshot)
    if job_id is None:
        return replace(view, message=f"{key} is for jobs: choose one under Running or Failed"), None
    return view, Order(verb=ORDERS[key], target=job_id)


def _pause(view: View, snapshot: Snapshot) -> tuple[View, Order | None]:
    """Pause the chosen queue, or that of the chosen job."""
    name = view.target(snapshot) if view.panel == "queues" and view.detail is None else _queue_of(view, snapshot)
    paused = {record.name: record.paused for record in snapshot.queues}
    if name is None or name not in paused:
        return replace(view, message="P is for queues: choose one under Queues"), None
    return view, Order(verb="resume" if paused[name] else "pause", target=name)


def _queue_of(view: View, snapshot: Snapshot) -> str | None:
    job_id = view.job(snapshot)
    jobs = (*snapshot.running, *snapshot.failed)
    return next((record.queue for record in jobs if record.id == job_id), None)
