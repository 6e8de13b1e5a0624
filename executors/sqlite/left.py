"""Jobs that a worker has refused: they stay in their place, and it passes over them while another one may run them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskq.executors.sqlite.schema import Execute

__all__ = ["forget_refusals", "not_refused", "refuse"]

#: The names of the other workers that serve a queue.
OTHERS = (
    "SELECT name FROM workers WHERE name <> ? AND NOT stopping AND (queues = '' OR "
    "instr(',' || queues || ',', ',' || ? || ','))"
)


def _others(execute: Execute, queue: str, me: str) -> list[str]:
    return [row[0] for row in execute(OTHERS, (me, queue)).fetchall()]


def not_refused(execute: Execute, queue: str, me: str | None) -> tuple[str, tuple[Any, ...]]:
    """Return the condition, with its values, for jobs of a queue that this worker does not leave to others.

    `me`: its name; None: it has refused nothing yet.
    """
    others = _others(execute, queue, me) if me is not None else []
    if not others:
        return "", ()
    marks = ", ".join("?" * len(others))
    condition = (
        " AND NOT (EXISTS (SELECT 1 FROM refusals r WHERE r.n = jobs.n AND r.worker = ?) AND "
        f"(SELECT count(*) FROM refusals r WHERE r.n = jobs.n AND r.worker IN ({marks})) < ?)"
    )
    return condition, (me, *others, len(others))


def refuse(execute: Execute, n: int, queue: str, me: str) -> bool:
    """Note that this worker refuses a job; return whether another one may run it."""
    execute("INSERT OR IGNORE INTO refusals (n, worker) VALUES (?, ?)", (n, me))
    refused = {row[0] for row in execute("SELECT worker FROM refusals WHERE n = ?", (n,)).fetchall()}
    return not refused.issuperset(_others(execute, queue, me))


def forget_refusals(execute: Execute, name: str) -> None:
    """Forget what a worker has refused that is gone: another one may take its name."""
    execute("DELETE FROM refusals WHERE worker = ?", (name,))
