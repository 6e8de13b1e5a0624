"""What the adapters of pools fill in. Imports next to nothing, as bench/system.py says."""

from __future__ import annotations

import os
import time
from abc import abstractmethod

from bench.system import System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bench.system import Figures


class PoolSystem(System):
    """Adapt one library: open a pool of processes, run items through it in one of several ways, close it."""

    @abstractmethod
    def run(self, way: str, function: Callable[..., object], items: Iterable[object]) -> Iterable[object]:
        """Run `function` over the items; the results may come in any order."""

    @abstractmethod
    def submit(self, function: Callable[..., object], *args: object) -> Callable[[float | None], object]:
        """Start one call; what is returned waits for its result (timeout in seconds) and raises its error."""

    def submit_all(self, function: Callable[..., object], items: Iterable[object]) -> Iterator[object]:
        """Submit every item on its own, then yield the results in input order."""
        waits = [self.submit(function, item) for item in items]
        return (wait(None) for wait in waits)

    def measure(self, way: str, test: str, scale: str) -> Figures:
        """Run one test; the two about start-up import nothing that the library does not."""
        if test == "import":
            return self._time_import()
        if test == "start":
            return self._time_first_result()
        from bench.pools import scenarios

        self.open()
        figures = scenarios.run(self, way, test, scale)
        self.usable = not test.startswith("kill")
        return figures

    def _time_import(self) -> dict[str, float]:
        before = time.perf_counter()
        __import__(self.imports)
        return {"import_ms": (time.perf_counter() - before) * 1e3}

    def _time_first_result(self) -> dict[str, float]:
        """Open the pool and run one call; return the milliseconds since the driver started this process."""
        from bench import work

        self.open()
        result = self.submit(work.increment, 1)(30.0)
        now = time.monotonic()
        if result != 2:
            raise RuntimeError(f"the first result is {result!r}, not 2")
        self.usable = True
        return {"first_result_ms": (now - float(os.environ["BENCH_STARTED"])) * 1e3}


def chunk_size(way: str) -> int | None:
    """Return the chunk size that a way like `imap_unordered c=64` sets by hand, else None."""
    _, _, size = way.partition(" c=")
    return int(size) if size else None
