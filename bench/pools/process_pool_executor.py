"""concurrent.futures.ProcessPoolExecutor of the standard library."""

from __future__ import annotations

from bench.pools.system import PoolSystem, chunk_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Iterable
    from typing import ClassVar


class Executor(PoolSystem):
    """`ProcessPoolExecutor(processes)`."""

    title = "ProcessPoolExecutor"
    imports = "concurrent.futures.process"
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "noop-int": ("map c=1", "map c=64", "map c=1024"),
        "noop-dict": ("map c=64", "map c=1024"),
        "submit": ("submit",),
        "latency": ("submit",),
        "cpu": ("map c=64", "submit"),
        "mixed": ("map c=64", "submit"),
        "bytes": ("map c=1", "submit"),
        "lazy": ("map c=64",),
        "start": ("submit",),
        "import": ("import",),
        "kill-running": ("submit",),
        "kill-idle": ("submit",),
    }
    executor: concurrent.futures.ProcessPoolExecutor

    def open(self) -> None:
        """Start the executor; its processes start with the first submit."""
        from concurrent.futures import ProcessPoolExecutor

        self.executor = ProcessPoolExecutor(self.processes)

    def run(self, way: str, function: Callable[..., object], items: Iterable[object]) -> Iterable[object]:
        """Run by `map` or `submit`."""
        if way == "submit":
            return self.submit_all(function, items)
        return self.executor.map(function, items, chunksize=chunk_size(way) or 1)

    def submit(self, function: Callable[..., object], *args: object) -> Callable[[float | None], object]:
        """Submit one call."""
        return self.executor.submit(function, *args).result

    def close(self) -> None:
        """Shut down."""
        self.executor.shutdown(wait=True, cancel_futures=True)
