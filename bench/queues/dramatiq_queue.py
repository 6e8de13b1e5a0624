"""Dramatiq with Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.queues.redis_keys import count_keys
from bench.queues.system import QueueSystem, program

if TYPE_CHECKING:
    from collections.abc import Sequence


class DramatiqQueue(QueueSystem):
    """`dramatiq -p 2`, each process with 8 threads, its default."""

    title = "Dramatiq"
    imports = "dramatiq"
    distributions = ("dramatiq", "redis")
    lives_in = "redis"
    app = "bench.queues.apps.dramatiq_app"
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "drain": ("-t 8",),
        "ten": ("-t 8",),
        "submit": ("send",),
        "latency": ("get_result(block)",),
        "cpu": ("-t 8",),
    }

    def open(self) -> None:
        import redis

        self._redis = redis.Redis.from_url(self.address)
        self._app = self.load_app()

    def enqueue(self, task: str, numbers: range) -> Sequence[Any]:
        send = getattr(self._app, task).send
        return [send(number) for number in numbers]

    def workers(self) -> list[list[str]]:
        return [[program("dramatiq"), self.app, "-p", str(self.processes), "--skip-logging"]]

    def stored(self, handles: Sequence[Any]) -> int:
        return count_keys(self._redis, [self._app.results.build_message_key(message) for message in handles])

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [message.get_result() for message in handles]

    def call(self, number: int) -> Any:
        return self._app.noop.send(number).get_result(block=True, timeout=30_000)
