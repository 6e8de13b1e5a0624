"""Ctrl-C, SIGTERM and SIGHUP as one exception: after the first the command tidies up, a later one ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Interrupted", "hangups_blocked", "interruptible"]

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds in which a second signal is taken for the echo of the first: timeout(1) and process managers send
#: one to the process and one to its group.
ECHO = 0.5

#: What a shell adds to a signal's number to make an exit code of it.
SIGNAL_BASE = 128


class Interrupted(KeyboardInterrupt):
    """Say which signal asked the command to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = SIGNAL_BASE + signum


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted in the block at the first signal; end the process at the next. Main thread only."""
    first: list[float] = []

    def stop(signum: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not first:
            first.append(now)
            raise Interrupted(signum)
        if now - first[0] > ECHO:
            os._exit(SIGNAL_BASE + signum)

    # One that is ignored stays so: that is what nohup, and a shell's & in a script, ask for.
    taken = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def hangups_blocked() -> Iterator[None]:
    """Put SIGHUP off until after the block; processes and threads begun in it never get it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
