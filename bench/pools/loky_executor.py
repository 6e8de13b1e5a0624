"""loky's reusable executor, the pool under joblib."""

from __future__ import annotations

from bench.pools.system import PoolSystem, chunk_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import ClassVar


class Loky(PoolSystem):
    """`get_reusable_executor(max_workers=processes)`."""

    title = "loky"
    imports = "loky"
    distributions = ("loky",)
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "noop-int": ("map c=64", "map c=1024"),
        "noop-dict": ("map c=1024",),
        "submit": ("submit",),
        "latency": ("submit",),
        "cpu": ("submit",),
        "bytes": ("submit",),
        "lazy": ("map c=64",),
        "start": ("submit",),
        "import": ("import",),
        "kill-running": ("submit",),
        "kill-idle": ("submit",),
    }

    def open(self) -> None:
        """Get the executor."""
        from loky import get_reusable_executor

        self.executor = get_reusable_executor(max_workers=self.processes)

    def run(self, way: str, function: Callable[..., object], items: Iterable[object]) -> Iterable[object]:
        """Run by `map` or `submit`."""
        if way == "submit":
            return self.submit_all(function, items)
        results: Iterable[object] = self.executor.map(function, items, chunksize=chunk_size(way) or 1)
        return results

    def submit(self, function: Callable[..., object], *args: object) -> Callable[[float | None], object]:
        """Submit one call."""
        wait: Callable[[float | None], object] = self.executor.submit(function, *args).result
        return wait

    def close(self) -> None:
        """Shut down."""
        self.executor.shutdown(wait=True, kill_workers=True)
