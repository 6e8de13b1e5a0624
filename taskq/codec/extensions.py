"""Extension types: the packing of each type that msgpack lacks, and the register of users' own types.

    encode: type of the value ──packer_of──▶ function: value -> ExtType (a leaf), or [head, ...] (an array)
    decode: extension code ───LEAVES──▶ function: payload -> value
                            └─head_of──▶ Head, which builds the value from the array that it leads

The codes and layouts stand in `wire.py`. numpy is imported when the first array comes, and for nothing else: a task may
well import it in its function only.
"""

from __future__ import annotations

import dataclasses
import re
import struct
import sys
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from enum import Enum, Flag
from functools import cache
from importlib import import_module
from inspect import signature
from typing import Any, Final, TypeVar

from msgpack import ExtType, Timestamp  # type: ignore[import-untyped]

from taskq.codec.datetimes import (
    pack_date,
    pack_datetime,
    pack_time,
    pack_timedelta,
    unpack_date,
    unpack_datetime,
    unpack_time,
    unpack_timedelta,
)
from taskq.codec.wire import Code
from taskq.errors import ConfigError

__all__ = [
    "LEAVES",
    "NATIVE",
    "PLAIN_HEADS",
    "Head",
    "head_of_registered",
    "object_packer_of",
    "odd_text",
    "packer_of",
    "reference",
    "register",
]

T = TypeVar("T")
Packer = Callable[[Any], Any]

COMPLEX = struct.Struct(">dd")

#: Kinds of path on the wire: the index here. Path stands for the concrete path type of each machine.
PATH_TYPES = ("Path", "PurePosixPath", "PureWindowsPath")

#: Bytes of UTF-8 that the name of a registered type may take.
MAX_NAME = 255


# --- numpy arrays and scalars

#: The dtypes that are nothing but bytes: bool, integers, floats, complex, fixed-width bytes and text, dates.
PLAIN_DTYPE = re.compile(r"[<>|=](?:[biufcSU][1-9][0-9]{0,8}|[mM]8(?:\[[0-9]{0,9}[A-Za-z]{1,2}\])?)")


def _is_array_type(cls: type) -> bool:
    """Return whether this is numpy's array type itself; a subclass would lose what it adds."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and cls is getattr(numpy, "ndarray", None)


def _is_scalar_type(cls: type) -> bool:
    """Return whether this is the type of a numpy scalar."""
    generic = getattr(sys.modules.get("numpy"), "generic", None)
    return isinstance(generic, type) and issubclass(cls, generic) and cls.__module__ == "numpy"


def _pack_array(value: Any) -> tuple[str, list[int], bytes]:
    """Return an array's dtype, shape and bytes."""
    return _dtype_text(value.dtype), list(value.shape), value.tobytes()


def _unpack_array(parts: list[Any]) -> Any:
    """Build the array, writable and with its own memory."""
    text, shape, data = parts
    return _read_array(text, tuple(shape), data).copy()


def _pack_scalar(value: Any) -> tuple[str, bytes]:
    """Return a scalar's dtype and bytes."""
    return _dtype_text(value.dtype), value.tobytes()


def _unpack_scalar(parts: list[Any]) -> Any:
    """Build the scalar."""
    text, data = parts
    return _read_array(text, (), data)[()]


def _dtype_text(dtype: Any) -> str:
    text = str(dtype.str)
    if dtype.fields is not None or dtype.subdtype is not None or not PLAIN_DTYPE.fullmatch(text):
        raise ValueError(f"its dtype {dtype} holds more than plain numbers, text or bytes: convert it to such a dtype")
    return text


def _read_array(text: str, shape: tuple[int, ...], data: bytes) -> Any:
    try:
        numpy: Any = import_module("numpy")
    except ImportError as exc:
        raise ValueError(f"it holds a numpy array, and numpy cannot be imported here: {exc}") from exc
    if not PLAIN_DTYPE.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a dtype that travels")
    array = numpy.ndarray(shape, text, data)
    if array.nbytes != len(data):
        raise ValueError(f"an array of shape {shape} and dtype {text} does not take {len(data)} bytes")
    return array


# --- heads of arrays


class Head:
    """The front of an array that is really a tuple, a set or an object, and its builder."""

    __slots__ = ("build", "hashes")

    def __init__(self, build: Callable[[list[Any]], Any], *, hashes: bool = False) -> None:
        self.build = build
        #: Whether building puts the items into a hash table.
        self.hashes = hashes


# --- packers


def _headed(code: Code, parts: Callable[[Any], Iterable[Any]] | None = None) -> Packer:
    head = ExtType(code, b"")
    if parts is None:
        return lambda value: [head, *value]
    return lambda value: [head, *parts(value)]


def _leaf(code: Code, pack: Callable[[Any], bytes]) -> Packer:
    return lambda value: ExtType(code, pack(value))


def _pack_big_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _pack_decimal(value: Any) -> bytes:
    return str(value).encode("ascii")


def _pack_uuid(value: Any) -> bytes:
    return bytes(value.bytes)


def _pack_path(value: Any) -> bytes:
    name = type(value).__name__
    kind = PATH_TYPES.index(name) if name in PATH_TYPES else 0
    return bytes((kind,)) + str(value).encode("utf-8", "surrogateescape")


#: The packer of each exact type; those of other modules, and numpy's, are added when first met.
_packers: dict[type, Packer] = {
    tuple: _headed(Code.TUPLE),
    set: _headed(Code.SET),
    frozenset: _headed(Code.FROZENSET),
    bytearray: _leaf(Code.BYTEARRAY, bytes),
    int: _leaf(Code.BIG_INT, _pack_big_int),
    complex: _leaf(Code.COMPLEX, lambda value: COMPLEX.pack(value.real, value.imag)),
    datetime: _leaf(Code.DATETIME, pack_datetime),
    date: _leaf(Code.DATE, pack_date),
    time: _leaf(Code.TIME, pack_time),
    timedelta: _leaf(Code.TIMEDELTA, pack_timedelta),
}

#: Types of modules that `import taskq` does not load: class name -> its module, its packer.
_late_packers: Final[dict[str, tuple[str, Packer]]] = {
    "Decimal": ("decimal", _leaf(Code.DECIMAL, _pack_decimal)),
    "UUID": ("uuid", _leaf(Code.UUID, _pack_uuid)),
    **dict.fromkeys(
        ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
        ("pathlib", _leaf(Code.PATH, _pack_path)),
    ),
}

#: Types that msgpack packs by itself, so that no packer of ours is asked. It is true to all of them but
#: bytearray and memoryview, which would come out as bytes: `encoding` watches for those.
NATIVE = frozenset({type(None), bool, int, float, str, bytes, list, dict, ExtType, Timestamp, bytearray, memoryview})


def reference(job_id: str) -> Any:
    """Return what stands for the result of another job."""
    return ExtType(Code.JOB_REF, job_id.encode("ascii"))


def odd_text(value: str) -> Any:
    """Return what stands for a text with lone surrogates, as names of files have that are not UTF-8."""
    return ExtType(Code.ODD_TEXT, value.encode("utf-8", "surrogatepass"))


def packer_of(cls: type) -> Packer | None:
    """Return the function that packs values of exactly this built-in type, or None when there is none."""
    found = _packers.get(cls)
    return found if found is not None else _late_packer(cls)


def _late_packer(cls: type) -> Packer | None:
    module, packer = _late_packers.get(cls.__name__, ("", None))
    if packer is None or getattr(sys.modules.get(module), cls.__name__, None) is not cls:
        packer = _array_packer(cls)
    if packer is not None:
        _packers[cls] = packer
    return packer


def _array_packer(cls: type) -> Packer | None:
    if _is_array_type(cls):
        return _headed(Code.ARRAY, _pack_array)
    if _is_scalar_type(cls):
        return _headed(Code.ARRAY_SCALAR, _pack_scalar)
    return None


# --- unpackers


def _unpack_big_int(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _unpack_complex(data: bytes) -> complex:
    return complex(*COMPLEX.unpack(data))


@cache
def _late_type(module: str, name: str) -> Any:
    """Return a class of the standard library that few programs need, so that start-up need not load it."""
    return getattr(import_module(module), name)


def _unpack_decimal(data: bytes) -> Any:
    return _late_type("decimal", "Decimal")(data.decode("ascii"))


def _unpack_uuid(data: bytes) -> Any:
    return _late_type("uuid", "UUID")(bytes=data)


def _unpack_odd_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _unpack_path(data: bytes) -> Any:
    return _late_type("pathlib", PATH_TYPES[data[0]])(data[1:].decode("utf-8", "surrogateescape"))


#: The reader of each leaf.
LEAVES: Final[dict[int, Callable[[bytes], Any]]] = {
    Code.BYTEARRAY: bytearray,
    Code.BIG_INT: _unpack_big_int,
    Code.COMPLEX: _unpack_complex,
    Code.DECIMAL: _unpack_decimal,
    Code.UUID: _unpack_uuid,
    Code.PATH: _unpack_path,
    Code.DATETIME: unpack_datetime,
    Code.DATE: unpack_date,
    Code.TIME: unpack_time,
    Code.TIMEDELTA: unpack_timedelta,
    Code.ODD_TEXT: _unpack_odd_text,
}

#: The head of each array that is not an object's.
PLAIN_HEADS: Final[dict[int, Head]] = {
    Code.TUPLE: Head(tuple),
    Code.SET: Head(set, hashes=True),
    Code.FROZENSET: Head(frozenset, hashes=True),
    Code.ARRAY: Head(_unpack_array),
    Code.ARRAY_SCALAR: Head(_unpack_scalar),
}


def head_of_registered(code: int, payload: bytes) -> Head:
    """Return the head of a registered class's objects.

    Raises:
        ValueError: the code is another's, or no class is registered under the name in the payload.
    """
    if code != Code.REGISTERED:
        raise ValueError(f"extension type {code} is not known to this version of taskq")
    name = payload.decode()
    if name not in registered_classes:
        raise ValueError(
            f"no type is registered here under the name {name!r}: call taskq.codec.register in a module "
            "that this process imports"
        )
    return registered_classes[name][1]


# --- users' own types

registered_classes: dict[str, tuple[type, Head]] = {}
object_packers: dict[type, Packer] = {}


def object_packer_of(cls: type) -> Packer | None:
    """Return the function that turns objects of a registered class into [head, packed], or None."""
    return object_packers.get(cls)


def register(
    cls: type[T],
    pack: Callable[[T], Any] | None = None,
    unpack: Callable[[Any], T] | None = None,
    *,
    name: str | None = None,
) -> type[T]:
    """Let objects of exactly this class travel: as what `pack` returns, read back by `unpack`.

    Dataclasses and enums need no functions: their fields, or the member's name, travel. `name` stands
    for the class in messages (its qualified name unless given), so that modules may move. Every process
    that reads such messages has to register the class too, best at the top level of its module. Returns
    the class, so that it serves as a decorator.

    Raises:
        ConfigError: the class or the name is taken, or the functions are missing.
    """
    label = cls.__qualname__ if name is None else name
    known = registered_classes.get(label, (cls, None))[0]
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigError(f"the name {label!r} is taken by {known!r}: register {cls!r} with another name=")
    if cls in NATIVE or packer_of(cls) is not None:
        raise ConfigError(f"{cls!r} can travel already, so it cannot be registered as {label!r}")
    if not 0 < len(label.encode()) <= MAX_NAME:
        raise ConfigError(f"name={label!r}: give 1 to {MAX_NAME} bytes of UTF-8")
    if pack is None or unpack is None:
        if pack is not unpack:
            raise ConfigError(f"to register {cls!r}, give both pack and unpack, or neither")
        pack, unpack = _standard(cls)
    object_packers[cls] = _object_packer(label, pack)
    registered_classes[label] = (cls, Head(_object_builder(cls, unpack)))
    return cls


def _object_packer(name: str, pack: Callable[[Any], Any]) -> Packer:
    head = ExtType(Code.REGISTERED, name.encode())
    return lambda value: [head, pack(value)]


def _object_builder(cls: type, unpack: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    def build(items: list[Any]) -> Any:
        (packed,) = items
        value = unpack(packed)
        if type(value) is not cls:
            raise ValueError(f"its unpack function returned a {type(value).__qualname__}, not a {cls.__qualname__}")
        return value

    return build


def _standard(cls: type[Any]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    if issubclass(cls, Flag):
        return (lambda member: member.value), cls
    if issubclass(cls, Enum):
        return (lambda member: member.name), cls.__getitem__
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
        if set(names) == set(signature(cls).parameters):
            return (lambda value: {name: getattr(value, name) for name in names}), lambda data: cls(**data)
    raise ConfigError(
        f"{cls!r} is neither an enum nor a dataclass whose constructor takes just its fields: "
        "give register pack and unpack functions"
    )
