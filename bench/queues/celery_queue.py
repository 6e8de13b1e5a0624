"""Celery with Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.queues.redis_keys import count_keys
from bench.queues.system import QueueSystem, program

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Jobs of one group.
BATCH = 1_000


class CeleryQueue(QueueSystem):
    """`celery worker -P prefork -c 2`, its default pool."""

    title = "Celery"
    imports = "celery"
    distributions = ("celery", "kombu", "redis")
    lives_in = "redis"
    app = "bench.queues.apps.celery_app"
    share = 0.3
    takes_many = False  # a group is slower than single calls
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "drain": ("prefork",),
        "ten": ("prefork",),
        "submit": ("delay",),
        "bulk": ("group",),
        "latency": ("get()",),
        "cpu": ("prefork",),
    }

    def open(self) -> None:
        import redis

        self._redis = redis.Redis.from_url(self.address)
        self._app = self.load_app()

    def enqueue(self, task: str, numbers: range) -> Sequence[Any]:
        delay = getattr(self._app, task).delay
        return [delay(number) for number in numbers]

    def enqueue_many(self, task: str, numbers: range) -> Sequence[Any]:
        import celery

        signature = getattr(self._app, task).s
        handles: list[Any] = []
        for start in range(0, len(numbers), BATCH):
            handles += celery.group(map(signature, numbers[start : start + BATCH])).apply_async().results
        return handles

    def workers(self) -> list[list[str]]:
        command = [program("celery"), "-q", "--skip-checks", "-A", self.app, "worker", "-P", "prefork"]
        quiet = ["--loglevel=error", "--without-mingle", "--without-gossip"]
        return [[*command, "-c", str(self.processes), *quiet]]

    def stored(self, handles: Sequence[Any]) -> int:
        return count_keys(self._redis, [f"celery-task-meta-{handle.id}" for handle in handles])

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.result for handle in handles]  # get() would subscribe to each handle held

    def call(self, number: int) -> Any:
        return self._app.noop.delay(number).get(timeout=30)
