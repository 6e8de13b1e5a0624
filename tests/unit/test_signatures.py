"""Calls that functions take: exactly those that Python itself would let through."""

from __future__ import annotations

import functools
import inspect
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.errors import TaskRefused
from taskq.signatures import check, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable


def plain(left: int, right: int = 2) -> None:
    """Take one or two."""


def mixed(first: int, /, second: int, *, third: int, fourth: int = 4) -> None:
    """Take some by place only, some by name only."""


def anything(*args: int, **named: int) -> None:
    """Take all."""


def named_rest(left: int, /, **rest: int) -> None:
    """Take the name of what comes by place once more."""


@functools.wraps(plain)
def injected(right: int) -> None:
    """Wrap another one, with an argument less."""


FUNCTIONS = (plain, mixed, anything, named_rest, injected)
NAMES = ("left", "right", "first", "second", "third", "fourth", "other")


@given(st.sampled_from(FUNCTIONS), st.integers(0, 4), st.sets(st.sampled_from(NAMES), max_size=4))
def test_takes_what_python_takes(fn: Callable[..., Any], count: int, names: set[str]) -> None:
    """A call is refused exactly when the function itself would refuse it, and what is let through is remembered."""
    args, kwargs = tuple(range(count)), dict.fromkeys(sorted(names), 0)
    shapes: set[Any] = set()
    try:
        inspect.signature(fn, follow_wrapped=False).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TaskRefused, match=r"m:f takes \("):
            check(shapes, "m:f", fn, args, kwargs)
        assert not shapes
    else:
        check(shapes, "m:f", fn, args, kwargs)
        assert shapes == {shape_of(args, kwargs)}


@pytest.mark.parametrize("fn", [math.hypot, dict, functools.lru_cache(plain), functools.partial(plain, 1)])
def test_takes_what_it_does_not_know(fn: Callable[..., Any]) -> None:
    """Of what is no plain function nothing is said beforehand."""
    check(set(), "m:f", fn, (1, 2, 3, 4), {})


def test_shapes_are_bounded() -> None:
    """Keywords without end fill no memory."""
    shapes: set[Any] = set()
    for number in range(1000):
        check(shapes, "m:f", anything, (), {f"n{number}": 1})
    assert len(shapes) < 300
