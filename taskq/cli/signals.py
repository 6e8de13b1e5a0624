"""Signals that end a command: the first as an exception, so that it tidies up; a later one at once.

`opened_queue` is the queue that a command runs its jobs on, which a signal ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from taskq.locks import hangups_blocked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from taskq.config import Settings
    from taskq.queue import TaskQueue

__all__ = ["Interrupted", "end_at_once", "interruptible", "opened_queue"]

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds in which a second signal is taken for the echo of the first: timeout(1) and process managers send
#: one to the process and one to its group.
ECHO = 0.5

#: What a shell adds to a signal's number to make an exit code of it.
SIGNAL_BASE = 128


class Interrupted(KeyboardInterrupt):
    """The command was asked to stop, by this signal."""

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


#: Seconds that jobs in a store get to end by themselves when the command is told to stop.
MOMENT = 0.5


@contextlib.contextmanager
def opened_queue(settings: Settings, processes: int | None, url: str | None = None) -> Iterator[TaskQueue]:
    """Open the queue for the block; leaving it by an error does not wait for what runs: `end_at_once`.

    `url`: another than the settings have.

    Raises:
        ConfigError: the URL or a setting is wrong.
    """
    from taskq.queue import TaskQueue  # noqa: PLC0415 - not before the command line is known to be right

    with hangups_blocked():  # inherited by the helpers of multiprocessing, which must outlive a hangup to tidy up
        queue = TaskQueue(settings.url if url is None else url, processes=processes, start_method=settings.start_method)
    try:
        yield queue
    except BaseException:
        end_at_once(queue)
        raise
    queue.shutdown()


def end_at_once(queue: TaskQueue) -> None:
    """Drop what waits, and end what runs.

    In local jobs KeyboardInterrupt is raised, so that they tidy up; those that do not end soon are killed. Jobs in a
    store are asked to stop, and killed by their workers; items of a map are interrupted by these in the same way first.
    """
    if "start_methods" in queue.capabilities:
        interrupt = KeyboardInterrupt()
        queue.__exit__(KeyboardInterrupt, interrupt, None)
    else:
        queue.shutdown(cancel_futures=True, grace=MOMENT)
