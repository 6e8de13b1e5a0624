"""pebble.ProcessPool."""

from __future__ import annotations

from bench.pools.system import PoolSystem, chunk_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import ClassVar

    from pebble import ProcessPool


class Pebble(PoolSystem):
    """`ProcessPool(max_workers=processes)`."""

    title = "pebble"
    imports = "pebble"
    distributions = ("pebble",)
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "noop-int": ("map c=64", "map c=1024"),
        "noop-dict": ("map c=1024",),
        "submit": ("schedule",),
        "latency": ("schedule",),
        "cpu": ("map c=64", "schedule"),
        "mixed": ("schedule",),
        "bytes": ("map c=1", "schedule"),
        "lazy": ("map c=64",),
        "start": ("schedule",),
        "import": ("import",),
        "kill-running": ("schedule",),
        "kill-idle": ("schedule",),
    }
    pool: ProcessPool

    def open(self) -> None:
        """Start the pool."""
        from pebble import ProcessPool

        self.pool = ProcessPool(max_workers=self.processes)

    def run(self, way: str, function: Callable[..., object], items: Iterable[object]) -> Iterable[object]:
        """Run by `map` or `schedule`."""
        if way == "schedule":
            return self.submit_all(function, items)
        results: Iterable[object] = self.pool.map(function, items, chunksize=chunk_size(way) or 1).result()
        return results

    def submit(self, function: Callable[..., object], *args: object) -> Callable[[float | None], object]:
        """Submit by `schedule`."""
        wait: Callable[[float | None], object] = self.pool.schedule(function, args=args).result
        return wait

    def close(self) -> None:
        """Stop and join."""
        self.pool.stop()
        self.pool.join()
