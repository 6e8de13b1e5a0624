"""litequeue: WAL, commits not synchronised (synchronous=NORMAL)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from bench.queues.taken import TakenQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds between two looks into an empty queue: it has no waiting.
LOOK_S = 0.001


class Litequeue(TakenQueue):
    """`LiteQueue`."""

    title = "litequeue"
    imports = "litequeue"
    distributions = ("litequeue",)
    share = 0.3
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "submit-normal": ("put",),
        "four-normal": ("put",),
        "drain-normal": ("a loop in one process",),
    }

    def open(self) -> None:
        from litequeue import LiteQueue

        self._queue = LiteQueue(self.address)

    def put(self, number: int) -> None:
        self._queue.put(str(number))

    def take(self) -> tuple[Any, int]:
        while (message := self._queue.pop()) is None:
            time.sleep(LOOK_S)
        return message.message_id, int(message.data)

    def acknowledge(self, token: Any) -> None:
        self._queue.done(token)

    def stored(self, handles: Sequence[Any]) -> int:
        return len(handles) - int(self._queue.qsize())
