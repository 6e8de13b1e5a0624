"""Clocks of the running job: its time limits count what the task does, not what is imported for it.

a time limit:   with known(clock): run the task
an import:      with paused(): import_module(...)
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Clock", "known", "paused"]


class Clock(Protocol):
    """A time limit that runs."""

    def stop(self) -> None:
        """Count no longer."""

    def go_on(self) -> None:
        """Count on from where it was stopped."""


_clocks: list[Clock] = []
# A process that a job forks has none of its limits.
os.register_at_fork(after_in_child=_clocks.clear)


@contextmanager
def known(clock: Clock) -> Iterator[None]:
    """Have a clock stopped while something is imported in the block."""
    _clocks.append(clock)
    try:
        yield
    finally:
        with suppress(ValueError):  # a process that the job has forked
            _clocks.remove(clock)


@contextmanager
def paused() -> Iterator[None]:
    """Stop all clocks for the block; inside of another such block, do nothing."""
    clocks = list(_clocks)
    _clocks.clear()
    for clock in clocks:
        clock.stop()
    try:
        yield
    finally:
        _clocks[:] = clocks
        for clock in clocks:
            clock.go_on()
