"""Huey on Redis and on a SQLite file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.queues.system import QueueSystem, program

if TYPE_CHECKING:
    from collections.abc import Sequence


class HueyOnRedis(QueueSystem):
    """`huey_consumer -k process -w 2` without its scheduler and its health check."""

    title = "Huey"
    imports = "huey"
    distributions: ClassVar[tuple[str, ...]] = ("huey", "redis")
    lives_in = "redis"
    app = "bench.queues.apps.huey_app"
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "drain": ("-k process",),
        "ten": ("-k process",),
        "submit": ("call",),
        "latency": ("get(blocking)", "get(blocking), notify_result"),
        "cpu": ("-k process",),
    }

    def open(self) -> None:
        self._app = self.load_app()

    def enqueue(self, task: str, numbers: range) -> Sequence[Any]:
        call = getattr(self._app, task)
        return [call(number) for number in numbers]

    def workers(self) -> list[list[str]]:
        command = [program("huey_consumer"), f"{self.app}.huey", "-k", "process", "-w", str(self.processes)]
        return [[*command, "-n", "-C", "-q"]]

    def stored(self, handles: Sequence[Any]) -> int:
        del handles
        return int(self._app.huey.result_count())

    def results(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.get(preserve=True) for handle in handles]

    def call(self, number: int) -> Any:
        return self._app.noop(number).get(blocking=True, timeout=30)


class HueyOnFile(HueyOnRedis):
    """SqliteHuey; its consumer polls, here each 1 to 10 ms instead of 100 ms and more."""

    distributions = ("huey",)
    lives_in = "file"
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "submit-full": ("default",),
        "submit-normal": ("fsync=False",),
        "four-full": ("default",),
        "four-normal": ("fsync=False",),
        "drain-full": ("default",),
        "drain-normal": ("fsync=False",),
        "latency": ("polls each 1-10 ms",),
    }

    def workers(self) -> list[list[str]]:
        return [[*command, "-d", "0.001", "-m", "0.01"] for command in super().workers()]
