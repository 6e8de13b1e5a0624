"""multiprocessing.Pool of the standard library, with chunk sizes by default and set by hand."""

from __future__ import annotations

from bench.pools.system import PoolSystem, chunk_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import multiprocessing.pool
    from collections.abc import Callable, Iterable
    from typing import ClassVar

NO_OP = (
    "map auto",
    "map c=1024",
    "imap_unordered c=1",
    "imap_unordered c=64",
    "imap_unordered c=256",
    "imap_unordered c=1024",
    "imap_unordered c=4096",
)


class Pool(PoolSystem):
    """`multiprocessing.Pool(processes)`."""

    title = "multiprocessing.Pool"
    imports = "multiprocessing.pool"
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "noop-int": NO_OP,
        "noop-dict": NO_OP,
        "submit": ("apply_async",),
        "latency": ("apply_async",),
        "cpu": ("map auto", "imap_unordered c=64", "apply_async"),
        "mixed": ("map auto", "imap_unordered c=1", "imap_unordered c=64"),
        "bytes": ("map auto", "imap_unordered c=1", "apply_async"),
        "lazy": ("imap_unordered c=64",),
        "start": ("apply_async",),
        "import": ("import",),
        "kill-running": ("apply_async",),
        "kill-idle": ("apply_async",),
    }
    pool: multiprocessing.pool.Pool

    def open(self) -> None:
        """Start the pool."""
        import multiprocessing

        self.pool = multiprocessing.Pool(self.processes)

    def run(self, way: str, function: Callable[..., object], items: Iterable[object]) -> Iterable[object]:
        """Run by `map`, `imap_unordered` or `apply_async`."""
        if way == "apply_async":
            return self.submit_all(function, items)
        if way.startswith("map"):
            return self.pool.map(function, items, chunk_size(way))
        return self.pool.imap_unordered(function, items, chunk_size(way) or 1)

    def submit(self, function: Callable[..., object], *args: object) -> Callable[[float | None], object]:
        """Submit by `apply_async`."""
        return self.pool.apply_async(function, args).get

    def close(self) -> None:
        """Terminate and join."""
        self.pool.terminate()
        self.pool.join()
