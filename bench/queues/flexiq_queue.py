"""FlexiQ on a SQLite file: WAL, commits not synchronised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.queues.system import QueueSystem, program

if TYPE_CHECKING:
    from collections.abc import Sequence


class FlexiqQueue(QueueSystem):
    """`flexiq worker` with two threads, its default pool; polls each 50 ms unless told otherwise."""

    title = "FlexiQ"
    imports = "flexiq"
    distributions = ("flexiq",)
    lives_in = "file"
    app = "bench.queues.apps.flexiq_app"
    share = 0.03
    takes_many = True
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "submit-normal": ("delay",),
        "four-normal": ("delay",),
        "bulk-normal": ("enqueue_many",),
        "drain-normal": ("polls each 50 ms", "polls each 1 ms, batches of 256"),
        "latency": ("polls each 50 ms", "polls each 1 ms"),
    }

    def open(self) -> None:
        self._app = self.load_app()

    def enqueue(self, task: str, numbers: range) -> Sequence[Any]:
        delay = getattr(self._app, task).delay
        return [delay(number) for number in numbers]

    def enqueue_many(self, task: str, numbers: range) -> Sequence[Any]:
        handles: Sequence[Any] = self._app.queue.enqueue_many(task, [(number,) for number in numbers])
        return handles

    def workers(self) -> list[list[str]]:
        return [[program("flexiq"), "worker", "--app", f"{self.app}:queue"]]

    def stored(self, handles: Sequence[Any]) -> int:
        del handles
        return int(self._app.queue.stats().get("completed", 0))

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.result(timeout=10) for handle in handles]

    def call(self, number: int) -> Any:
        from bench.queues.system import way

        often = {"poll_interval": 0.001, "max_poll_interval": 0.001} if "1 ms" in way() else {}
        return self._app.noop.delay(number).result(timeout=30, **often)
