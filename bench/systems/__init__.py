"""The systems under test: one small file each, and here the interface they fill and the list of them.

An adapter imports its library in `open`: the driver reads `ways` even where the library is missing, and the
test `start` counts the import. For that test this module and the adapters import next to nothing themselves.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod

TYPE_CHECKING = False  # not `from typing import ...`: that import would be counted in the test `start`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import ClassVar

#: Key on the command line -> module and class. The order is that of the rounds.
SYSTEMS = {
    "taskq": ("bench.systems.taskq_local", "TaskqForkserver"),
    "taskq-fork": ("bench.systems.taskq_local", "TaskqFork"),
    "pool": ("bench.systems.pool", "Pool"),
    "executor": ("bench.systems.process_pool_executor", "Executor"),
    "joblib": ("bench.systems.joblib_parallel", "Joblib"),
    "loky": ("bench.systems.loky_executor", "Loky"),
    "mpire": ("bench.systems.mpire_pool", "Mpire"),
    "pebble": ("bench.systems.pebble_pool", "Pebble"),
}


class System(ABC):
    """Adapt one library: open a pool of processes, run items through it in one of several ways, close it."""

    #: Name in tables and plots.
    title: ClassVar[str]
    #: Module whose import is timed by the test `import`; its absence leaves the system out.
    imports: ClassVar[str]
    #: Distribution whose version is recorded; None for the standard library.
    distribution: ClassVar[str | None]
    #: Test -> the ways in which this system runs it. A test that is not named here is not run.
    ways: ClassVar[dict[str, tuple[str, ...]]]

    def __init__(self, processes: int) -> None:
        """Remember the number of processes; nothing starts before `open`."""
        self.processes = processes

    @abstractmethod
    def open(self) -> None:
        """Import the library and start the pool, by its defaults but for the number of processes."""

    @abstractmethod
    def run(self, way: str, function: Callable[..., object], items: Iterable[object]) -> Iterable[object]:
        """Run `function` over the items; the results may come in any order."""

    @abstractmethod
    def submit(self, function: Callable[..., object], *args: object) -> Callable[[float | None], object]:
        """Start one call; what is returned waits for its result (timeout in seconds) and raises its error."""

    @abstractmethod
    def close(self) -> None:
        """End the pool."""

    def submit_all(self, function: Callable[..., object], items: Iterable[object]) -> Iterator[object]:
        """Submit every item on its own, then yield the results in input order."""
        waits = [self.submit(function, item) for item in items]
        return (wait(None) for wait in waits)


def load(key: str) -> type[System]:
    """Return the adapter with this key of `SYSTEMS`."""
    module, name = SYSTEMS[key]
    __import__(module)
    adapter: type[System] = getattr(sys.modules[module], name)
    return adapter


def chunk_size(way: str) -> int | None:
    """Return the chunk size that a way like `imap_unordered c=64` sets by hand, else None."""
    _, _, size = way.partition(" c=")
    return int(size) if size else None
