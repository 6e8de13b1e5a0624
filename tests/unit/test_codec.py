"""The codec: what goes in comes out, equal and of the same type; and the bytes of the stable format."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.codec import MAX_DEPTH, WIRE_VERSION, decode, encode
from taskq.codec.encoding import _encode_carefully
from taskq.codec.wire import FIRST_RESERVED, Code
from tests.sample_values import PORTABLE, same
from tests.strategies import portable


#: For own messages, and for those that any reader takes.
def name(value: object) -> str:
    """Name a value the same in every process, where sets have other orders."""
    return repr(sorted(value, key=repr) if isinstance(value, set | frozenset) else value)[:40]


BOTH = pytest.mark.parametrize("max_depth", [None, MAX_DEPTH], ids=["own", "foreign"])

OFFSET = timezone(timedelta(hours=-5, minutes=-30, microseconds=1), "home")

MORE: list[Any] = [
    Decimal("sNaN12"),
    Decimal("1E+999999"),
    [1, 2.5, 3, -0.0],
    [196, bytearray(b"x")],
    {"deep": [(bytearray(b"x"), {1: bytearray()})]},
    {(1, frozenset({(2, b"x")})): {1, (2,)}, UUID(int=1): 0, date(2026, 1, 1): 1, Decimal(1): 2},
    datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001 - naive on purpose
    datetime.max.replace(tzinfo=OFFSET),
    time(2, 30, tzinfo=ZoneInfo("Asia/Kolkata"), fold=1),
    Path("a/ü"),
    Path("not utf-8 \udcff"),
    PurePosixPath("//net/x"),
    PureWindowsPath("c:/x"),
    msgpack.ExtType(5, b"a user's own"),
    msgpack.Timestamp(5, 7),
    [[[]] * 40, [()] * 40],
    -(2**71),
    2**71 - 1,
    b"x" * 70_000,
    "x" * 70_000,
    list(range(70_000)),
    [float(number) for number in range(300)],
    [{"id": number, "ok": True, "score": number / 7} for number in range(300)],
]


@BOTH
@pytest.mark.parametrize("value", [*PORTABLE, *MORE], ids=name)
def test_samples_come_back_the_same(value: Any, max_depth: int | None) -> None:
    """A value of every type that travels comes back equal and of the same type, alone and in a list."""
    assert same(value, decode(encode(value, max_depth=max_depth), max_depth=max_depth))
    assert same([value, value], decode(encode([value, value], max_depth=max_depth), max_depth=max_depth))


zoned = st.timezones() | st.builds(
    timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.text("abcXYZ+-", min_size=1)
)
values = st.recursive(
    portable
    | st.datetimes(timezones=zoned)
    | st.times(timezones=zoned)
    | st.decimals(allow_nan=True)
    | st.binary().map(bytearray)
    | st.integers(-(2**200), 2**200),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=9), inner, max_size=4)
    ),
    max_leaves=20,
)


@BOTH
@given(value=values)
def test_any_value_comes_back_the_same(value: Any, max_depth: int | None) -> None:
    """Whatever is built from those types comes back the very same."""
    assert same(value, decode(encode(value, max_depth=max_depth), max_depth=max_depth))


@given(value=values)
def test_the_careful_way_writes_the_same_bytes(value: Any) -> None:
    """The quick and the careful way to encode agree to the byte."""
    assert _encode_carefully(value, None, "value") == encode(value, max_depth=None)


@given(value=values)
def test_the_message_is_plain_msgpack(value: Any) -> None:
    """Any msgpack library can read the message; types that it lacks appear as its extension types."""
    msgpack.unpackb(encode(value), strict_map_key=False, object_pairs_hook=list, use_list=False)


@given(numbers=st.lists(st.integers() | st.floats() | st.booleans() | st.binary(max_size=2).map(bytearray)))
def test_numbers_among_buffers(numbers: list[Any]) -> None:
    """The short cut for lists of numbers does not let a bytearray slip through as bytes."""
    assert same(numbers, decode(encode(numbers, max_depth=None)))


@given(data=st.binary())
def test_memoryview_of_message(data: bytes) -> None:
    """A message may be read where it stands, without a copy."""
    frame = b"head" + encode(data) + b"tail"
    assert decode(memoryview(frame)[4:-4]) == data
    assert decode(bytearray(encode([data]))) == [data]


def test_zones_keep_what_makes_them() -> None:
    """A time zone comes back as the same kind, with its name: sums over clock changes come out right."""
    summer = datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    back = decode(encode(summer))
    assert type(back.tzinfo) is ZoneInfo
    assert (back + timedelta(days=180)).utcoffset() == timedelta(hours=1)
    assert decode(encode(datetime(2026, 1, 1, tzinfo=UTC))).tzinfo is UTC
    assert decode(encode(time(1, tzinfo=OFFSET))).tzname() == "home"
    assert decode(encode(time(1, tzinfo=timezone(timedelta(0), "")))).tzname() == ""


def test_nan_keys_stay_apart() -> None:
    """Two NaN keys are two keys, in a dict and in a set."""
    assert len(decode(encode({math.nan: 1, float("nan"): 2}))) == 2
    assert len(decode(encode({math.nan, float("nan")}))) == 2


def test_order_of_keys_stays() -> None:
    """A dict's keys come back in their order."""
    assert list(decode(encode({"b": 1, "a": 2, "c": 3}))) == ["b", "a", "c"]


def test_changes_do_not_reach_the_original() -> None:
    """Decoded values are new ones: lists, bytearrays and dicts of their own."""
    value = [bytearray(b"x"), {"a": []}]
    back = decode(encode(value))
    back[0] += b"y"
    back[1]["a"].append(1)
    assert value == [bytearray(b"x"), {"a": []}]


GOLDEN: list[tuple[Any, str]] = [
    (None, "c0"),
    ([True, 1, -1, 1.5, "ü", b"\xff"], "96c301ffcb3ff8000000000000a2c3bcc401ff"),
    ({"a": [1]}, "81a16191" + "01"),
    (2**64 - 1, "cfffffffffffffffff"),
    ((), "91c70060"),
    ((1, "a"), "93c7006001a161"),
    ({7}, "92c7006107"),
    (frozenset({7}), "92c7006207"),
    ([(1,), {(2,): ()}], "9292c700600181" + "92c7006002" + "91c70060"),
    (bytearray(b"ab"), "d5646162"),
    (2**64, "c70965010000000000000000"),
    (-(2**63) - 1, "c70965ff7fffffffffffffff"),
    (1 + 2j, "d8663ff00000000000004000000000000000"),
    (Decimal("1.50"), "d667312e3530"),
    (UUID(int=5), "d86800000000000000000000000000000005"),
    (Path("a/b"), "d66900612f62"),
    (PurePosixPath("a"), "d5690161"),
    (PureWindowsPath("c:/x"), "c7056902633a5c78"),
    (datetime(2026, 11, 22, 1, 2, 3, 4), "c70c6a07ea0b160102030000000400"),  # noqa: DTZ001 - naive
    (datetime(2026, 11, 22, 1, 2, 3, 4, fold=1), "c70c6a07ea0b160102030000000401"),  # noqa: DTZ001 - naive
    (datetime(2026, 11, 22, tzinfo=UTC), "c7146a07ea0b1600000000000000020000000000000000"),
    (
        datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1), "x")),
        "c7156a07ea010200000000000000" + "0400000000d693a40078",
    ),
    (
        datetime(2026, 1, 2, tzinfo=ZoneInfo("Asia/Kolkata")),
        "c7186a07ea010200000000000000" + "06417369612f4b6f6c6b617461",
    ),
    (date(2026, 11, 22), "d66b000b4a66"),
    (time(1, 2, 3, 4), "d76c0102030000000400"),
    (timedelta(days=-1, microseconds=5), "c70c6dffffffff0000000000000005"),
    (msgpack.ExtType(5, b"x"), "d40578"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "hexadecimal"), GOLDEN, ids=[name(value) for value, _ in GOLDEN])
def test_golden_bytes(value: Any, hexadecimal: str) -> None:
    """The bytes of version 1 are pinned: what is stored today is read by every later version, and back."""
    assert encode(value).hex() == hexadecimal
    assert same(decode(bytes.fromhex(hexadecimal)), value)


def test_golden_codes() -> None:
    """No code changes its meaning, and new ones raise the version."""
    assert WIRE_VERSION == 3
    assert {code.name: code.value for code in Code} == {
        "TUPLE": 96, "SET": 97, "FROZENSET": 98, "REGISTERED": 99, "BYTEARRAY": 100, "BIG_INT": 101,
        "COMPLEX": 102, "DECIMAL": 103, "UUID": 104, "PATH": 105, "DATETIME": 106, "DATE": 107, "TIME": 108,
        "TIMEDELTA": 109, "ARRAY": 110, "ARRAY_SCALAR": 111, "JOB_REF": 112, "ODD_TEXT": 113,
    }  # fmt: skip
    assert min(Code) == FIRST_RESERVED


def test_many_threads() -> None:
    """Threads that encode at the same time, through Python hooks, do not disturb each other."""
    failures: list[Any] = []

    def work(seed: int) -> None:
        value = [(seed, number, {seed: Decimal(number)}, bytearray(b"x")) for number in range(50)]
        data = encode(value)
        failures.extend(1 for _ in range(40) if encode(value) != data or not same(decode(data), value))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    finally:
        sys.setswitchinterval(before)
    assert not failures


def test_loads_no_module_that_few_need() -> None:
    """Importing the codec loads none of the modules whose types it only knows when they are there."""
    program = (
        "import sys; before = set(sys.modules); import taskq.codec; new = set(sys.modules) - before;"
        "print(*sorted(new & {'decimal', 'uuid', 'pathlib', 'zoneinfo', 'numpy', 'pickle'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
