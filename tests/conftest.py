"""Fixtures for all tests: queues on every variant, the ledger, and the guard against leaks.

A shared pool (`queue`) lives as long as the tests of one module on one variant; a test that fails throws it away,
so that the next one starts from a clean one. `make_queue` builds a queue for one test and shuts it down after it.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import hypothesis
import pytest

from taskq import TaskQueue
from tests import leaks, processes
from tests.ledger import Ledger
from tests.sample_tasks import pid_after_nap
from tests.variants import PROCESSES, VARIANTS, Variant
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Where a finished test's report is kept for its fixtures.
FAILED = pytest.StashKey[bool]()

hypothesis.settings.register_profile("pool", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("pool")


def pytest_configure(config: pytest.Config) -> None:
    """Make the session's world its own, so that what is left behind can be seen and is ours."""
    config.addinivalue_line("markers", "soak: a run of many minutes; `pytest -m soak` runs these and only these")
    config.addinivalue_line("markers", "needs(*capabilities): run only on executors that declare these")
    leaks.mark_semaphores()
    leaks.adopt_orphans()
    _lighten_main()


def _lighten_main() -> None:
    """Hide pytest's main program: children of spawn and forkserver would import it, 0.3 s each, for nothing."""
    sys.modules["__main__"] = ModuleType("__main__")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long runs out unless they are asked for by their mark."""
    if "soak" in (config.option.markexpr or ""):
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Tell the fixtures of a test that it failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed  # type: ignore[attr-defined]
    return report


# --- nothing is left behind


@pytest.fixture(scope="session", autouse=True)
def folder_of_temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give this run a folder of its own for temporary files, so that what stays in it is ours."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("t"))
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="module", autouse=True)
def nothing_left_by_module(folder_of_temporary_files: None) -> Iterator[None]:
    """Fail the last test of a module when its shared pools left something behind."""
    before = leaks.take()
    yield
    _fail_on(leaks.settle(before), "this module")


@pytest.fixture(autouse=True)
def nothing_left_by_test(request: pytest.FixtureRequest, nothing_left_by_module: None) -> Iterator[None]:
    """Fail a test that left something behind; one with a shared pool is checked by count."""
    shared = "shared_queue" in request.fixturenames
    if shared:
        request.getfixturevalue("shared_queue").get()
    for holder in SharedQueue.open:
        holder.wait_until_complete()
    before = leaks.take()
    yield
    _fail_on(leaks.settle(before, by_count=shared), "this test")


def _fail_on(found: list[str], whose: str) -> None:
    if found:
        pytest.fail(f"{whose} left {len(found)} thing(s) behind:\n" + "\n".join(found), pytrace=False)


# --- queues


class SharedQueue:
    """A queue that the tests of a module share; made when first asked for, and again after `discard`."""

    #: Those that hold a queue now; their processes are there while tests run that do not use them, too.
    open: ClassVar[list[SharedQueue]] = []

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self._queue: TaskQueue | None = None
        self._complete = 0

    def get(self) -> TaskQueue:
        """Return the queue with all its processes started."""
        if self._queue is None:
            self._queue = build(self.variant)
            self.open.append(self)
            warm_up(self._queue)
            self._complete = len(leaks.take().descriptors)
        return self._queue

    def wait_until_complete(self) -> None:
        """Wait until processes that the test before has killed are replaced: the guard counts from here."""
        eventually(
            lambda: len(leaks.take().descriptors) >= self._complete,
            "killed processes of the pool to be replaced, with their descriptors",
        )

    def discard(self) -> None:
        """Shut the queue down."""
        if self._queue is not None:
            queue, self._queue = self._queue, None
            self.open.remove(self)
            close(queue)


def build(variant: Variant, **settings: Any) -> TaskQueue:
    """Open a queue of a variant; settings of the test's own come on top."""
    chosen: dict[str, Any] = {"processes": PROCESSES, **variant.settings, **settings}
    if "max_workers" in settings:
        del chosen["processes"]
    return TaskQueue(variant.url, **chosen)


def warm_up(queue: TaskQueue) -> None:
    """Run jobs until everything that is made lazily is there: threads, descriptors, all processes."""
    assert list(queue.map(abs, range(4))) == [0, 1, 2, 3]
    assert queue.submit(abs, -1).result(timeout=PATIENCE) == 1
    if "start_methods" in queue.capabilities:
        eventually(lambda: len(busy_pids(queue)) == PROCESSES, "all processes to take a job")


def busy_pids(queue: TaskQueue) -> set[int]:
    """Return which processes take jobs when there are as many at once as there should be processes."""
    jobs = [queue.submit(pid_after_nap, 0.02) for _ in range(PROCESSES)]
    return {job.result(timeout=PATIENCE) for job in jobs}


def close(queue: TaskQueue) -> None:
    """Shut a queue down; when that hangs, show all stacks, end its processes, and fail instead of hanging too.

    pytest-timeout fires once in a test: the teardown of a test that hung has only this bound.
    """
    closer = threading.Thread(target=queue.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    closer.start()
    closer.join(PATIENCE)
    if closer.is_alive():
        faulthandler.dump_traceback(2)
        for seen in processes.descendants():
            processes.kill(seen.pid)
        pytest.fail(f"shutdown(cancel_futures=True) hung for {PATIENCE:g} s", pytrace=False)


@pytest.fixture(scope="module", params=VARIANTS, ids=[variant.name for variant in VARIANTS])
def variant(request: pytest.FixtureRequest) -> Variant:
    """Give each executor and each of its variants in turn."""
    found: Variant = request.param
    return found


@pytest.fixture(scope="module")
def shared_queue(variant: Variant, nothing_left_by_module: None) -> Iterator[SharedQueue]:
    """Hold the queue that the tests of this module share."""
    holder = SharedQueue(variant)
    yield holder
    holder.discard()


@pytest.fixture
def queue(shared_queue: SharedQueue, request: pytest.FixtureRequest, gate: Gate) -> Iterator[TaskQueue]:
    """Give an open queue with two processes; do not shut it down, do not break it."""
    found = shared_queue.get()
    _skip_unless_able(request, found)
    yield found
    gate.open()  # a test that failed may have left jobs waiting there
    if request.node.stash.get(FAILED, False):
        shared_queue.discard()


@pytest.fixture
def make_queue(variant: Variant, request: pytest.FixtureRequest, gate: Gate) -> Iterator[Callable[..., TaskQueue]]:
    """Build queues for one test, with any settings of `TaskQueue`; they are shut down after it."""
    made: list[TaskQueue] = []

    def make(**settings: Any) -> TaskQueue:
        made.append(build(variant, **settings))
        _skip_unless_able(request, made[-1])
        return made[-1]

    yield make
    gate.open()  # a test that failed may have left jobs waiting there
    while made:
        close(made.pop())


def _skip_unless_able(request: pytest.FixtureRequest, queue: TaskQueue) -> None:
    wanted = {name for mark in request.node.iter_markers("needs") for name in mark.args}
    if missing := wanted - queue.capabilities:
        pytest.skip(f"this executor does not declare {', '.join(sorted(missing))}")


# --- what jobs leave for the test to see


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Give a file in which jobs note what they do."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Give a gate at which jobs wait until the test opens it."""
    return Gate(tmp_path / "gate")


class Gate:
    """A file that is not there until the test opens the gate; see `tests.sample_tasks.hold`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.path = str(path)

    def open(self) -> None:
        """Let all jobs through, those that come later too."""
        self._path.touch()
