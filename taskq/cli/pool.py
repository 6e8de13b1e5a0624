"""The queue that a command runs its jobs on: opened late, and ended at once when the command is to stop."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from taskq.cli.signals import hangups_blocked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.config import Settings
    from taskq.queue import TaskQueue

__all__ = ["end_at_once", "opened"]

#: Seconds that jobs in a store get to end by themselves when the command is told to stop.
MOMENT = 0.5


@contextlib.contextmanager
def opened(settings: Settings, processes: int | None, url: str | None = None) -> Iterator[TaskQueue]:
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
    store are asked to stop, and killed by their workers.
    """
    if "start_methods" in queue.capabilities:
        interrupt = KeyboardInterrupt()
        queue.__exit__(KeyboardInterrupt, interrupt, None)
    else:
        queue.shutdown(cancel_futures=True, grace=MOMENT)
