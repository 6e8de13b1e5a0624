"""Queues without workers and results: a loop in one process takes an item, runs the job, acknowledges.

This file is also that process: MODULE CLASS.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from bench.queues import jobs
from bench.queues.system import QueueSystem, address
from bench.system import load

if TYPE_CHECKING:
    from collections.abc import Sequence


class TakenQueue(QueueSystem):
    """Adapt a library that only keeps items. There is no result: the number itself stands for it."""

    lives_in = "file"

    @abstractmethod
    def put(self, number: int) -> None:
        """Keep an item."""

    @abstractmethod
    def take(self) -> tuple[Any, int]:
        """Wait for an item; return what acknowledges it, and its number."""

    @abstractmethod
    def acknowledge(self, token: Any) -> None:
        """Say that the item has been dealt with."""

    def enqueue(self, task: str, numbers: range) -> Sequence[int]:
        del task
        for number in numbers:
            self.put(number)
        return numbers

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "bench.queues.taken", type(self).__module__, type(self).__name__]]

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return list(handles)


def main() -> None:
    """Take, run, acknowledge, until the bench kills this process."""
    system = load(*sys.argv[1:])(1)
    # not `isinstance`: as a script this file is another module than the one that the adapter imports
    assert isinstance(system, QueueSystem)
    system.address = address()
    system.open()
    queue: Any = system
    while True:
        token, number = queue.take()
        jobs.noop(number)
        queue.acknowledge(token)


if __name__ == "__main__":
    main()
