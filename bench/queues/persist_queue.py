"""persist-queue's SQLite queue with acknowledgement: WAL, each commit synchronised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.queues.taken import TakenQueue

if TYPE_CHECKING:
    from collections.abc import Sequence


class PersistQueue(TakenQueue):
    """`SQLiteAckQueue`."""

    title = "persist-queue"
    imports = "persistqueue"
    distributions = ("persist-queue",)
    share = 0.3
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "submit-full": ("SQLiteAckQueue",),
        "four-full": ("SQLiteAckQueue",),
        "drain-full": ("a loop in one process",),
    }

    def open(self) -> None:
        from persistqueue import SQLiteAckQueue

        self._queue = SQLiteAckQueue(self.address)

    def put(self, number: int) -> None:
        self._queue.put(number)

    def take(self) -> tuple[Any, int]:
        number: int = self._queue.get()
        return number, number

    def acknowledge(self, token: Any) -> None:
        self._queue.ack(token)

    def stored(self, handles: Sequence[Any]) -> int:
        del handles
        return int(self._queue.acked_count())
