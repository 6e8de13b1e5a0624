"""Users' own types in messages: registered classes, and numpy's arrays."""

from __future__ import annotations

import enum
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from taskq.codec import MAX_DEPTH, decode, encode, extensions, register
from taskq.errors import ConfigError, DecodeError, EncodeError
from tests.sample_values import same


@pytest.fixture(autouse=True)
def clean_register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test register classes without a trace."""
    monkeypatch.setattr(extensions, "registered_classes", dict(extensions.registered_classes))
    monkeypatch.setattr(extensions, "object_packers", dict(extensions.object_packers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Stand for a dataclass of the user's."""

    amount: Decimal
    currency: str = "EUR"
    parts: Any = None


class Colour(enum.Enum):
    """Stand for an enum."""

    RED = (255, 0, 0)
    BLUE = object()
    CRIMSON = RED


class Level(enum.IntEnum):
    """Stand for an enum that passes for an int."""

    LOW = 1


class Right(enum.Flag):
    """Stand for a flag."""

    READ = 1
    WRITE = 2


class Money:
    """Stand for a class that needs functions."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.cents == other.cents

    def __hash__(self) -> int:
        return hash(self.cents)


@pytest.fixture
def money() -> None:
    """Register Money."""
    register(Money, lambda value: [value.cents], lambda packed: Money(packed[0]))


def back_and_forth(value: Any) -> Any:
    """Send a value through both kinds of message, and return it."""
    own = decode(encode(value, max_depth=None), max_depth=None)
    foreign = decode(encode(value))
    assert own == foreign
    return foreign


@pytest.mark.parametrize(
    ("cls", "value"),
    [
        (Price, Price(amount=Decimal("1.10"), parts=[(1, 2), bytearray(b"x")])),
        (Colour, Colour.RED),
        (Colour, Colour.BLUE),
        (Level, Level.LOW),
        (Right, Right.READ | Right.WRITE),
        (Right, Right(0)),
    ],
    ids=["dataclass", "first", "second", "int", "both", "none"],
)
def test_dataclasses_and_enums_need_no_functions(cls: type[Any], value: Any) -> None:
    """A registered dataclass or enum comes back equal and of its class, members as themselves."""
    with pytest.raises(EncodeError, match="is not registered"):
        encode(value)
    assert register(cls) is cls
    back = back_and_forth([value, {value if cls is not Price else 1: (value,)}])
    assert type(back[0]) is cls
    assert back[0] == value
    if cls is Price:
        assert same(back[0].parts, value.parts)


def test_register_as_decorator() -> None:
    """`@register` on a dataclass is all that it takes."""

    @register
    @dataclass
    class Point:
        x: int

    assert type(back_and_forth(Point(5))) is Point


@pytest.mark.usefixtures("money")
def test_functions_pack_and_unpack() -> None:
    """A class with functions travels alone, in containers, as a key, in a set, and within its own kind."""
    assert back_and_forth([Money(5), {Money(6): Money(7)}, {Money(8)}]) == [
        Money(5), {Money(6): Money(7)}, {Money(8)},
    ]  # fmt: skip


def test_objects_in_objects() -> None:
    """What `pack` returns may hold registered objects, tuples and bytearrays, and all comes back true."""
    register(Money, lambda value: {"cents": (value.cents, bytearray(b"x"))}, lambda packed: Money(packed["cents"]))
    register(Price)
    price = Price(amount=Decimal(1), parts=Money(5))
    back = back_and_forth({price.currency: [price]})["EUR"][0]
    assert same(back.parts.cents, (Money(5).cents, bytearray(b"x")))


def test_buffers_within_objects_stay_buffers() -> None:
    """A bytearray that only `pack` brought to light is not turned into bytes."""
    register(Money, lambda value: bytearray(value.cents), lambda packed: Money((type(packed), len(packed))))  # type: ignore[arg-type]
    assert decode(encode(Money(3), max_depth=None)).cents == (bytearray, 3)
    assert decode(encode({Money(3): 1})) == {Money((bytearray, 3)): 1}  # type: ignore[arg-type]


def test_functions_may_encode_themselves() -> None:
    """A pack function may use the codec in its turn."""
    register(Money, lambda value: encode((value.cents,)), lambda packed: Money(decode(packed)[0]))
    assert back_and_forth([(Money(5), 1), Money(2**70)]) == [(Money(5), 1), Money(2**70)]


def test_failing_functions() -> None:
    """A pack function that fails names its value's path; an unpack function that fails raises DecodeError."""
    register(Money, lambda value: 1 // value.cents, lambda packed: Money(1 // (packed - 1)))
    with pytest.raises(EncodeError, match="cannot be packed: ZeroDivisionError") as refusal:
        encode([1, Money(0)])
    assert refusal.value.path == "value[1]"
    with pytest.raises(DecodeError, match="integer division"):
        decode(encode(Money(1)))


def test_bad_payloads_are_named() -> None:
    """A pack function that returns what cannot travel, or its own object, is to blame."""
    register(Money, lambda value: [object()], Money)
    with pytest.raises(EncodeError, match="object of type object") as refusal:
        encode({"a": Money(1)})
    assert refusal.value.path == "value['a']<Money>[0]"
    register(Money, lambda value: [value], Money)
    with pytest.raises(EncodeError, match="it contains itself"):
        encode(Money(1))


def test_unpack_must_return_its_class() -> None:
    """An unpack function that returns something else is found out."""
    register(Money, lambda value: value.cents, lambda packed: packed)
    with pytest.raises(DecodeError, match="its unpack function returned a int, not a Money"):
        decode(encode(Money(1)))


def test_subclasses_are_not_registered_with_their_base() -> None:
    """Only objects of exactly the class travel: a subclass may hold more."""
    register(Money, lambda value: value.cents, Money)

    class Coin(Money):
        """Hold more."""

    with pytest.raises(EncodeError, match="Coin"):
        encode(Coin(1))


@pytest.mark.usefixtures("money")
def test_unknown_at_the_other_end() -> None:
    """A class that the reader has not registered is refused with its name and the cure."""
    data = encode(Money(5))
    extensions.registered_classes.clear()
    with pytest.raises(DecodeError, match=r"under the name 'Money': call taskq\.codec\.register"):
        decode(data)


def test_names_in_messages() -> None:
    """The message names the class as registered, and no module."""
    register(Money, lambda value: value.cents, Money, name="eu.money")
    assert encode(Money(5)).hex() == "92d763" + b"eu.money".hex() + "05"
    assert back_and_forth(Money(5)) == Money(5)


@pytest.mark.usefixtures("money")
def test_registering_again() -> None:
    """A module that is loaded again may register its class again; another class may not take its name."""
    newer = type("Money", (Money,), {"__module__": Money.__module__, "__qualname__": "Money"})
    register(newer, lambda value: value.cents, newer)
    assert type(decode(encode(newer(5)))) is newer
    with pytest.raises(ConfigError, match="the name 'Money' is taken by"):
        register(Price, name="Money")


@pytest.mark.parametrize("cls", [int, str, list, tuple, set, bytearray, memoryview, Decimal, np.ndarray, np.float64])
def test_types_that_travel_anyway(cls: type[Any]) -> None:
    """A type that the codec knows cannot be registered: its objects would never come to the functions."""
    with pytest.raises(ConfigError, match="can travel already"):
        register(cls, lambda value: 1, lambda packed: 1, name="mine")


@dataclass
class WithInit:
    """Stand for a dataclass that its fields alone do not make."""

    x: int
    y: InitVar[int]
    z: int = field(init=False, default=0)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((Money,), "neither an enum nor a dataclass"),
        ((WithInit,), "neither an enum nor a dataclass whose constructor takes just its fields"),
        ((Money, lambda value: 1), "give both pack and unpack"),
        ((Money, None, Money), "give both pack and unpack"),
    ],
)
def test_bad_registrations(arguments: tuple[Any, ...], why: str) -> None:
    """A registration that could not work is refused at once."""
    with pytest.raises(ConfigError, match=why):
        register(*arguments)


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_bad_names(name: str) -> None:
    """A name has to be there, and short."""
    with pytest.raises(ConfigError, match="give 1 to 255 bytes"):
        register(Price, name=name)


# --- numpy


ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.arange(6, dtype=">u2")[::-2],
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(5.5),
    np.zeros((0, 3)),
    np.array([True, False]),
    np.array([1 + 2j]),
    np.array(["a", "üü"]),
    np.array([b"a", b"bb"]),
    np.array(["2026-11-22T01", "NaT"], dtype="M8[h]"),
    np.array([5], dtype="m8[ns]"),
    np.array([1.5, np.nan], "f4"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays(array: Any) -> None:
    """An array comes back with its dtype and byte order, its shape and values, and can be written to."""
    back = decode(encode([array], max_depth=None), max_depth=None)[0]
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    back[...] = back
    assert decode(encode(array)).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "scalar",
    [
        np.float64(1.5),
        np.int64(-5),
        np.uint8(5),
        np.bool_(True),
        np.complex64(1j),
        np.str_("ü"),
        np.datetime64(5, "s"),
    ],
    ids=lambda scalar: type(scalar).__name__,
)
def test_scalars(scalar: Any) -> None:
    """A numpy scalar comes back as a numpy scalar of its type, never as the Python number it resembles."""
    back = back_and_forth({"mean": scalar})["mean"]
    assert type(back) is type(scalar)
    assert back == scalar


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        np.ma.masked_array([1, 2], [True, False]),
        np.array([b"x"], dtype="V3"),
        np.str_(""),
        np.zeros(2).view(np.recarray),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arrays_that_hold_more_than_bytes(value: Any) -> None:
    """Arrays of objects or records, and subclasses, are refused: their bytes are not all of them."""
    for max_depth in (None, MAX_DEPTH):
        with pytest.raises(EncodeError):
            encode([value], max_depth=max_depth)


def test_golden_array() -> None:
    """The bytes of arrays and scalars are pinned."""
    assert encode(np.array([[1, 2]], "<u2")).hex() == "94c7006ea33c7532920102c40401000200"
    assert encode(np.float64(1.5)).hex() == "93c7006fa33c6638c408000000000000f83f"
