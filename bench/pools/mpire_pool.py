"""mpire.WorkerPool."""

from __future__ import annotations

from bench.pools.system import PoolSystem, chunk_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import ClassVar

    from mpire import WorkerPool


class Mpire(PoolSystem):
    """`WorkerPool(n_jobs=processes, keep_alive=True)`: without it each call would start its own processes."""

    title = "mpire"
    imports = "mpire"
    distributions = ("mpire",)
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "noop-int": ("map_unordered auto", "imap_unordered c=1024"),
        "noop-dict": ("map_unordered auto", "imap_unordered c=1024"),
        "submit": ("apply_async",),
        "latency": ("apply_async",),
        "cpu": ("map_unordered auto", "apply_async"),
        "mixed": ("map_unordered auto",),
        "bytes": ("imap_unordered c=1", "apply_async"),
        "lazy": ("imap_unordered c=64",),
        "start": ("apply_async",),
        "import": ("import",),
        "kill-running": ("apply_async",),
        "kill-idle": ("apply_async",),
    }
    pool: WorkerPool

    def open(self) -> None:
        """Start the pool."""
        from mpire import WorkerPool

        self.pool = WorkerPool(n_jobs=self.processes, keep_alive=True)

    def run(self, way: str, function: Callable[..., object], items: Iterable[object]) -> Iterable[object]:
        """Run by `map_unordered`, `imap_unordered` or `apply_async`."""
        if way == "apply_async":
            return self.submit_all(function, items)
        rows = ((item,) for item in items)  # it would spread a bare dict or list over the function's parameters
        results: Iterable[object]
        if way.startswith("map"):
            results = self.pool.map_unordered(function, list(rows))
        else:
            results = self.pool.imap_unordered(function, rows, chunk_size=chunk_size(way))
        return results

    def submit(self, function: Callable[..., object], *args: object) -> Callable[[float | None], object]:
        """Submit by `apply_async`."""
        wait: Callable[[float | None], object] = self.pool.apply_async(function, args).get
        return wait

    def close(self) -> None:
        """Terminate."""
        self.pool.terminate()
