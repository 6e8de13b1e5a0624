"""`taskq.Pool` does what `multiprocessing.Pool` does, on every executor; CPython's own tests of Pool among these."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import pickle
import threading
import unittest
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import pytest

from taskq import JobCrashed, Pool
from tests.sample_tasks import add, hold, note_item, pid_after_nap, square
from tests.variants import PROCESSES, VARIANTS, Variant
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Gate
    from tests.ledger import Ledger

#: CPython's tests of multiprocessing; some distributions leave them out.
PACKAGE = "test._test_multiprocessing"
try:
    shipped: Any = importlib.import_module(PACKAGE)
except ImportError:  # pragma: no cover
    shipped = None

WORKER_IMPORTS = ("time:sleep", "os:_exit", *((PACKAGE,) if shipped is not None else ()))


def open_pool(variant: Variant, processes: int | None = None, **settings: Any) -> Pool:
    """Open a pool on a variant; on a store, one with a worker of so many processes."""
    if variant.places is None:
        method = str(variant.settings["start_method"])
        return Pool(processes, context=multiprocessing.get_context(method), **settings)
    if processes is not None and processes < 1:
        return Pool(processes, url=variant.url)
    return Pool(url=variant.places.get(processes or PROCESSES).url, **settings)


@pytest.fixture
def make_pool(variant: Variant, cleared: None, gate: Gate) -> Iterator[Callable[..., Pool]]:
    """Open pools for one test; they are ended after it."""
    made: list[Pool] = []

    def make(processes: int | None = PROCESSES, **settings: Any) -> Pool:
        made.append(open_pool(variant, processes, **settings))
        return made[-1]

    yield make
    gate.open()
    for pool in made:
        pool.terminate()
        pool.join()


def test_each_call_gives_what_multiprocessing_gives(make_pool: Callable[..., Pool]) -> None:
    """Results, their types and their order are those of the standard Pool."""
    pool = make_pool()
    assert pool.apply(add, (1, 2)) == 3
    assert pool.apply_async(add, (1,), {"right": 2}).get(PATIENCE) == 3
    assert pool.map(square, range(20)) == [n * n for n in range(20)]
    assert pool.map(square, range(20), 7) == [n * n for n in range(20)]
    assert pool.map_async(square, iter(range(5))).get(PATIENCE) == [0, 1, 4, 9, 16]
    assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
    assert pool.starmap_async(add, [(1, 2)]).get(PATIENCE) == [3]
    assert list(pool.imap(square, range(5))) == [0, 1, 4, 9, 16]
    assert sorted(pool.imap_unordered(square, range(5))) == [0, 1, 4, 9, 16]


def test_callbacks_come_before_the_result(make_pool: Callable[..., Pool]) -> None:
    """Who has waited finds the callback called, with the result or with the exception."""
    pool = make_pool()
    heard: list[Any] = []
    pool.apply_async(add, (1, 2), callback=heard.append).wait(PATIENCE)
    pool.map_async(square, [2, 3], callback=heard.append).wait(PATIENCE)
    assert heard == [3, [4, 9]]
    failed = pool.apply_async(add, (1, None), error_callback=heard.append)
    failed.wait(PATIENCE)
    assert not failed.successful()
    assert type(heard[-1]) is TypeError
    with pytest.raises(TypeError):
        failed.get()


def test_calls_that_cannot_be_made(make_pool: Callable[..., Pool]) -> None:
    """Wrong arguments, and what cannot travel, are the outcome of `apply_async`, as they are in multiprocessing."""
    pool = make_pool()
    for call in ((add, (1, 2, 3)), (add, (1, threading.Lock()))):
        heard: list[BaseException] = []
        failed = pool.apply_async(*call, error_callback=heard.append)
        with pytest.raises(TypeError) as caught:
            failed.get(PATIENCE)
        assert heard == [caught.value]


def test_an_unfinished_call(make_pool: Callable[..., Pool], gate: Gate, ledger: Ledger) -> None:
    """A result that is not there in time is multiprocessing's TimeoutError, and is there later."""
    pool = make_pool()
    result = pool.apply_async(hold, (gate.path, ledger.path))
    assert not result.ready()
    with pytest.raises(ValueError, match="is not ready"):
        result.successful()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    iterator = pool.imap(hold, [gate.path])
    with pytest.raises(multiprocessing.TimeoutError):
        iterator.next(timeout=0.01)
    gate.open()
    assert result.get(PATIENCE) == "held"
    assert result.successful()
    assert iterator.next(timeout=PATIENCE) is not None
    with pytest.raises(StopIteration):
        iterator.next(timeout=PATIENCE)


def test_close_keeps_what_was_asked_for(make_pool: Callable[..., Pool]) -> None:
    """After `close` and `join` the results of all calls are there, of iterators that nobody has read, too."""
    pool = make_pool()
    single = pool.apply_async(square, (3,))
    mapped = pool.map_async(square, range(1_000))
    iterated = pool.imap(square, (n for n in range(5_000)))
    first = next(iterated)
    pool.close()
    with pytest.raises(ValueError, match="does not run any more"):
        pool.apply(square, (3,))
    pool.join()
    assert (single.get(0), len(mapped.get(0))) == (9, 1_000)
    assert [first, *iterated] == [n * n for n in range(5_000)]


def test_join_wants_the_end_to_be_said(make_pool: Callable[..., Pool]) -> None:
    """`join` on a pool that runs is refused, as a pool is that is opened again by `with`."""
    pool = make_pool()
    with pytest.raises(ValueError, match="still runs"):
        pool.join()
    with pool:
        pass
    with pytest.raises(ValueError, match="does not run any more"), pool:
        pass


def test_terminate_ends_what_runs(make_pool: Callable[..., Pool], gate: Gate, ledger: Ledger) -> None:
    """`terminate` kills running calls, and whoever waits for one hears of it instead of hanging."""
    pool = make_pool()
    held = [pool.apply_async(hold, (gate.path, ledger.path)) for _ in range(3 * PROCESSES)]
    eventually(lambda: len(ledger.texts()) == PROCESSES, "the first calls to start")
    pool.terminate()
    pool.join()
    for result in held:
        with pytest.raises(CancelledError):
            result.get(PATIENCE)


def test_a_killed_child_fails_its_call_alone(make_pool: Callable[..., Pool]) -> None:
    """Where the standard Pool hangs for ever, the call fails and all others go on."""
    pool = make_pool()
    killed = pool.apply_async(os._exit, (3,))
    with pytest.raises(JobCrashed):
        killed.get(PATIENCE)
    assert pool.map(square, range(10)) == [n * n for n in range(10)]


def test_map_raises_when_all_have_ended(make_pool: Callable[..., Pool], ledger: Ledger) -> None:
    """`map` raises the first error, and only when no call is left running."""
    pool = make_pool()
    with pytest.raises(TypeError):
        pool.starmap(note_item, [(ledger.path, 1), (None, 2), (ledger.path, 3)], 1)
    assert sorted(ledger.texts()) == ["1", "3"]


def test_errors_of_an_input(make_pool: Callable[..., Pool]) -> None:
    """The error of an input is raised behind the results of all items before it, and the pool goes on."""
    pool = make_pool()
    for chunksize in (1, 2, 4):
        iterator = pool.imap(square, _failing_at(7), chunksize)
        assert [next(iterator) for _ in range(7)] == [n * n for n in range(7)]
        with pytest.raises(ZeroDivisionError):
            next(iterator)
    with pytest.raises(ZeroDivisionError):
        pool.map(square, _failing_at(3))
    assert pool.apply(square, (3,)) == 9


def _failing_at(count: int) -> Iterator[int]:
    yield from range(count)
    raise ZeroDivisionError


def test_several_threads(make_pool: Callable[..., Pool]) -> None:
    """Threads may share a pool, and an iterator of it: each result goes to one of them."""
    pool = make_pool()
    iterator = pool.imap_unordered(square, range(2_000))
    found: list[int] = []
    readers = [threading.Thread(target=lambda: found.extend(iterator)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(PATIENCE)
    assert sorted(found) == [n * n for n in range(2_000)]


@pytest.mark.needs("start_methods", why="on a store the workers decide on these settings")
def test_settings(make_pool: Callable[..., Pool], ledger: Ledger) -> None:
    """`processes`, `initializer` and `maxtasksperchild` mean what they mean there."""
    pool = make_pool(1, initializer=_begin, initargs=[ledger.path], maxtasksperchild=2)
    pids = [pool.apply(pid_after_nap, (0,)) for _ in range(6)]
    assert len(set(pids)) == 3
    assert len(ledger.texts()) >= 3


def _begin(path: str) -> None:
    from tests.ledger import note  # noqa: PLC0415

    note(path, "begun")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"processes": 0}, ValueError),
        ({"processes": -1}, ValueError),
        ({"maxtasksperchild": 0}, ValueError),
        ({"maxtasksperchild": 0.5}, ValueError),
        ({"maxtasksperchild": "12"}, ValueError),
        ({"initializer": 3}, TypeError),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception]) -> None:
    """Bad settings are refused with the standard Pool's errors, before a process is started."""
    with pytest.raises(error, match=next(iter(settings))):
        Pool(**settings)


def test_no_pickling(make_pool: Callable[..., Pool]) -> None:
    """A pool cannot be pickled, as the standard one."""
    with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
        pickle.dumps(make_pool())


# --- CPython's own tests

PRIVATE = "looks into private attributes of multiprocessing.Pool"
OWN_ERROR = "our EncodeError says which argument or result cannot travel; tests/conformance/test_values.py"
OBJECTS = "sends what only pickle could carry"

EXCLUDED = {
    "test_make_pool": PRIVATE + "; ours: test_bad_settings",
    "test_resource_warning": PRIVATE,
    "test_traceback": "demands the private class RemoteTraceback as cause; ours: test_errors.py",
    "test_map_unplicklable": OWN_ERROR,
    "test_imap_handle_iterable_exception": "demands that items before the error are lost; test_errors_of_an_input",
    "test_unpickleable_result": OWN_ERROR,
    "test_pool_worker_lifetime": PRIVATE + "; ours: test_settings",
    "test_worker_finalization_via_atexit_handler_of_multiprocessing": "its script imports multiprocessing's Pool",
    "test_pool_maxtasksperchild_invalid": "ours: test_bad_settings",
}
EXCLUDED_IN_STORES = {
    "test_release_task_refs": OBJECTS,
    "test_map_async_callbacks": "calls the class int, which no worker would trust",
    "test_wrapped_exception": "calls a class method, which has to be named to a worker",
    "test_map_no_failfast": "its error is 1 MiB long; ours: test_map_raises_when_all_have_ended",
    "test_pool_worker_lifetime_early_close": "the setting belongs to the workers there",
}


class WithPool(unittest.TestCase):
    """Give CPython's mixins what they ask for: `self.pool` and `self.Pool`."""

    TYPE = "processes"
    row = VARIANTS[0]
    variant: Variant

    @functools.cached_property
    def pool(self) -> Pool:
        """Open the pool of a test that wants one."""
        return self.Pool(4)

    @pytest.fixture(autouse=True)
    def take_place(self, open_variant: Callable[[Variant], Variant]) -> Iterator[None]:
        """Have the stores and workers that the variant needs, and end the pool that the test may have opened."""
        self.variant = open_variant(self.row)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(multiprocessing, "Pool", self.Pool)
            yield
        if "pool" in vars(self):
            self.pool.terminate()
            self.pool.join()

    @classmethod
    def setUpClass(cls) -> None:
        """Open no pool yet."""

    @classmethod
    def tearDownClass(cls) -> None:
        """Close none."""

    def Pool(self, processes: int | None = None, **settings: Any) -> Pool:  # noqa: N802
        """Open a pool, called as multiprocessing's."""
        return open_pool(self.variant, processes, **settings)


def _excluding(mixin: Any, row: Variant) -> dict[str, Any]:
    excluded = EXCLUDED if "pickle" in row.capabilities else {**EXCLUDED, **EXCLUDED_IN_STORES}
    return {
        name: unittest.skip(reason)(getattr(mixin, name)) for name, reason in excluded.items() if hasattr(mixin, name)
    }


for _mixin in ("_TestPool", "_TestPoolWorkerErrors", "_TestPoolWorkerLifetime"):
    for _variant in VARIANTS if shipped is not None else ():
        _found = getattr(shipped, _mixin)
        _title = f"Test{_mixin.removeprefix('_Test')}_{_variant.name.replace('-', '_')}"
        globals()[_title] = type(
            _title, (WithPool, _found), {"row": _variant, "__module__": __name__, **_excluding(_found, _variant)}
        )


def test_cpython_tests_are_there() -> None:
    """CPython's tests were found and run; an interpreter without them says so here."""
    if shipped is None:
        pytest.skip(f"this Python ships without {PACKAGE}: CPython's own tests of Pool cannot be run")
    assert hasattr(shipped, "_TestPool")
