"""Values of every type that may travel, and the test of being the very same: equal, and of the same type throughout."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

Pair = namedtuple("Pair", ["left", "right"])  # noqa: PYI024 - the plain kind, as much code has it


class Colour(enum.Enum):
    """An enum of the user's."""

    RED = 1
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enum that passes for an int."""

    LOW = 1


class Name(str):
    """A str that is more than one."""

    __slots__ = ()


@dataclasses.dataclass
class Point:
    """A dataclass of the user's."""

    x: int
    y: Any = None


#: What every executor carries.
PORTABLE: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    127,
    128,
    2**31,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    -(2**63) - 1,
    10**400,
    0.0,
    -0.0,
    1.5,
    math.inf,
    -math.inf,
    math.nan,
    5e-324,
    "",
    "text",
    "\0 ünïcödé 🐍",
    b"",
    b"\0\xff",
    bytearray(b"changeable"),
    (),
    (1,),
    (1, (2, [3, (4,)])),
    [],
    [[], [[]]],
    {},
    {"a": 1, "b": [1, 2, (3,)]},
    {1: "int key", (1, 2): "tuple key", None: "none key", b"b": 0, 1.5: "float key"},
    {frozenset({1}): {1, 2}},
    set(),
    {1, "a", (2, 3)},
    frozenset(),
    frozenset({b"x", None}),
    1j,
    complex(-0.0, math.inf),
    Decimal("1.10"),
    Decimal("-0"),
    Decimal("Infinity"),
    datetime(2026, 11, 22, 12, 30, 1, 999_999, tzinfo=UTC),
    datetime(2026, 11, 22, 12, 30, 1, 5),  # noqa: DTZ001 - naive on purpose
    datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(1, 1, 1, tzinfo=UTC),
    date(2026, 11, 22),
    date.min,
    time(23, 59, 59, 999_999),
    time(1, 2, tzinfo=UTC),
    timedelta(days=-1, microseconds=1),
    timedelta.max,
    UUID(int=5),
    PurePosixPath("/etc/hosts"),
    "lone surrogate \ud800",
    {"caf\udce9": ["caf\udce9", ("\udce9",), {"\udcff"}], ("\udce9", 1): {"\udc80": None}},
]

#: What only an executor that pickles carries besides.
PICKLED: list[Any] = [
    Colour.RED,
    Level.LOW,
    Name("a name"),
    Point(1, [Point(2)]),
    Pair(1, (2,)),
    OrderedDict(b=1, a=2),
    Fraction(1, 3),
    range(5),
    slice(1, 2),
    ValueError("as a value"),
    int,
    len,
    memoryview,
    {"deep": [Point(1), {"colour": Colour.BLUE}]},
]


def same(left: Any, right: Any) -> bool:  # noqa: C901, PLR0911 - one answer for each kind of value
    """Return whether two values are equal and of the same types, NaN and the sign of zero included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (left == right and math.copysign(1, left) == math.copysign(1, right)) or (
            left != left and right != right
        )
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left), list(right)) and same(list(left.values()), list(right.values()))
    if isinstance(left, (set, frozenset)):
        return left == right and sorted(map(repr, left)) == sorted(map(repr, right))
    if isinstance(left, datetime):
        return bool(left == right and left.tzinfo == right.tzinfo and left.fold == right.fold)
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, Point):
        return same([left.x, left.y], [right.x, right.y])
    if isinstance(left, BaseException):
        return same(left.args, right.args)
    return bool(left == right)
