"""Waiting for jobs to end, and what their ends mean for the exit code."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from taskq.cli.exits import Exit
from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from taskq.store import Ended, Store

__all__ = ["LOOK", "ends", "exit_of", "exit_of_all"]

#: Seconds that one look takes at the most: then signals are seen to, and whoever asked may look about.
LOOK = 1.0

#: Which exit code the end of a job means.
EXITS = {State.SUCCEEDED: Exit.OK, State.FAILED: Exit.FAILED, State.CANCELLED: Exit.CANCELLED}


def ends(store: Store, ids: Collection[str], timeout: float | None) -> Iterator[Ended | None]:
    """Yield the jobs as they end, each once, and None now and then; stop when all have, or the time is over."""
    deadline = None if timeout is None else time.monotonic() + timeout
    left = set(ids)
    with contextlib.closing(store.subscribe()) as subscription:
        subscription.expect(left)
        while left:
            rest = LOOK if deadline is None else min(LOOK, deadline - time.monotonic())
            for ended in subscription.wait(max(0.0, rest)):
                if ended.id in left:
                    left.remove(ended.id)
                    yield ended
            if rest <= 0:
                return
            yield None


def exit_of(state: State) -> Exit:
    """Return the exit code that the end of a job means."""
    return EXITS.get(state, Exit.WAIT_TIMEOUT)


def exit_of_all(states: Iterable[State]) -> Exit:
    """Return the exit code of several: that of a failed one, else of a cancelled one, else of one not ended."""
    codes = {exit_of(state) for state in states}
    order = (Exit.FAILED, Exit.CANCELLED, Exit.WAIT_TIMEOUT)
    return next((code for code in order if code in codes), Exit.OK)
