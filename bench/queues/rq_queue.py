"""RQ with its own workers: the one that forks for each job, and the one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.queues import jobs
from bench.queues.redis_keys import count_keys
from bench.queues.system import QueueSystem, program

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Jobs of one enqueue_many.
BATCH = 1_000


class Rq(QueueSystem):
    """`rq worker-pool -n 2`: a fork for each job, its default."""

    title = "rq worker-pool"
    imports = "rq"
    distributions = ("rq", "redis", "hiredis")
    lives_in = "redis"
    takes_many = True
    share = 0.06
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "drain": ("fork per job",),
        "ten": ("fork per job",),
        "submit": ("enqueue",),
        "bulk": ("enqueue_many",),
        "latency": ("latest_result()",),
        "cpu": ("fork per job",),
    }
    worker_class: ClassVar[tuple[str, ...]] = ()

    def open(self) -> None:
        import redis
        from rq import Queue

        self._redis = redis.Redis.from_url(self.address)
        self._queue = Queue("bench", connection=self._redis)

    def enqueue(self, task: str, numbers: range) -> Sequence[Any]:
        function = getattr(jobs, task)
        return [self._queue.enqueue(function, number) for number in numbers]

    def enqueue_many(self, task: str, numbers: range) -> Sequence[Any]:
        function = getattr(jobs, task)
        rows = [self._queue.prepare_data(function, (number,)) for number in numbers]
        return [
            job for start in range(0, len(rows), BATCH) for job in self._queue.enqueue_many(rows[start : start + BATCH])
        ]

    def workers(self) -> list[list[str]]:
        command = [program("rq"), "worker-pool", "-q", "-n", str(self.processes), "-u", self.address]
        return [[*command, *self.worker_class, "bench"]]

    def stored(self, handles: Sequence[Any]) -> int:
        return count_keys(self._redis, [f"rq:results:{job.id}" for job in handles])

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [job.latest_result().return_value for job in handles]

    def call(self, number: int) -> Any:
        result: Any = self._queue.enqueue(jobs.noop, number).latest_result(timeout=30)
        return result.return_value


class RqSimple(Rq):
    """`rq worker-pool -n 2 -w rq.worker.SimpleWorker`: jobs run in the worker itself."""

    title = "rq SimpleWorker"
    share = 0.2
    worker_class = ("-w", "rq.worker.SimpleWorker")
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "drain": ("no fork",),
        "ten": ("no fork",),
        "latency": ("latest_result()",),
        "cpu": ("no fork",),
    }
