"""Kill the child processes of this one at random, while jobs run, and count the kills."""

from __future__ import annotations

import random
import signal
import threading
from typing import TYPE_CHECKING, Self

from tests.processes import Seen, descendants, kill
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType


def children(besides: Iterable[Seen] = ()) -> list[Seen]:
    """Return the living processes below this one, the long-lived helpers of multiprocessing left out."""
    known = {seen.pid for seen in besides}
    return [seen for seen in descendants() if seen.state != "Z" and seen.pid not in known]


def wait_for_children(count: int, besides: Iterable[Seen] = ()) -> list[Seen]:
    """Return the processes of a pool once there are so many, neither fewer nor more, besides those that are known."""

    def look() -> list[Seen]:
        found = children(besides)
        return found if len(found) == count else []

    return eventually(look, f"{count} child processes to be there")


class Killer(threading.Thread):
    """Kill so many children, one every few milliseconds, each chosen by chance; `with` starts it and waits for it."""

    def __init__(self, kills: int, pause: tuple[float, float] = (0.001, 0.03), number: int = signal.SIGKILL) -> None:
        super().__init__(name="killer")
        self._random = random.Random(random.random())  # pytest-randomly seeds the second: a run can be repeated
        self._wanted = kills
        self._pause = pause
        self._number = number
        self._halt = threading.Event()
        self.kills = 0

    def run(self) -> None:
        """Kill until there were enough kills."""
        while self.kills < self._wanted and not self._halt.wait(self._random.uniform(*self._pause)):
            victims = children()
            if victims and kill(self._random.choice(victims).pid, self._number):
                self.kills += 1

    def stop(self) -> None:
        """Kill no more."""
        self._halt.set()

    @property
    def busy(self) -> bool:
        """Return whether there are kills to come."""
        return self.kills < self._wanted and not self._halt.is_set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.stop()
        self.join(PATIENCE)
        self.stop()
        self.join()
