"""Refusals: a job that a worker cannot run stays in its place; the worker passes over it while another may run it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from taskq.executors.sqlite.schema import HIGHEST, QUEUED

if TYPE_CHECKING:
    from taskq.executors.sqlite.schema import Execute

__all__ = ["Refuser", "forget_refusals", "not_refused", "refuse"]

#: The names of the other workers that serve a queue.
OTHERS = (
    "SELECT name FROM workers WHERE name <> ? AND NOT stopping AND (queues = '' OR "
    "instr(',' || queues || ',', ',' || ? || ','))"
)


def _others(execute: Execute, queue: str, me: str) -> list[str]:
    return [row[0] for row in execute(OTHERS, (me, queue)).fetchall()]


def not_refused(execute: Execute, queue: str, me: str) -> tuple[str, tuple[Any, ...]]:
    """Return the condition, with its values, for jobs of a queue that the worker of this name does not leave to others.

    It has refused a job: before that there is nothing that it would leave.
    """
    others = _others(execute, queue, me)
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


class Refuser:
    """A worker that has refused jobs, and up to where it passes over them: looking at thousands costs each claim.

    The front of a queue is looked through again when some time has passed, in proportion to what that took: a job that
    comes back to its old place waits so long.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._file: object = None
        self._passed: dict[str, dict[int, int]] = {}
        self._anew_at: dict[str, float] = {}
        #: When to look again, as the last answers have left something out; None: they have not.
        self.look_at: float | None = None

    def begin(self, file: object) -> None:
        """Begin a claim or a look; `file` changes with the file, and with the workers that serve it."""
        self.look_at = None
        if file != self._file:
            self._file = file
            self.clear()

    def clear(self) -> None:
        """Look through all queues from their fronts the next time."""
        self._passed.clear()

    def forget(self, queue: str) -> None:
        """Look through a queue from its front the next time."""
        self._passed.pop(queue, None)

    def parts(self, queue: str) -> list[tuple[str, tuple[int, ...]]]:
        """Return conditions, with their values, for the parts of a queue that are to be looked through, in order."""
        passed = self._passed.get(queue)
        if passed is None or time.monotonic() >= self._anew_at[queue]:
            self.forget(queue)
            return EVERYTHING
        found: list[tuple[str, tuple[int, ...]]] = []
        below: tuple[str, tuple[int, ...]] = "", ()
        for rank in sorted(passed):
            found.append((f"{below[0]} AND rank < ?", (*below[1], rank)))
            found.append((" AND rank = ? AND n > ?", (rank, passed[rank])))
            below = " AND rank > ?", (rank,)
        return [*found, below]

    def pass_over(self, execute: Execute, queue: str, last: int | None, took: float) -> None:
        """Note that all jobs of a queue up to number `last`, or all there are, are taken or left to others."""
        if queue in self._passed:
            self.look_at = min(self._anew_at[queue], self.look_at or math.inf)
        elif took < WORTH_S:
            return
        else:
            self._anew_at[queue] = time.monotonic() + min(took / SHARE, ANEW_S)
        until = None if last is None else execute("SELECT rank FROM jobs WHERE n = ?", (last,)).fetchone()[0]
        passed: dict[int, int] = {}
        next_rank = f"SELECT min(rank) FROM jobs INDEXED BY jobs_line WHERE state = {QUEUED} AND queue = ? AND rank > ?"
        last_of = f"SELECT max(n) FROM jobs INDEXED BY jobs_line WHERE state = {QUEUED} AND queue = ? AND rank = ?"
        rank = execute(next_rank, (queue, -HIGHEST)).fetchone()[0]
        while type(rank) is int and len(passed) < RANKS and rank != until:
            passed[rank] = execute(last_of, (queue, rank)).fetchone()[0]
            rank = execute(next_rank, (queue, rank)).fetchone()[0]
        if type(rank) is int and rank == until and last is not None:
            passed[rank] = last
        self._passed[queue] = passed


#: Seconds of a look through a queue from which up to where it went is kept, the share of the time that such looks may
#: take, and the seconds between two of them at most; priorities of which it is kept.
WORTH_S, SHARE, ANEW_S, RANKS = 3e-4, 0.02, 30.0, 8


#: The whole of a queue.
EVERYTHING: list[tuple[str, tuple[int, ...]]] = [("", ())]
