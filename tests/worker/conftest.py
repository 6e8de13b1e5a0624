"""A worker in a thread of the test, on a store in memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from taskq.executors.worker.worker import Worker
from tests.variants import PROCESSES
from tests.waiting import PATIENCE
from tests.worker.double import StoreDouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLE = "tests.worker.sample"


class Running:
    """A worker that runs in a thread; `code` is what its run returned."""

    def __init__(self, store: StoreDouble, **settings: Any) -> None:
        chosen: dict[str, Any] = {"processes": PROCESSES, "imports": (SAMPLE,), "grace": PATIENCE, **settings}
        self.worker = Worker(store, **chosen)  # type: ignore[arg-type]  # it is as much of a store as a worker sees
        self.code: int | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.code = self.worker.run()
        except BaseException as error:  # noqa: BLE001  # it is raised in the test
            self.error = error

    def wait(self) -> int:
        """Return the exit code when it has ended."""
        self._thread.join(PATIENCE)
        if self.error is not None:
            raise self.error
        assert self.code is not None, "the worker did not end"
        return self.code

    def stop(self) -> int:
        """End it in an orderly way; return the exit code."""
        self.worker.stop()
        return self.wait()

    def end(self) -> None:
        """End it, whatever it does."""
        while self._thread.is_alive():
            self.worker.stop()
            self._thread.join(1.0)


@pytest.fixture
def store() -> StoreDouble:
    """Give an empty store."""
    return StoreDouble()


@pytest.fixture
def serve(store: StoreDouble) -> Iterator[Callable[..., Running]]:
    """Start workers on the store; they are ended after the test."""
    started: list[Running] = []

    def start(**settings: Any) -> Running:
        started.append(Running(store, **settings))
        return started[-1]

    yield start
    store.away = False
    for running in started:
        running.end()
