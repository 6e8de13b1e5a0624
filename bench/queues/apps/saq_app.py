"""SAQ: an asynchronous queue in Redis."""

from __future__ import annotations

from typing import Any

from saq import Queue

from bench.queues import jobs
from bench.queues.system import address

queue = Queue.from_url(address(), name="bench")


async def noop(_context: Any, *, number: int) -> int:
    """Do nothing."""
    return jobs.noop(number)


async def burn(_context: Any, *, number: int) -> int:
    """Compute for 10 ms."""
    return jobs.burn(number)


settings = {"queue": queue, "functions": [noop, burn]}
