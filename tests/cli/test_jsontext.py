"""Results as JSON: as json.dumps where JSON has a word, the next best thing, or refused with the place."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from taskq.cli.jsontext import Unwritable, to_json, to_text
from tests.cli.test_arguments import JSON_VALUES


class Colour(enum.Enum):
    """An enum."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum that is a number."""

    HIGH = 3


@dataclasses.dataclass
class Point:
    """A dataclass with something in it that JSON has no word for."""

    x: int
    tags: set[str]


Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024 - the plain kind is the point


class Opaque:
    """Something JSON cannot carry."""


@given(JSON_VALUES)
def test_what_json_can_say_comes_back_equal(value: Any) -> None:
    """One line, valid UTF-8, and the same value when read again."""
    data = to_json(value)
    assert b"\n" not in data
    assert json.loads(data) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ä", '"ä"'),
        ((1, 2), "[1, 2]"),
        (Pair(1, 2), "[1, 2]"),
        ({3, 1, 2}, "[1, 2, 3]"),
        (frozenset({"a"}), '["a"]'),
        ({1: None, False: "x"}, '{"1": null, "false": "x"}'),
        (dt.datetime(2030, 1, 31, 12, 0, tzinfo=dt.UTC), '"2030-01-31T12:00:00+00:00"'),
        (dt.date(2030, 1, 31), '"2030-01-31"'),
        (dt.time(12, 30), '"12:30:00"'),
        (dt.timedelta(minutes=1.5), "90.0"),
        (decimal.Decimal("1.10"), '"1.10"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (pathlib.Path("/a/b"), '"/a/b"'),
        (Colour.RED, '"red"'),
        (Level.HIGH, "3"),
        (Point(1, {"t"}), '{"x": 1, "tags": ["t"]}'),
        (np.float32(1.5), "1.5"),
        (np.int64(7), "7"),
        (np.arange(4).reshape(2, 2), "[[0, 1], [2, 3]]"),
    ],
)
def test_the_next_best_thing(value: object, text: str) -> None:
    """Common types have a natural form, documented on `to_json`."""
    assert to_text(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"x", "result is of type bytes, which JSON cannot carry: return text"),
        ({"a": [1, {"b": b"x"}]}, r"result\['a'\]\[1\]\['b'\] is of type bytes"),
        ([float("nan")], r"result\[0\] is nan, which JSON has no word for"),
        ({"x": {"y": float("-inf")}}, r"result\['x'\]\['y'\] is -inf"),
        (np.array([1.0, np.inf]), r"result\[1\] is inf"),
        ({(1, 2): 3}, r"result has a key that is no text: \(1, 2\)"),
        (Point(1, {b"x"}), r"result\['tags'\]\[0\] is of type bytes"),  # type: ignore[arg-type]
        (Opaque(), "of type Opaque"),
        (iter([1]), "of type list_iterator"),
        (2j, "of type complex"),
    ],
)
def test_the_rest_is_refused_with_its_place(value: object, message: str) -> None:
    """The innermost part that is to blame is named."""
    with pytest.raises(Unwritable, match=message):
        to_text(value)


def test_cycles_and_depth_are_refused() -> None:
    """Neither a value that contains itself nor an endless nest is a crash."""
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(Unwritable, match="contains itself"):
        to_text(cycle)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Unwritable, match="nested too deeply"):
        to_text(deep)


def test_a_lone_surrogate_is_escaped() -> None:
    """Text that UTF-8 cannot hold still makes valid JSON."""
    assert to_json("\ud800") == b'"\\ud800"'
    assert to_json({"a": {"\ud800"}}) == b'{"a": ["\\ud800"]}'


def test_arrays_of_nothing() -> None:
    """An array without elements whose shape alone would fill the memory is refused with its place."""
    assert to_text(np.empty((2, 0))) == "[[], []]"
    assert to_text(np.empty((0, 2**40))) == "[]"
    with pytest.raises(Unwritable, match=r"result\[0\] is of type ndarray"):
        to_text([np.empty((2**40, 0))])
