"""The queue that a command runs its jobs on: opened late, and ended at once when the command is to stop."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from taskq.cli.signals import hangups_blocked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.config import Settings
    from taskq.queue import TaskQueue

__all__ = ["MOMENT", "opened"]

#: Seconds that running jobs get to end by themselves when the command is told to stop.
MOMENT = 0.5


@contextlib.contextmanager
def opened(settings: Settings, processes: int | None, url: str | None = None) -> Iterator[TaskQueue]:
    """Open the queue for the block; leaving it by an error does not wait for what runs.

    Ctrl-C raises KeyboardInterrupt in local jobs, so that they tidy up, and kills those that do not end soon.

    `url`: another than the settings have.

    Raises:
        ConfigError: the URL or a setting is wrong.
    """
    from taskq.queue import TaskQueue  # noqa: PLC0415 - not before the command line is known to be right

    with hangups_blocked():  # inherited by the helpers of multiprocessing, which must outlive a hangup to tidy up
        queue = TaskQueue(settings.url if url is None else url, processes=processes, start_method=settings.start_method)
    try:
        yield queue
    except KeyboardInterrupt as interrupt:
        if "start_methods" in queue.capabilities:  # in a store, jobs outlast this program
            queue.__exit__(type(interrupt), interrupt, interrupt.__traceback__)
        else:
            queue.shutdown(cancel_futures=True, grace=MOMENT)
        raise
    except BaseException:
        queue.shutdown(cancel_futures=True, grace=MOMENT)
        raise
    queue.shutdown()
