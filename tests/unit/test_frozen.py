"""Frozen: the frozen values of the start path."""

from __future__ import annotations

import copy
import pickle

import pytest

from taskq.frozen import Frozen


class Point(Frozen):
    """A frozen class for these tests."""

    x: int
    y: int = 0

    def check(self) -> None:
        """Refuse a negative place."""
        if self.x < 0:
            raise ValueError("x is negative")


def test_fields_and_defaults() -> None:
    """Fields come by name, in the order of the class, and have its defaults."""
    assert (Point(x=1).x, Point(x=1).y, Point(x=1, y=2).y) == (1, 0, 2)
    assert Point.field_names() == ("x", "y")
    assert repr(Point(y=5, x=1)) == "Point(x=1, y=5)"


def test_equal_by_content() -> None:
    """Records are equal, and have one hash, when their fields are equal; other classes are never equal."""
    assert Point(x=1) == Point(x=1, y=0)
    assert len({Point(x=1), Point(y=0, x=1), Point(x=2)}) == 2
    assert Point(x=1) != (1, 0)


def test_frozen_and_copied() -> None:
    """A frozen value cannot be changed; `changed` makes another one, and copies and pickles are equal."""
    point = Point(x=1)
    with pytest.raises(AttributeError, match="cannot be changed"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del point.x
    assert (point.changed(y=3), point) == (Point(x=1, y=3), Point(x=1))
    assert pickle.loads(pickle.dumps(point)) == copy.deepcopy(point) == point  # noqa: S301  # our own bytes


@pytest.mark.parametrize(
    ("values", "words"), [({}, r"missing fields \['x'\]"), ({"x": 1, "z": 2}, r"unknown fields \['z'\]")]
)
def test_misfits(values: dict[str, int], words: str) -> None:
    """A missing or unknown field is named."""
    with pytest.raises(TypeError, match=words):
        Point(**values)


def test_checked_however_made() -> None:
    """`check` sees new values and changed ones."""
    with pytest.raises(ValueError, match="negative"):
        Point(x=-1)
    with pytest.raises(ValueError, match="negative"):
        Point(x=1).changed(x=-1)
