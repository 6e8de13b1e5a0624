"""The thread that reads a map's input: no consumer sleeps over what was read."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from taskq.executors.input_reader import InputReader
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Map:
    """What the reader hands items to: it keeps them back, as the map of a store does to fill a chunk."""

    def __init__(self) -> None:
        self.plan: Any = SimpleNamespace(chunksize=None)
        self.handing_on = threading.Lock()
        self.is_over = False
        self.keeps_back = False
        self.reader: InputReader | None = None
        self.sees: list[int] = []
        self.looks_again = threading.Event()
        self.has_ended = threading.Event()

    def wanted(self) -> int:
        """Want many items."""
        return 100

    def hand_on(self, items: Sequence[Any], *, soon: bool) -> None:
        """Keep them back; before that, a consumer begins to wait."""
        assert self.reader is not None
        self.reader.await_item()
        self.sees.append(self.reader.stock())
        self.keeps_back = True

    def send_on(self) -> None:
        """Send what was kept back."""
        self.keeps_back = False

    def end_input(self, error: BaseException | None = None) -> None:
        """Take note of the end."""
        assert error is None
        self.has_ended.set()

    def fail(self, error: BaseException) -> None:
        """Fail the test."""
        raise error

    def look_again(self) -> None:
        """Wake the consumer."""
        self.looks_again.set()


def test_a_consumer_that_looks_while_items_are_handed_on_is_woken() -> None:
    """Who saw nothing between the stock and the map's own store of items is told to look again."""
    stalled, made = threading.Event(), Map()

    def items() -> Iterator[int]:
        yield 1
        stalled.wait(PATIENCE)

    made.reader = reader = InputReader(made)
    reader.start(items())
    try:
        assert made.looks_again.wait(PATIENCE)
        assert made.sees[0] == 0
        assert reader.stock() == 1
    finally:
        stalled.set()
        assert made.has_ended.wait(PATIENCE)
        reader.finish()
