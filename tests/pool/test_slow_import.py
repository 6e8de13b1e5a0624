"""What children import before a job: it may take long, which no time limit counts and so is said, or kill them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from taskq import TaskQueue, context
from taskq.errors import JobCrashed
from taskq.executors.pool import watchdog
from taskq.tasks import resolve
from tests import sample_deadly
from tests.conftest import close
from tests.sample_tasks import hold, square
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Gate


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Give what is said, soon."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(watchdog, "_IMPORTS_LONG_NS", 50_000_000)

    class Listener:
        info = error = staticmethod(lambda *_, **__: None)

        @staticmethod
        def warning(event: str, **fields: object) -> None:
            found.append({"event": event, **fields})

    monkeypatch.setattr(watchdog, "log", Listener)
    return found


@pytest.fixture
def held_queue(gate: Gate) -> Iterator[TaskQueue]:
    """Give a queue whose child is not ready before the gate is open."""
    queue = TaskQueue(processes=1, initializer=hold, initargs=(gate.path,))
    yield queue
    gate.open()
    close(queue)


def test_a_hanging_start_is_said(held_queue: TaskQueue, gate: Gate, warnings: list[dict[str, Any]]) -> None:
    """A child that does not come to work, with work waiting for it, is told of in the log, once."""
    job = held_queue.submit(square, 3)
    eventually(lambda: warnings, "a warning")
    gate.open()
    assert job.result(timeout=PATIENCE) == 9
    assert [warning["event"] for warning in warnings] == ["import_hangs"]


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_a_deadly_import_is_counted(start_method: str) -> None:
    """A job whose module's import kills the process fails as any that kills it; others go on."""
    with TaskQueue(processes=1, start_method=start_method) as queue:
        job = queue.options(max_crashes=2).submit(sample_deadly.nothing)
        others = [queue.submit(square, number) for number in range(20)]
        error = job.exception(timeout=PATIENCE)
        assert isinstance(error, JobCrashed)
        assert (error.crashes, error.exitcode) == (2, 3)
        assert [other.result(timeout=PATIENCE) for other in others] == [number * number for number in range(20)]
        assert {other.crashes for other in others} == {0}


def test_clocks_stop_once() -> None:
    """An import inside of an import stops no clock twice, and starts none early."""
    said: list[str] = []

    class Clock:
        def stop(self) -> None:
            said.append("stop")

        def go_on(self) -> None:
            said.append("go on")

    with context.clock_running(Clock()), context.clocks_paused():
        resolve("math:sqrt")  # which imports, too
        said.append("imported")
    assert said == ["stop", "imported", "go on"]
