"""Bytes that nobody should have sent: read or refused with DecodeError, in bounded time and memory.

Time is not asserted: what would take more than linear time here would take hours, and the test's limit is a
minute. `bench` of the codec has the figures.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import ExtType, packb  # type: ignore[import-untyped]  # it ships no types

from taskq.codec import MAX_DEPTH, decode, encode
from taskq.codec.wire import Code
from taskq.errors import DecodeError
from tests.sample_values import same
from tests.strategies import portable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MIB = 1 << 20

#: All hashes of integers are taken modulo this prime.
PRIME = 2**61 - 1

TUPLE, SET = packb(ExtType(Code.TUPLE, b"")), packb(ExtType(Code.SET, b""))


def read(data: bytes, max_depth: int | None = MAX_DEPTH) -> Any:
    """Decode, or return None where the bytes are refused as they should be."""
    try:
        return decode(data, max_depth=max_depth)
    except DecodeError:
        return None


def array(items: list[bytes]) -> bytes:
    """Return an array of items that are packed already."""
    return b"\xdd" + struct.pack(">I", len(items)) + b"".join(items)


def flood(item: bytes) -> bytes:
    """Return a mebibyte of an array of the same item."""
    return array([item] * ((MIB - 5) // len(item)))


def mapping(keys: Iterable[bytes]) -> bytes:
    """Return a map of keys that are packed already, to nil."""
    packed = list(keys)
    return b"\xdf" + struct.pack(">I", len(packed)) + b"".join(key + b"\xc0" for key in packed)


def extension(code: int, payload: bytes) -> bytes:
    """Return one extension."""
    return bytes(packb(ExtType(code, payload)))


@pytest.mark.parametrize("max_depth", [None, MAX_DEPTH], ids=["own", "foreign"])
@given(data=st.binary(max_size=300))
def test_random_bytes(data: bytes, max_depth: int | None) -> None:
    """Random bytes raise DecodeError or are a value; nothing else happens."""
    read(data, max_depth)


@given(value=portable, data=st.data())
def test_damaged_messages(value: Any, data: st.DataObject) -> None:
    """A message with bytes changed, cut or put in raises DecodeError, or is a value that can be encoded."""
    message = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(message)))
        message[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    back = read(bytes(message))
    assert same(back, decode(encode(back)))
    read(bytes(message), None)


@given(
    code=st.integers(0, 127),
    payload=st.binary(max_size=40),
    items=st.lists(st.integers() | st.text(), max_size=4),
)
def test_any_extension(code: int, payload: bytes, items: list[Any]) -> None:
    """Any payload under any code, as a leaf or as a head, raises DecodeError or is a value."""
    leaf = extension(code, payload)
    for message in (leaf, array([leaf, *map(encode, items)]), mapping([leaf])):
        back = read(message)
        assert same(back, decode(encode(back)))


#: Made only by the test that sends it: every process collects this module.
ATTACKS: dict[str, Callable[[], bytes]] = {
    "empty arrays": lambda: flood(b"\x90"),
    "empty maps": lambda: flood(b"\x80"),
    "arrays in arrays": lambda: flood(b"\x91\x90"),
    "maps in maps": lambda: flood(b"\x81\xc0\x80"),
    "headers of huge arrays": lambda: b"\xdd\xff\xff\xff\xff" * (MIB // 5),
    "headers of huge maps": lambda: b"\xdf\xff\xff\xff\xff" * (MIB // 5),
    "nested arrays that claim all": lambda: (b"\xdd" + struct.pack(">I", MIB)) * 1000 + b"\xc0" * (MIB - 5000),
    "huge bytes": lambda: b"\xc6\xff\xff\xff\xff",
    "huge text": lambda: b"\xdb\xff\xff\xff\xff",
    "huge extension": lambda: b"\xc9\xff\xff\xff\xff\x64",
    "bottomless arrays": lambda: b"\x91" * MIB,
    "bottomless maps": lambda: b"\x81\xc0" * (MIB // 2),
    "bottomless tuples": lambda: (b"\x92" + TUPLE) * (MIB // 4),
    "a thousand levels": lambda: b"\x91" * 1000 + b"\xc0",
    "empty sets": lambda: flood(b"\x91" + SET),
    "empty tuples": lambda: flood(b"\x91" + TUPLE),
    "heads without arrays": lambda: flood(TUPLE),
    "decimals": lambda: flood(extension(Code.DECIMAL, b"1")),
    "paths": lambda: flood(extension(Code.PATH, b"\0a")),
    "others' extensions": lambda: flood(extension(5, b"")),
    "arrays without numbers": lambda: flood(b"\x94" + extension(Code.ARRAY, b"") + packb("<f8") + b"\x91\x00\xc4\x00"),
    "integers as keys that share a hash": lambda: mapping(
        extension(Code.BIG_INT, (7 + n * PRIME).to_bytes(10, "big")) for n in range(9, 60_000)
    ),
    "integers in a set that share a hash": lambda: array(
        [SET, *(extension(Code.BIG_INT, (7 + n * PRIME).to_bytes(10, "big")) for n in range(9, 60_000))]
    ),
    "UUIDs as keys that share a hash": lambda: mapping(
        extension(Code.UUID, (7 + n * PRIME).to_bytes(16, "big")) for n in range(9, 50_000)
    ),
    "many small maps of keys that share a hash": lambda: array(
        [mapping(extension(Code.BIG_INT, (7 + n * PRIME).to_bytes(10, "big")) for n in range(9, 900))] * 80
    ),
    "bad UTF-8 at the end": lambda: flood(b"\xa2ab")[:-1] + b"\xff",
    "random": lambda: random.Random(4).randbytes(MIB),
    "a byte too many": lambda: encode([1, 2]) + b"\0",
    "a byte too few": lambda: encode("text")[:-1],
    "nothing": lambda: b"",
    "a head in the middle": lambda: array([b"\x01", TUPLE]),
    "two heads": lambda: array([TUPLE, TUPLE]),
    "a head alone": lambda: TUPLE,
    "a head as a key": lambda: mapping([TUPLE]),
    "a list as a key": lambda: mapping([b"\x90"]),
    "a set of lists": lambda: array([SET, b"\x90"]),
    "an unknown code of ours": lambda: extension(127, b""),
    "a head with a payload": lambda: array([extension(Code.TUPLE, b"x")]),
    "an unknown class": lambda: array([extension(Code.REGISTERED, b"os.system"), packb("ls")]),
    "a class without an object": lambda: array([extension(Code.REGISTERED, b"os.system")]),
    "a decimal that has no hash": lambda: mapping([extension(Code.DECIMAL, b"sNaN")]),
    "no decimal": lambda: extension(Code.DECIMAL, b"ten"),
    "no UUID": lambda: extension(Code.UUID, b"short"),
    "no path": lambda: extension(Code.PATH, b""),
    "a path of no kind": lambda: extension(Code.PATH, b"\x09a"),
    "no date": lambda: extension(Code.DATE, b"\xff\xff\xff\xff"),
    "no datetime": lambda: extension(Code.DATETIME, b"\0" * 12),
    "a zone that is a file": lambda: extension(
        Code.DATETIME, struct.pack(">HBBBBBIB", 2026, 1, 1, 0, 0, 0, 0, 6) + b"../x"
    ),
    "a zone that is not": lambda: extension(
        Code.DATETIME, struct.pack(">HBBBBBIB", 2026, 1, 1, 0, 0, 0, 0, 6) + b"No/Where"
    ),
    "a zone without end": lambda: extension(Code.TIME, struct.pack(">BBBIB", 0, 0, 0, 0, 6) + b"x" * 70_000),
    "a timestamp of msgpack's beyond measure": lambda: b"\xc7\x0c\xff" + b"\xff" * 12,
    "an array of objects": lambda: array([extension(Code.ARRAY, b""), packb("|O8"), packb([1]), packb(b"x" * 8)]),
    "an array of the wrong size": lambda: array(
        [extension(Code.ARRAY, b""), packb("<f8"), packb([9]), packb(b"x" * 8)]
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused(name: str) -> None:
    """Each attack is refused with DecodeError, and takes a small multiple of its own size in memory."""
    read(encode((1, 2)))
    attack = ATTACKS[name]()
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(attack)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * MIB


@pytest.mark.parametrize(
    "make",
    [
        lambda: [(number, number) for number in range(100_000)],
        lambda: [[number] for number in range(100_000)],
        lambda: [{"a": number, "b": "x"} for number in range(60_000)],
        lambda: {number: number for number in range(100_000)},
        lambda: {(number, -number): None for number in range(60_000)},
        lambda: {number * PRIME for number in range(10)},
        lambda: "\u0628" * 500_000,
        lambda: "\u4e00" * 300_000,
        lambda: random.Random(4).randbytes(MIB),
        lambda: list(range(-200_000, 100_000)),
    ],
    ids=[
        "pairs",
        "lists",
        "dicts",
        "keys",
        "tuples as keys",
        "few of a hash",
        "arabic",
        "chinese",
        "bytes",
        "ints",
    ],
)
def test_large_good_messages_pass(make: Callable[[], object]) -> None:
    """Real data of a mebibyte or less, however many small parts it has, is not mistaken for an attack."""
    value = make()
    assert decode(encode(value)) == value


def test_depth_is_bounded_for_foreign_bytes_only() -> None:
    """Foreign bytes may nest as deep as `max_depth`; own ones as deep as msgpack reads."""
    assert decode(b"\x91" * (MAX_DEPTH - 1) + b"\x90") == decode(b"\x91" * (MAX_DEPTH - 1) + b"\x90", max_depth=None)
    with pytest.raises(DecodeError, match=f"nested deeper than {MAX_DEPTH} levels"):
        decode(b"\x91" * MAX_DEPTH + b"\x90")
    decode(b"\x91" * 1000 + b"\x90", max_depth=None)
    decode(b"\x91" * 99 + b"\x90", max_depth=100)


def test_size_is_bounded() -> None:
    """A message above the limit is not even looked at."""
    assert decode(b"\x01", limit=1) == 1
    with pytest.raises(DecodeError, match="a message of 2 bytes is above the limit of 1"):
        decode(b"\xcc\xff", limit=1)


def test_errors_say_what_is_wrong() -> None:
    """A refusal tells the size of the message and what is wrong with it, in one line."""
    for data, why in [
        (b"", "they are cut short"),
        (b"\x01\x02", "more bytes follow"),
        (b"\xc1", "a byte that begins no value"),
        (
            array([extension(Code.REGISTERED, b"Money"), b"\x01"]),
            "no type is registered here under the name 'Money'",
        ),
        (extension(120, b""), "extension type 120 is not known to this version"),
    ]:
        with pytest.raises(DecodeError) as refusal:
            decode(data)
        assert str(refusal.value).startswith(f"{len(data)} bytes are no message of taskq: ")
        assert why in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_nothing_is_imported_because_a_message_names_it() -> None:
    """A message cannot make its reader import a module that it names; an array of numpy's makes it import numpy."""
    program = """
import sys
from taskq.codec import decode
from taskq.errors import DecodeError
for line in sys.stdin:
    before = set(sys.modules)
    try:
        print("value", decode(bytes.fromhex(line)))
    except DecodeError as exc:
        print("refused", *sorted(set(sys.modules) - before))
"""
    numpy_array = array([extension(Code.ARRAY, b""), packb("<f8"), packb([1]), packb(bytes(8))])
    unknown = array([extension(Code.REGISTERED, b"wave.Error"), b"\x01"])
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=f"{unknown.hex()}\n{numpy_array.hex()}\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["refused", "value [0.]"]
