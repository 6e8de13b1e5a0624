"""What the adapters of queues fill in: a client in the measuring process, and the commands of its workers."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.system import System

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from bench.system import Figures

#: Enqueues that asynchronous libraries without a call for many have under way at once.
IN_FLIGHT = 64


class QueueSystem(System):
    """Adapt one library. `address` is set before `open`; `task` is the name of a job of bench/queues/jobs.py."""

    #: Where its jobs live: "redis" or "file".
    lives_in: ClassVar[str]
    #: Module with the application, as a user writes it; "" where it needs none.
    app: ClassVar[str] = ""
    #: Share of the jobs that this system works off, so that a slow one does not take minutes.
    share: ClassVar[float] = 1.0
    #: Whether it takes many jobs in one call (or many calls at once).
    takes_many: ClassVar[bool] = False
    #: Whether it is known to lose a result or to run a job twice, by a defect that its adapter names.
    flawed: ClassVar[bool] = False
    #: Redis URL, or path of a file.
    address: str

    def measure(self, way: str, test: str, scale: str) -> Figures:
        """Run one test. What the workers leave is ended by the driver."""
        from bench.queues import scenarios

        return scenarios.run(self, way, test, scale)

    def load_app(self) -> Any:
        """Import the application, which reads the environment."""
        return importlib.import_module(self.app)

    @abstractmethod
    def enqueue(self, task: str, numbers: range) -> Sequence[Any]:
        """Submit a job for each number, with a call for each; return handles."""

    def enqueue_many(self, task: str, numbers: range) -> Sequence[Any]:
        """Submit a job for each number by what the library has for many."""
        return self.enqueue(task, numbers)

    @abstractmethod
    def workers(self) -> list[list[str]]:
        """Return the commands that start workers with `processes` processes in all."""

    @abstractmethod
    def stored(self, handles: Sequence[Any]) -> int:
        """Return how many of these jobs have their result stored."""

    @abstractmethod
    def results(self, handles: Sequence[Any]) -> list[Any]:
        """Return the stored results of ended jobs."""

    def call(self, number: int) -> Any:
        """Submit one no-op job and wait for its result as the library's documentation says."""
        raise NotImplementedError(f"{self.title} is not measured for latency")

    def map(self, function: Callable[[int], int], items: Iterable[int]) -> Iterable[int]:
        """Run a function over items; the results may come in any order."""
        raise NotImplementedError(f"{self.title} has no map")

    def close(self) -> None:
        """Do nothing: a measurement ends with its process."""


class AsyncQueueSystem(QueueSystem):
    """Adapt a library whose calls are coroutines."""

    takes_many = True

    def open(self) -> None:
        """Start the loop that all calls run on, and what the library needs."""
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self.do(self.connect())

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end."""
        return self._loop.run_until_complete(coroutine)

    @abstractmethod
    async def connect(self) -> None:
        """Import the application and connect."""

    @abstractmethod
    def start(self, task: str, number: int) -> Awaitable[Any]:
        """Submit one job."""

    @abstractmethod
    async def finish(self, handle: Any) -> Any:
        """Wait for the result of a job."""

    def enqueue(self, task: str, numbers: range) -> Sequence[Any]:
        async def one_by_one() -> list[Any]:
            return [await self.start(task, number) for number in numbers]

        handles: list[Any] = self.do(one_by_one())
        return handles

    def enqueue_many(self, task: str, numbers: range) -> Sequence[Any]:
        """Keep some calls under way at once."""
        handles: dict[int, Any] = {}
        waiting = iter(numbers)

        async def lane() -> None:
            for number in waiting:
                handles[number] = await self.start(task, number)

        async def all_lanes() -> None:
            await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))

        self.do(all_lanes())
        return [handles[number] for number in numbers]

    def results(self, handles: Sequence[Any]) -> list[Any]:
        async def each() -> list[Any]:
            return [await self.finish(handle) for handle in handles]

        found: list[Any] = self.do(each())
        return found

    def call(self, number: int) -> Any:
        async def there_and_back() -> Any:
            return await self.finish(await self.start("noop", number))

        return self.do(there_and_back())


def program(name: str) -> str:
    """Return the path of a command of this environment."""
    return str(Path(sys.executable).parent / name)


def way() -> str:
    """Return the way that is measured; applications and workers ask by the environment."""
    return os.environ.get("BENCH_WAY", "")


def address() -> str:
    """Return where the jobs live; applications and workers ask by the environment."""
    return os.environ["BENCH_ADDRESS"]
