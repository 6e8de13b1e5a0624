"""Fixtures for all tests: queues on every variant, the ledger, and the guard against leaks.

A shared queue (`queue`) lives as long as the tests of one module on one variant; a test that fails throws it away,
so that the next one starts from a clean one. `make_queue` builds a queue for one test and shuts it down after it.
Durable variants have stores and workers (`tests.places`), which the tests of a module share in the same way.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import re
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import replace
from itertools import count
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import hypothesis
import pytest

from tests import leaks, processes, selection
from tests.ledger import Ledger
from tests.places import QUERY, Places
from tests.redis_server import RedisServer, bundled
from tests.sample_tasks import pid_after_nap
from tests.variants import PROCESSES, VARIANTS, Variant
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from taskq import TaskQueue

#: Where a finished test's report is kept for its fixtures.
FAILED = pytest.StashKey[bool]()

#: Of a SQLite file that one queue has open, SQLite keeps the descriptors of all others that were closed for the next
#: one (POSIX would drop the locks with them), and a queue keeps a few connections. The guard of the module sees them.
PENDING = (".db",)
POOLED = (".db", ".db-wal", ".db-shm", ".db-lock")

hypothesis.settings.register_profile("pool", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("pool")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make check`, and the one for all there is."""
    parser.addoption("--whole", action="store_true", help="draw nothing: run all repeated tests, on all variants")
    parser.addoption(
        "--tenth",
        action="store_true",
        help="run a tenth of the tests, always the same, of all modules but the slow ones",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the session's world its own, so that what is left behind can be seen and is ours."""
    config.addinivalue_line("markers", "soak: a run of many minutes; `pytest -m soak` runs these and only these")
    config.addinivalue_line("markers", "needs(*capabilities, why): run only on executors that declare these")
    leaks.mark_shared_memory()
    leaks.adopt_orphans()
    _lighten_main()
    _keep_bytecode()


def _keep_bytecode() -> None:
    """Let the thousands of processes that tests start find their modules compiled, whatever the user's shell says."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_finish() -> None:
    """Spare the collector, here and in forked children, half a million objects that live as long as the session."""
    gc.collect()
    gc.freeze()


def _lighten_main() -> None:
    """Hide pytest's main program: children of spawn and forkserver would import it, 0.3 s each, for nothing."""
    sys.modules["__main__"] = ModuleType("__main__")


@pytest.hookimpl(tryfirst=True)  # so that nobody puts in order what is then left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not run this time, skip what a variant cannot do, and keep together what shares a queue."""
    chosen = selection.selected(config, items)
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=list(set(items).difference(chosen)))
        items[:] = chosen
    for item in items:
        for reason in selection.reasons_to_skip(item):
            item.add_marker(pytest.mark.skip(reason=reason))
        item.add_marker(pytest.mark.xdist_group(selection.shared_by(item)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare the tenth the import of modules of which it has nothing."""
    return True if config.getoption("--tenth") and selection.is_slow(collection_path) else None


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


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give this test a folder with a short name: the path of a socket in it may have 107 bytes."""
    return tmp_path_factory.mktemp(re.sub(r"\W", "_", request.node.name)[:12])


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
    pooled = shared or "strict_queue" in request.fixturenames  # which lives as long as its module, too
    _fail_on(leaks.settle(before, by_count=shared, kept=POOLED if pooled else PENDING), "this test")


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
        self._complete: Counter[str] = Counter()

    def get(self) -> TaskQueue:
        """Return the queue with all its processes started."""
        if self._queue is None:
            self._queue = self.variant.open()
            self.open.append(self)
            warm_up(self._queue)
            self._complete = leaks.take().kinds_of_descriptors()
        return self._queue

    def wait_until_complete(self) -> None:
        """Wait until processes that the test before has killed are replaced: the guard counts from here."""
        if self.variant.places is not None:
            return  # they are the worker's, and so are their descriptors
        eventually(
            lambda: leaks.take().kinds_of_descriptors() >= self._complete,
            "killed processes of the pool to be replaced, with their descriptors",
        )

    def discard(self) -> None:
        """Shut the queue down."""
        if self._queue is not None:
            queue, self._queue = self._queue, None
            self.open.remove(self)
            close(queue)
        if self.variant.places is not None:
            self.variant.places.close()


def warm_up(queue: TaskQueue) -> None:
    """Run jobs until everything that is made lazily is there: threads, descriptors, all processes."""
    assert list(queue.map(abs, range(4))) == [0, 1, 2, 3]
    assert queue.submit(abs, -1).result(timeout=PATIENCE) == 1
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


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give a redis-server of this session; `fresh_url` gives each test or module a database of its own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give the valkey-server of the test extra, where the system's redis-server runs the other tests."""
    with RedisServer(tmp_path_factory.mktemp("valkey"), binary=bundled()) as server:
        yield server


@pytest.fixture(scope="module")
def fresh_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], str]:
    """Give URLs of empty stores: of a kind (`sqlite`, `redis` or `valkey`), with a query."""
    numbers = count()

    def make(kind: str, query: str = "") -> str:
        if kind in ("redis", "valkey"):
            return str(request.getfixturevalue(f"{kind}_server").fresh_url(query))
        return f"sqlite://{tmp_path_factory.mktemp('sqlite')}/{next(numbers)}.db{query}"

    return make


@pytest.fixture(scope="module")
def open_variant(
    request: pytest.FixtureRequest,
    fresh_url: Callable[[str, str], str],
    tmp_path_factory: pytest.TempPathFactory,
    nothing_left_by_module: None,
) -> Iterator[Callable[[Variant], Variant]]:
    """Give a variant of the table the places that it needs; they are closed after the module's tests.

    A test module's `WORKER_IMPORTS` names modules whose functions it submits beyond the usual ones.
    """
    opened: dict[str, Variant] = {}
    imports = getattr(request.module, "WORKER_IMPORTS", ())

    def live(row: Variant) -> Variant:
        if row.scheme == "local":
            return row
        if row.name not in opened:
            places = Places(lambda: fresh_url(row.name, QUERY), tmp_path_factory.mktemp("workers"), imports)
            opened[row.name] = replace(row, places=places)
        return opened[row.name]

    yield live
    for variant in opened.values():
        if variant.places is not None:
            variant.places.close()


@pytest.fixture(scope="module", params=VARIANTS, ids=[variant.name for variant in VARIANTS])
def variant(request: pytest.FixtureRequest, open_variant: Callable[[Variant], Variant]) -> Iterator[Variant]:
    """Give each executor and each of its variants in turn."""
    found = open_variant(request.param)
    yield found
    if found.places is not None:
        found.places.close()


@pytest.fixture
def cleared(variant: Variant, request: pytest.FixtureRequest) -> Iterator[None]:
    """End what a test left waiting or running in the stores that it shares with others."""
    yield
    if variant.places is None:
        return
    if request.node.stash.get(FAILED, False):
        sys.stderr.write(f"\nthe workers said:\n{variant.places.logs()}")
        for holder in [holder for holder in SharedQueue.open if holder.variant is variant]:
            holder.discard()
        variant.places.close()
    else:
        variant.places.clear()


@pytest.fixture(scope="module")
def shared_queue(variant: Variant, nothing_left_by_module: None) -> Iterator[SharedQueue]:
    """Hold the queue that the tests of this module share."""
    holder = SharedQueue(variant)
    yield holder
    holder.discard()


@pytest.fixture
def queue(shared_queue: SharedQueue, request: pytest.FixtureRequest, cleared: None, gate: Gate) -> Iterator[TaskQueue]:
    """Give an open queue with two processes; do not shut it down, do not break it."""
    yield shared_queue.get()
    gate.open()  # a test that failed may have left jobs waiting there
    if request.node.stash.get(FAILED, False):
        shared_queue.discard()


@pytest.fixture
def make_queue(variant: Variant, cleared: None, gate: Gate) -> Iterator[Callable[..., TaskQueue]]:
    """Build queues for one test, with any settings of `TaskQueue`; they are shut down after it."""
    made: list[TaskQueue] = []

    def make(**settings: Any) -> TaskQueue:
        made.append(variant.open(**settings))
        return made[-1]

    yield make
    gate.open()  # a test that failed may have left jobs waiting there
    while made:
        close(made.pop())


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
