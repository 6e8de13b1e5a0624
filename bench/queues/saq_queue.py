"""SAQ with Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.queues.system import AsyncQueueSystem, program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence


class SaqQueue(AsyncQueueSystem):
    """`saq --workers 2`, 10 jobs at once in each, its default."""

    title = "SAQ"
    imports = "saq"
    distributions = ("saq", "redis")
    environment = ".venv-saq"  # it wants redis < 8, taskiq-redis wants >= 8
    lives_in = "redis"
    app = "bench.queues.apps.saq_app"
    # a worker that starts takes a job which another has just moved, and not marked yet, for stuck: it aborts it, or
    # runs it again
    flawed = True
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "drain": ("2 workers",),
        "ten": ("10 workers",),
        "submit": ("enqueue",),
        "bulk": ("64 at once",),
        "latency": ("refresh()",),
        "cpu": ("2 workers",),
    }

    async def connect(self) -> None:
        self._queue = self.load_app().queue
        await self._queue.connect()

    def start(self, task: str, number: int) -> Awaitable[Any]:
        job: Awaitable[Any] = self._queue.enqueue(task, number=number)
        return job

    async def finish(self, handle: Any) -> Any:
        await handle.refresh(30)
        return handle.result

    def workers(self) -> list[list[str]]:
        return [[program("saq"), f"{self.app}.settings", "--workers", str(self.processes), "--quiet"]]

    def stored(self, handles: Sequence[Any]) -> int:
        return len(handles) - int(self.do(self._queue.count("incomplete")))

    def results(self, handles: Sequence[Any]) -> list[Any]:
        async def each() -> list[Any]:
            for handle in handles:
                await handle.refresh()
            return [handle.result for handle in handles]

        found: list[Any] = self.do(each())
        return found
