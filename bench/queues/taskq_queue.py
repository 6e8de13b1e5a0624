"""taskq on Redis and on a SQLite file: one `taskq worker`, chunk sizes left to the library."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from bench.queues import jobs
from bench.queues.system import QueueSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from taskq import TaskQueue


class TaskqOnRedis(QueueSystem):
    """`TaskQueue("redis://...")`."""

    title = "taskq"
    imports = "taskq"
    distributions: ClassVar[tuple[str, ...]] = ("taskq", "rq", "redis", "hiredis")
    lives_in = "redis"
    takes_many = True
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "drain": ("taskq worker",),
        "ten": ("taskq worker",),
        "submit": ("submit",),
        "bulk": ("submit_many",),
        "latency": ("result()",),
        "map": ("imap_unordered",),
        "cpu": ("taskq worker",),
    }
    queue: TaskQueue

    @property
    def url(self) -> str:
        """Where the jobs live."""
        return self.address

    def open(self) -> None:
        from taskq import TaskQueue
        from taskq.connect import open_store

        self.queue = TaskQueue(self.url)
        self._store = open_store(self.url)

    def enqueue(self, task: str, numbers: range) -> Sequence[Any]:
        function, submit = getattr(jobs, task), self.queue.submit
        return [submit(function, number) for number in numbers]

    def enqueue_many(self, task: str, numbers: range) -> Sequence[Any]:
        return self.queue.submit_many(getattr(jobs, task), ((number,) for number in numbers))

    def workers(self) -> list[list[str]]:
        command = [sys.executable, "-m", "taskq", "worker", "--url", self.url, "--processes", str(self.processes)]
        return [[*command, "--import", "bench.queues.jobs", "--import", "bench.work"]]

    def stored(self, handles: Sequence[Any]) -> int:
        del handles
        from taskq.states import State

        return sum(queue.counts.get(State.SUCCEEDED, 0) for queue in self._store.queues())

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.result(10) for handle in handles]

    def call(self, number: int) -> Any:
        return self.queue.submit(jobs.noop, number).result(30)

    def map(self, function: Callable[[int], int], items: Iterable[int]) -> Iterable[int]:
        return self.queue.imap_unordered(function, items)


class TaskqOnFile(TaskqOnRedis):
    """`TaskQueue("sqlite:///...")`."""

    distributions = ("taskq",)
    lives_in = "file"
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "submit-full": ("submit",),
        "submit-normal": ("submit",),
        "four-full": ("submit",),
        "four-normal": ("submit",),
        "bulk-full": ("submit_many",),
        "bulk-normal": ("submit_many",),
        "drain-full": ("taskq worker",),
        "drain-normal": ("taskq worker",),
        "latency": ("result()",),
        "map": ("imap_unordered",),
        "waiting": ("claim",),
    }

    @property
    def url(self) -> str:
        return f"sqlite:///{self.address}?durability={os.environ['BENCH_DURABILITY']}"


#: A key as `openssl rand -hex 32` makes one.
SIGNING_KEY = "0123456789abcdef" * 4

#: The tests that tell what a signature costs.
SIGNED = ("submit", "bulk", "drain", "latency")


def _signed(ways: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {test: ways[test] for test in ways if test.partition("-")[0] in SIGNED}


class SignedOnRedis(TaskqOnRedis):
    """The same with TASKQ_SIGNING_KEYS in the environment of client and worker."""

    title = "taskq (signed)"
    ways = _signed(TaskqOnRedis.ways)

    def open(self) -> None:
        """Set the key, which the workers inherit."""
        os.environ["TASKQ_SIGNING_KEYS"] = SIGNING_KEY
        super().open()


class SignedOnFile(TaskqOnFile):
    """The same in a queue file."""

    title = "taskq (signed)"
    ways = _signed(TaskqOnFile.ways)

    def open(self) -> None:
        """Set the key, which the workers inherit."""
        os.environ["TASKQ_SIGNING_KEYS"] = SIGNING_KEY
        super().open()
