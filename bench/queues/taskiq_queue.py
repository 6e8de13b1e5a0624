"""taskiq with Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.queues.redis_keys import count_keys
from bench.queues.system import AsyncQueueSystem, program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence


class TaskiqQueue(AsyncQueueSystem):
    """`taskiq worker --workers 2` on a ListQueueBroker."""

    title = "taskiq"
    imports = "taskiq_redis"
    distributions = ("taskiq", "taskiq-redis", "redis")
    lives_in = "redis"
    app = "bench.queues.apps.taskiq_app"
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "drain": ("ListQueueBroker",),
        "ten": ("ListQueueBroker",),
        "submit": ("kiq",),
        "bulk": ("64 at once",),
        "latency": ("wait_result()", "wait_result(), 1 ms"),
        "cpu": ("ListQueueBroker",),
    }

    async def connect(self) -> None:
        import redis

        self._redis = redis.Redis.from_url(self.address)
        self._app = self.load_app()
        await self._app.broker.startup()

    def start(self, task: str, number: int) -> Awaitable[Any]:
        job: Awaitable[Any] = getattr(self._app, task).kiq(number)
        return job

    async def finish(self, handle: Any) -> Any:
        from bench.queues.system import way

        often = {"check_interval": 0.001} if "1 ms" in way() else {}
        return (await handle.wait_result(timeout=30, **often)).return_value

    def workers(self) -> list[list[str]]:
        command = [program("taskiq"), "worker", f"{self.app}:broker", "--workers", str(self.processes)]
        return [[*command, "--log-level", "ERROR"]]

    def stored(self, handles: Sequence[Any]) -> int:
        return count_keys(self._redis, [handle.task_id for handle in handles])
