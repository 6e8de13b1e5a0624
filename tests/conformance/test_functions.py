"""What may be submitted: functions of every kind, and those that are refused, with the reason and the cure."""

from __future__ import annotations

import functools
import math
import operator
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import TaskRefused
from tests.sample_tasks import (
    Arithmetic,
    add,
    add_slowly,
    decorated,
    fail_slowly,
    lambda_at_top,
    make_closure,
    running_loop,
    square,
)
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import TaskQueue

GOOD: list[tuple[Any, tuple[Any, ...], Any]] = [
    (square, (3,), 9),
    (abs, (-3,), 3),
    (math.gcd, (12, 18), 6),
    (operator.add, (1, 2), 3),
    (str.upper, ("a",), "A"),
    (int, ("12",), 12),
    (dict.fromkeys, ("ab",), {"a": None, "b": None}),
    (Arithmetic.doubled, (4,), 8),
    (Arithmetic.tripled, (4,), 12),
    (decorated, (4,), 5),
    (add_slowly, (2, 3), 5),
    (functools.partial(add, 10), (5,), 15),
    (functools.partial(add, right=10), (5,), 15),
    (functools.partial(functools.partial(pow, 2), 5), (), 32),
    (functools.partial(add_slowly, 1), (2,), 3),
    (functools.partial(Arithmetic.tripled), (4,), 12),
]

PICKLED: list[tuple[Any, tuple[Any, ...], Any]] = [
    (Arithmetic(7).shifted, (1,), 8),
    (Arithmetic(7), (10,), 3),
    ("abc".upper, (), "ABC"),
    (operator.itemgetter(1), ([5, 6],), 6),
    (operator.attrgetter("offset"), (Arithmetic(9),), 9),
]


def name(case: Any) -> str | None:
    """Name a case by its function."""
    return getattr(case, "__qualname__", None) or type(case).__name__ if callable(case) else None


@pytest.mark.parametrize(("fn", "args", "expected"), GOOD, ids=name)
def test_good_function(queue: TaskQueue, fn: Callable[..., Any], args: tuple[Any, ...], expected: Any) -> None:
    """Whatever can be imported by its name runs, through `submit` and through `map`."""
    assert queue.submit(fn, *args).result(timeout=PATIENCE) == expected
    if args:
        assert list(queue.map(fn, *([arg] * 3 for arg in args))) == [expected] * 3


@pytest.mark.needs("pickle", why="no message between machines may name a type to build")
@pytest.mark.parametrize(("fn", "args", "expected"), PICKLED, ids=name)
def test_pickled_callable(queue: TaskQueue, fn: Callable[..., Any], args: tuple[Any, ...], expected: Any) -> None:
    """Bound methods and callable objects run where values may be pickled."""
    assert queue.submit(fn, *args).result(timeout=PATIENCE) == expected
    if args:
        assert list(queue.map(fn, *([arg] * 3 for arg in args))) == [expected] * 3


@pytest.mark.parametrize("way", ["submit", "map", "imap", "imap_unordered", "starmap", "submit_many"])
@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda: 1, "lambda"),
        (lambda_at_top, "lambda"),
        (make_closure(), "function"),
        (functools.partial(lambda: 1), "lambda"),
    ],
    ids=["lambda", "lambda-at-top", "closure", "partial-of-lambda"],
)
def test_refused_function(queue: TaskQueue, way: str, fn: Callable[..., Any], why: str) -> None:
    """Lambdas and closures are refused at once, whatever the way; the message says why and what to do."""
    arguments = {"submit": (), "submit_many": ([()],), "starmap": ([()],)}.get(way, ([1],))
    with pytest.raises(TaskRefused, match=why) as raised:
        getattr(queue, way)(fn, *arguments)
    assert "top level" in str(raised.value)
    assert issubclass(TaskRefused, TypeError)


@pytest.mark.parametrize("thing", [None, 5, "tests.sample_tasks:square", [square]])
def test_not_callable(queue: TaskQueue, thing: Any) -> None:
    """What cannot be called is refused at once with a TypeError."""
    with pytest.raises(TypeError):
        queue.submit(thing)


def test_shadowed_name(queue: TaskQueue) -> None:
    """A function whose name now leads to another one is refused: the child would run the wrong one."""

    def impostor(number: int) -> int:
        return -number

    impostor.__module__, impostor.__qualname__, impostor.__name__ = square.__module__, "square", "square"
    with pytest.raises(TaskRefused, match="square"):
        queue.submit(impostor, 3)


def test_the_queue_survives_refusals(queue: TaskQueue) -> None:
    """After refusals the queue works as before."""
    for _ in range(20):
        with pytest.raises(TaskRefused):
            queue.submit(lambda: 1)
    assert queue.submit(square, 5).result(timeout=PATIENCE) == 25


def test_async_error(queue: TaskQueue) -> None:
    """What a coroutine raises, the job raises."""
    job = queue.submit(fail_slowly, "in the loop")
    with pytest.raises(ValueError, match="in the loop"):
        job.result(timeout=PATIENCE)


def test_async_runs_on_a_loop(queue: TaskQueue) -> None:
    """An `async def` task runs on an event loop, also many times in one process, and in a map."""
    loops = {queue.submit(running_loop).result(timeout=PATIENCE) for _ in range(5)}
    assert all("Loop" in found for found in loops)
    sums: list[Any] = list(queue.map(add_slowly, range(100), range(100)))
    assert sums == [2 * number for number in range(100)]


def test_wrong_arguments(queue: TaskQueue) -> None:
    """A call that does not fit the function is a TypeError at the submit, as a direct call's would be."""
    with pytest.raises(TypeError, match="square"):
        queue.submit(square)  # type: ignore[call-overload]
    assert queue.submit(square, 2).result(timeout=PATIENCE) == 4
