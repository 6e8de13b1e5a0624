"""Arguments and results: what goes in comes out equal and of the same type, or is refused with its path."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskq.errors import EncodeError
from tests.conftest import close, warm_up
from tests.sample_errors import return_cycle
from tests.sample_tasks import (
    add,
    capture,
    identity,
    make_thing,
    raise_odd_text,
    say_odd_texts,
    size_of,
    square,
    sum_here,
    zeros,
)
from tests.sample_values import PICKLED, PORTABLE, same
from tests.strategies import picklable, portable
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq import TaskQueue
    from tests.variants import Variant

#: Numpy takes its time to import: only the workers of these tests do.
WORKER_IMPORTS = ("tests.sample_arrays",)

#: A value of 10 MB.
BIG = 10_000_000


@pytest.fixture(scope="module")
def strict_queue(variant: Variant, nothing_left_by_module: None) -> Iterator[TaskQueue]:
    """Give a queue that refuses what a queue between machines could not carry."""
    queue = variant.open(strict=True)
    warm_up(queue)
    yield queue
    close(queue)


@pytest.fixture(params=["strict", "lenient"])
def either_queue(request: pytest.FixtureRequest, queue: TaskQueue, strict_queue: TaskQueue) -> TaskQueue:
    """Give a queue of either kind."""
    return strict_queue if request.param == "strict" else queue


def test_portable_values(either_queue: TaskQueue) -> None:
    """Values of every type that all executors carry come back the very same, one by one and in a map."""
    jobs = [either_queue.submit(identity, value) for value in PORTABLE]
    returned = [job.result(timeout=PATIENCE) for job in jobs]
    for value, got in zip(PORTABLE, returned, strict=True):
        assert same(value, got), f"{value!r} came back as {got!r}"
    for value, got in zip(PORTABLE, either_queue.map(identity, PORTABLE), strict=True):
        assert same(value, got), f"{value!r} came back from map as {got!r}"


def test_texts_that_are_not_unicode(queue: TaskQueue) -> None:
    """Names of files that are not UTF-8 travel in arguments, their names, results, keys, notes and exceptions."""
    text = os.fsdecode(b"caf\xe9")
    job = queue.submit(say_odd_texts, text, **{text: text})
    assert job.result(timeout=PATIENCE) == {text: [text, (text,), {text}, {text: text}]}
    assert job.meta == {text: text}
    assert "log caf" in job.logs()
    assert job.progress == (1, 2)
    error = queue.submit(raise_odd_text, text).exception(timeout=PATIENCE)
    assert isinstance(error, ValueError)
    assert error.args == (text, {text: 1})
    assert list(queue.map(identity, [text, {text: text}])) == [text, {text: text}]


def test_numpy_imported_by_the_task_only(variant: Variant, cleared: None) -> None:
    """An array goes to a task that imports numpy in its function, in a process that has not imported it before."""
    numpy = pytest.importorskip("numpy")
    with variant.open(strict=True) as queue:
        jobs = [queue.submit(sum_here, numpy.arange(number)) for number in range(4)]
        assert [job.result(timeout=PATIENCE) for job in jobs] == [0, 0, 1, 3]


@pytest.mark.needs("pickle", why="no message between machines may name a type to build")
def test_pickled_values(queue: TaskQueue) -> None:
    """Any other picklable value travels too, where the executor declares it."""
    jobs = [queue.submit(identity, value) for value in PICKLED]
    for value, job in zip(PICKLED, jobs, strict=True):
        got = job.result(timeout=PATIENCE)
        assert same(value, got), f"{value!r} came back as {got!r}"
    for value, got in zip(PICKLED, queue.map(identity, PICKLED), strict=True):
        assert same(value, got), f"{value!r} came back from map as {got!r}"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(values=st.lists(portable, max_size=6))
def test_any_portable_value(either_queue: TaskQueue, values: list[Any]) -> None:
    """Whatever is built from those types comes back the very same."""
    got = either_queue.submit(identity, values).result(timeout=PATIENCE)
    assert same(values, got), f"{values!r} came back as {got!r}"
    assert same(values, list(either_queue.map(identity, values)))


@pytest.mark.needs("pickle", why="no message between machines may name a type to build")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(values=st.lists(picklable, max_size=5), data=st.data())
def test_any_picklable_value(queue: TaskQueue, values: list[Any], data: st.DataObject) -> None:
    """Whatever can be pickled comes back the very same, as argument, as keyword, and in a map."""
    keyword = data.draw(picklable)
    args, kwargs = queue.submit(capture, *values, keyword=keyword).result(timeout=PATIENCE)
    assert same((tuple(values), {"keyword": keyword}), (args, kwargs))
    assert same(values, list(queue.imap(identity, values)))


def test_strict_refuses_arguments(strict_queue: TaskQueue) -> None:
    """A strict queue refuses an argument that only pickle could carry, with its path."""
    for value in PICKLED:
        with pytest.raises(EncodeError) as raised:
            strict_queue.submit(identity, [value])
        assert raised.value.path.startswith("args[0]")
    assert strict_queue.submit(square, 3).result(timeout=PATIENCE) == 9


def test_strict_refuses_results(strict_queue: TaskQueue) -> None:
    """On a strict queue a result that only pickle could carry fails its job, with its path."""
    error = strict_queue.submit(make_thing, 0).exception(timeout=PATIENCE)
    assert isinstance(error, EncodeError)
    assert error.path.startswith("result")
    results = list(strict_queue.imap(make_thing, range(3), return_exceptions=True))
    assert all(isinstance(result, EncodeError) for result in results)


def test_strict_refuses_cycles(strict_queue: TaskQueue) -> None:
    """On a strict queue a value that holds itself is refused, going in or coming out, and nothing breaks."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(EncodeError):
        strict_queue.submit(identity, cycle)
    assert isinstance(strict_queue.submit(return_cycle).exception(timeout=PATIENCE), EncodeError)
    assert strict_queue.submit(square, 3).result(timeout=PATIENCE) == 9


@pytest.mark.needs("pickle", why="no message between machines may name a type to build")
def test_cycles_travel_by_pickle(queue: TaskQueue) -> None:
    """Where values may be pickled, one that holds itself travels."""
    got = queue.submit(return_cycle).result(timeout=PATIENCE)
    assert got[0] is got


def test_too_deep_values(either_queue: TaskQueue) -> None:
    """A value nested too deeply is refused with an EncodeError, not a RecursionError, and nothing breaks."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(EncodeError):
        either_queue.submit(identity, deep)
    assert either_queue.submit(square, 3).result(timeout=PATIENCE) == 9
    while deep:  # taken apart by hand: freeing it in one go would recurse
        deep = deep.pop()


def test_big_argument(either_queue: TaskQueue) -> None:
    """An argument of 10 MB arrives whole."""
    data = os.urandom(1000) * (BIG // 1000)
    assert either_queue.submit(size_of, data).result(timeout=PATIENCE) == BIG
    assert either_queue.submit(identity, data).result(timeout=PATIENCE) == data


def test_big_result(either_queue: TaskQueue) -> None:
    """A result of 10 MB arrives whole, and small ones before and behind it too."""
    jobs = [either_queue.submit(zeros, size) for size in (1, BIG, 2, BIG, 3)]
    assert [len(job.result(timeout=PATIENCE)) for job in jobs] == [1, BIG, 2, BIG, 3]


def test_big_values_both_ways_at_once(queue: TaskQueue) -> None:
    """Many big arguments and results under way at once do not block each other for good."""
    data = bytes(4_000_000)
    jobs = [queue.submit(identity, data) for _ in range(10)]
    assert all(job.result(timeout=PATIENCE) == data for job in jobs)
    assert all(result == data for result in queue.map(identity, [data] * 10))


def test_many_middling_results(queue: TaskQueue) -> None:
    """Results of a few hundred KB, each larger than a pipe, come back whole in a map."""
    sizes = [100_000 + 1_000 * number for number in range(100)]
    assert [len(data) for data in queue.imap(zeros, sizes)] == sizes


def test_many_arguments(queue: TaskQueue) -> None:
    """A call may have very many arguments, positional and by keyword."""
    kwargs = {f"key{number}": number for number in range(500)}
    args, got = queue.submit(capture, *range(5_000), **kwargs).result(timeout=PATIENCE)
    assert args == tuple(range(5_000))
    assert got == kwargs


def test_arguments_are_taken_at_submit(queue: TaskQueue) -> None:
    """What is changed behind `submit` is not changed in the job."""
    value = [1, 2]
    jobs = [queue.submit(add, value, []) for _ in range(200)]
    value.append(3)
    assert [job.result(timeout=PATIENCE) for job in jobs] == [[1, 2]] * 200


def test_results_are_fresh(queue: TaskQueue) -> None:
    """Two equal jobs give two results: changing one leaves the other alone."""
    one, two = (queue.submit(add, [1], [2]).result(timeout=PATIENCE) for _ in range(2))
    one.append(3)
    assert two == [1, 2]


def test_numpy_arrays(either_queue: TaskQueue) -> None:
    """Numpy arrays come back equal, with their shape and type, from tasks that use numpy."""
    numpy = pytest.importorskip("numpy")
    arrays = pytest.importorskip("tests.sample_arrays")
    for array in (numpy.arange(12, dtype="int16").reshape(3, 4), numpy.zeros((0, 2)), numpy.ones(3, dtype=bool)):
        got = either_queue.submit(arrays.doubled, array).result(timeout=PATIENCE)
        assert (got.dtype, got.shape) == ((array * 2).dtype, array.shape)
        assert (got == array * 2).all()
