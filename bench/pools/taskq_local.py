"""taskq on this machine (`local://`), chunk sizes always left to the library, with two start methods."""

from __future__ import annotations

from bench.pools.system import PoolSystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import ClassVar

    from taskq import TaskQueue

NO_OP = ("map", "imap_unordered")


class TaskqForkserver(PoolSystem):
    """`TaskQueue("local://", processes=processes)` with forkserver, the default."""

    title = "taskq"
    imports = "taskq"
    distributions = ("taskq",)
    start_method = "forkserver"
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "noop-int": NO_OP,
        "noop-dict": NO_OP,
        "submit": ("submit",),
        "latency": ("submit",),
        "cpu": ("map", "imap_unordered", "submit"),
        "mixed": ("map", "imap_unordered", "submit"),
        "bytes": ("imap_unordered", "submit"),
        "lazy": ("map", "imap_unordered"),
        "start": ("submit",),
        "import": ("import",),
        "kill-running": ("submit",),
        "kill-idle": ("submit",),
    }
    queue: TaskQueue

    def open(self) -> None:
        """Start the queue."""
        from taskq import TaskQueue

        self.queue = TaskQueue("local://", processes=self.processes, start_method=self.start_method)

    def run(self, way: str, function: Callable[..., object], items: Iterable[object]) -> Iterable[object]:
        """Run by `map`, `imap_unordered` or `submit`."""
        if way == "submit":
            return self.submit_all(function, items)
        if way == "map":
            return self.queue.map(function, items)
        return self.queue.imap_unordered(function, items)

    def submit(self, function: Callable[..., object], *args: object) -> Callable[[float | None], object]:
        """Submit one call."""
        return self.queue.submit(function, *args).result

    def close(self) -> None:
        """Shut down."""
        self.queue.shutdown(wait=True, cancel_futures=True)


class TaskqFork(TaskqForkserver):
    """The same with fork, the start method that most peers use on Linux by default."""

    title = "taskq (fork)"
    start_method = "fork"
    ways: ClassVar[dict[str, tuple[str, ...]]] = {
        "noop-int": NO_OP,
        "noop-dict": NO_OP,
        "submit": ("submit",),
        "latency": ("submit",),
        "bytes": ("imap_unordered", "submit"),
        "start": ("submit",),
        "kill-running": ("submit",),
        "kill-idle": ("submit",),
    }
