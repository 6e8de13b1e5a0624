"""What the codec refuses to encode, and the path to the part that is to blame."""

from __future__ import annotations

import enum
import io
from collections import OrderedDict, defaultdict, deque
from datetime import datetime, timedelta, timezone, tzinfo
from fractions import Fraction
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no types
import pytest

from taskq.codec import MAX_DEPTH, decode, encode
from taskq.errors import EncodeError
from tests.sample_values import PICKLED, Colour, Level, Name, Point


class Local(tzinfo):
    """A time zone of the user's."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, when: datetime | None) -> None: ...

    def tzname(self, when: datetime | None) -> None: ...


class Right(enum.IntFlag):
    """A flag of the user's."""

    READ = 1
    WRITE = 2


class Number(int):
    """An int that is more than one."""


def nested(depth: int) -> list[Any]:
    """Return lists within lists."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


REFUSED: list[tuple[Any, str]] = [
    (object(), "object of type object: pass plain data"),
    (lambda: None, "object of type function"),
    (len, "object of type builtin_function_or_method"),
    (int, "object of type type"),
    (io.BytesIO(), "object of type _io.BytesIO"),
    ((number for number in range(3)), "object of type generator"),
    (Fraction(1, 3), "object of type fractions.Fraction"),
    (range(3), "object of type range"),
    (deque([1]), "object of type collections.deque"),
    (memoryview(b"x"), "pass bytes(view)"),
    (Name("x"), "Name is a subclass of str and would come out as a plain one: pass str(value)"),
    (Number(5), "Number is a subclass of int"),
    (Level.LOW, "the enum tests.sample_values.Level is not registered: call taskq.codec.register(Level)"),
    (Colour.RED, "the enum tests.sample_values.Colour is not registered"),
    (Point(1), "the dataclass tests.sample_values.Point is not registered: put @taskq.codec.register on it"),
    (OrderedDict(a=1), "collections.OrderedDict is a subclass of dict"),
    (defaultdict(list), "collections.defaultdict is a subclass of dict"),
    (Right.READ | Right.WRITE, "Right is not registered"),
    (
        datetime(2026, 1, 1, tzinfo=Local()),
        "its tzinfo, a tests.unit.test_codec_refusals.Local, cannot travel",
    ),
    (datetime(2026, 1, 1, tzinfo=timezone(timedelta(0), "x" * 300)), "longer than 255 bytes"),
]

IDS = [type(value).__name__ for value, _ in REFUSED]


@pytest.mark.parametrize("max_depth", [None, MAX_DEPTH], ids=["own", "foreign"])
@pytest.mark.parametrize(("value", "why"), REFUSED, ids=IDS)
def test_refused_alone(value: Any, why: str, max_depth: int | None) -> None:
    """What cannot travel is refused with the reason and the cure."""
    with pytest.raises(EncodeError) as refusal:
        encode(value, max_depth=max_depth)
    assert why in str(refusal.value)
    assert refusal.value.path.startswith("value")


@pytest.mark.parametrize("value", PICKLED, ids=repr)
def test_what_only_pickle_carries_is_refused(value: Any) -> None:
    """Every sample that needs pickle is refused: it never comes out as something else."""
    with pytest.raises(EncodeError):
        encode(value)


PLACES: list[tuple[Any, str]] = [
    ([1, [2, object()]], "args[1][1]"),
    ([0, {"when": object()}], "args[1]['when']"),
    ((1, (2, object())), "args[1][1]"),
    ({"a": {5: [object()]}}, "args['a'][5][0]"),
    ({"a" * 100: object()}, f"args['{'a' * 39}...]"),
    ({(1, 2): object()}, "args[<tuple>]"),
    ({1, "two", Name("x")}, "args.item(<Name>)"),
    (frozenset({5, (6, Level.LOW)}), "args.item(<tuple>)[1]"),
    ({Level.LOW: 1}, "args.key(<Level>)"),
    ({(1, Level.LOW): 1}, "args.key(<tuple>)[1]"),
    ({memoryview(b"x"): 1}, "args.key(<memoryview>)"),
    ([bytearray(b"x"), {"a": memoryview(b"x")}], "args[1]['a']"),
    ([2**70, -1, 1.5, "x", b"x", (), memoryview(b"")], "args[6]"),
    ([[1, 2, 3], [4, 5, Number(6)]], "args[1][2]"),
]


@pytest.mark.parametrize(("value", "path"), PLACES, ids=[path for _, path in PLACES])
def test_path_to_the_bad_part(value: Any, path: str) -> None:
    """The error leads to the part that is to blame, through lists, tuples, dicts, their keys, and sets."""
    for max_depth in (None, MAX_DEPTH):
        with pytest.raises(EncodeError) as refusal:
            encode(value, max_depth=max_depth, root="args")
        assert refusal.value.path == path


def test_memoryview_is_found_where_msgpack_would_take_it() -> None:
    """A memoryview is refused wherever it hides, also where msgpack itself would pack it as bytes."""
    view = memoryview(b"x")
    for value in (view, [view], {"a": view}, {view: 1}, (view,), [[[view]]], {"a": [1, (2, {"b": view})]}):
        with pytest.raises(EncodeError, match="memoryview"):
            encode(value, max_depth=None)


@pytest.mark.parametrize("value", [msgpack.ExtType(96, b""), [{"a": msgpack.ExtType(127, b"x")}]], ids=repr)
def test_extensions_of_ours_cannot_be_forged(value: Any) -> None:
    """An extension type with a code of taskq's own is refused: it would come out as something else."""
    with pytest.raises(EncodeError, match=r"the codes of a msgpack.ExtType end at 95"):
        encode(value)


def test_depth() -> None:
    """A value may be as deep as a reader of foreign bytes allows, and no deeper; own messages may."""
    assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(EncodeError, match=f"it is nested deeper than {MAX_DEPTH} levels") as refusal:
        encode(nested(MAX_DEPTH + 1))
    assert "..." in refusal.value.path
    assert decode(encode(nested(200), max_depth=None), max_depth=None) == nested(200)


@pytest.mark.parametrize("max_depth", [None, MAX_DEPTH], ids=["own", "foreign"])
@pytest.mark.parametrize("depth", [600, 2000, 20_000])
def test_bottomless_values(depth: int, max_depth: int | None) -> None:
    """A value nested far too deeply is refused with an EncodeError, never a RecursionError or a crash."""
    value = nested(depth)
    try:
        data = encode(value, max_depth=max_depth)
    except EncodeError:
        pass
    else:
        assert max_depth is None
        assert decode(data, max_depth=None) == value
    while value:  # taken apart by hand: freeing it in one go would recurse
        value = value.pop()


def test_cycles() -> None:
    """A value that contains itself is refused, with the path to where it does."""
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    for max_depth in (None, MAX_DEPTH):
        with pytest.raises(EncodeError, match="it contains itself") as refusal:
            encode(cycle, max_depth=max_depth)
        assert refusal.value.path == "value[1]['again']"


def test_repeated_parts_are_no_cycle() -> None:
    """The same list twice in a value is fine, and becomes two."""
    part = [bytearray(b"x")]
    back = decode(encode([part, part, {"a": part}]))
    assert back == [part, part, {"a": part}]
    assert back[0] is not back[1]


def test_size_limit() -> None:
    """A message above the limit is refused with both sizes and the cure; one at the limit passes."""
    assert len(encode("x" * 98, limit=100)) == 100
    with pytest.raises(EncodeError, match=r"args: it takes 1,003 bytes, above the limit of 100: pass a path"):
        encode("x" * 1000, limit=100, root="args")


def test_crowded_values_are_refused_at_once() -> None:
    """A value that readers would refuse for its million empty lists is refused here already."""
    crowd: list[Any] = [[] for _ in range(300_000)]
    with pytest.raises(EncodeError, match="too many containers"):
        encode(crowd)
    assert decode(encode(crowd, max_depth=None), max_depth=None) == crowd


def test_errors_leave_nothing_behind() -> None:
    """After a refusal the next value is encoded as if nothing had been."""
    good = [(1, {"a": bytearray(b"x")})]
    expected = encode(good)
    for value, _ in REFUSED:
        with pytest.raises(EncodeError):
            encode([good, value])
        assert encode(good) == expected
