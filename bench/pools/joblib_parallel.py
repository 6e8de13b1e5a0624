"""joblib.Parallel with its default backend (loky); it has no way to submit one call, see loky_executor.py."""

from __future__ import annotations

from bench.pools.system import PoolSystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import ClassVar

AUTO, SINGLE, STREAM = "Parallel auto batch", "Parallel batch=1", "Parallel generator_unordered"


class Joblib(PoolSystem):
    """`Parallel(n_jobs=processes)`, kept open between calls."""

    title = "joblib"
    imports = "joblib"
    distributions = ("joblib",)
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "noop-int": (AUTO,),
        "noop-dict": (AUTO,),
        "cpu": (AUTO,),
        "mixed": (AUTO,),
        "bytes": (SINGLE,),
        "lazy": (STREAM,),
        "start": (AUTO,),
        "import": ("import",),
    }

    def open(self) -> None:
        """Start the pool of `Parallel`."""
        import joblib

        self.delayed = joblib.delayed
        self.by_way = {
            AUTO: joblib.Parallel(n_jobs=self.processes),
            SINGLE: joblib.Parallel(n_jobs=self.processes, batch_size=1),
            STREAM: joblib.Parallel(n_jobs=self.processes, return_as="generator_unordered"),
        }

    def run(self, way: str, function: Callable[..., object], items: Iterable[object]) -> Iterable[object]:
        """Run by `Parallel`."""
        call = self.delayed(function)
        results: Iterable[object] = self.by_way[way](call(item) for item in items)
        return results

    def submit(self, function: Callable[..., object], *args: object) -> Callable[[float | None], object]:
        """Run a list of one call (only the test `start` does so)."""
        result = self.by_way[AUTO]([self.delayed(function)(*args)])[0]
        return lambda _timeout: result

    def close(self) -> None:
        """Shut the shared loky executor down."""
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)
