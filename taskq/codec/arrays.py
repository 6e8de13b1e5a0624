"""numpy arrays and scalars as bytes and back; the layouts stand in `wire.py`.

numpy is imported when the first array comes, and for nothing else: a task may well import it in its function only.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from typing import Any

__all__ = ["is_array_type", "is_scalar_type", "pack_array", "pack_scalar", "unpack_array", "unpack_scalar"]

#: The dtypes that are nothing but bytes: bool, integers, floats, complex, fixed-width bytes and text, dates.
PLAIN_DTYPE = re.compile(r"[<>|=](?:[biufcSU][1-9][0-9]{0,8}|[mM]8(?:\[[0-9]{0,9}[A-Za-z]{1,2}\])?)")


def is_array_type(cls: type) -> bool:
    """Return whether this is numpy's array type itself; a subclass would lose what it adds."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and cls is getattr(numpy, "ndarray", None)


def is_scalar_type(cls: type) -> bool:
    """Return whether this is the type of a numpy scalar."""
    generic = getattr(sys.modules.get("numpy"), "generic", None)
    return isinstance(generic, type) and issubclass(cls, generic) and cls.__module__ == "numpy"


def pack_array(value: Any) -> tuple[str, list[int], bytes]:
    """Return an array's dtype, shape and bytes."""
    return _dtype_text(value.dtype), list(value.shape), value.tobytes()


def unpack_array(parts: list[Any]) -> Any:
    """Build the array, writable and with its own memory."""
    text, shape, data = parts
    return _read(text, tuple(shape), data).copy()


def pack_scalar(value: Any) -> tuple[str, bytes]:
    """Return a scalar's dtype and bytes."""
    return _dtype_text(value.dtype), value.tobytes()


def unpack_scalar(parts: list[Any]) -> Any:
    """Build the scalar."""
    text, data = parts
    return _read(text, (), data)[()]


def _dtype_text(dtype: Any) -> str:
    text = str(dtype.str)
    if dtype.fields is not None or dtype.subdtype is not None or not PLAIN_DTYPE.fullmatch(text):
        raise ValueError(f"its dtype {dtype} holds more than plain numbers, text or bytes: convert it to such a dtype")
    return text


def _read(text: str, shape: tuple[int, ...], data: bytes) -> Any:
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
