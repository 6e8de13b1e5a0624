"""Results as JSON text: what JSON has not is written as the next best thing, or refused with its place."""

from __future__ import annotations

import json
import math
import os
import re
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any

from taskq.errors import TaskqError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Unwritable", "to_json", "to_text"]

#: What a terminal obeys, or what turns the order of the signs around it: only its escape is written.
UNSAFE = r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]"

#: Characters of a value that are repeated in a message.
SHOWN = 60

#: Lists that an array without elements may come to.
EMPTY_MAX = 1_000_000


class Unwritable(TaskqError, ValueError):
    """A value has no JSON form; the message says where it stands in the result."""


def to_json(value: Any) -> bytes:
    """Return a value as one line of JSON in UTF-8.

    Sets come as lists, instants as ISO 8601, timedelta as seconds, Decimal, UUID and Path as texts, enums as
    their values, dataclasses as objects, numpy's numbers and arrays as numbers and lists.

    Raises:
        Unwritable: some part of it has no such form (bytes, NaN, a stranger's object); says which.
    """
    text = to_text(value)
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate: only its escape is valid UTF-8
        return json.dumps(value, default=_substitute).encode()


def to_text(value: Any) -> str:
    """Return a value as one line of JSON text; raises as `to_json`."""
    try:
        text = _encode(value)
    except (TypeError, ValueError) as exc:
        raise Unwritable(_why(value, exc)) from None
    except RecursionError:
        raise Unwritable("the result is nested too deeply for JSON") from None
    return text if text.isprintable() else re.sub(UNSAFE, _escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _in_order(values: set[Any] | frozenset[Any]) -> list[Any]:
    """Sort where that is possible, so that the same result gives the same line."""
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def _listed(array: Any) -> Any:
    """Return an array's lists; one without elements may have a shape of more of them than there is memory for."""
    if not array.size and math.prod(array.shape[: array.shape.index(0)]) > EMPTY_MAX:
        raise TypeError(type(array).__name__)
    return array.tolist()


#: What is written for an object of these classes. By name, so that none of them is imported for it.
SUBSTITUTES: dict[str, Callable[[Any], Any]] = {
    "builtins.frozenset": _in_order,
    "builtins.set": _in_order,
    "datetime.date": methodcaller("isoformat"),
    "datetime.time": methodcaller("isoformat"),
    "datetime.timedelta": methodcaller("total_seconds"),
    "decimal.Decimal": str,
    "enum.Enum": attrgetter("value"),
    "numpy.generic": methodcaller("tolist"),
    "numpy.ndarray": _listed,
    "uuid.UUID": str,
}


def _substitute(value: Any) -> Any:
    """Return what stands for a value that JSON has no word for."""
    for cls in type(value).__mro__:
        convert = SUBSTITUTES.get(f"{cls.__module__}.{cls.__qualname__}")
        if convert is not None:
            return convert(value)
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    raise TypeError(type(value).__name__)


#: Spaced as `json.dumps` does it; the encoder is made once, its call is all C.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_substitute).encode


def _why(value: Any, exc: Exception) -> str:
    if "ircular" in str(exc):
        return "the result contains itself, which JSON cannot say"
    path, found = _find(value, "result")
    if isinstance(found, float):
        return f"{path} is {found}, which JSON has no word for: return None or a text in its place"
    if isinstance(found, dict):
        return f"{path} has a key that is no text: {_short(_bad_key(found))}"
    name = type(found).__name__
    return f"{path} is of type {name}, which JSON cannot carry: return text, numbers, lists or dicts"


def _find(value: Any, path: str) -> tuple[str, Any]:
    """Return the path and the value of the innermost part that cannot be written."""
    children: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        children = [(f"{path}[{_short(key)}]", entry) for key, entry in value.items()]
    elif isinstance(value, (list, tuple)):
        children = [(f"{path}[{index}]", entry) for index, entry in enumerate(value)]
    else:
        try:
            return _find(_substitute(value), path)
        except TypeError:
            return path, value
    for child_path, child in children:
        if not _writable(child):
            return _find(child, child_path)
    return path, value


def _writable(value: Any) -> bool:
    try:
        _encode(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _bad_key(value: dict[Any, Any]) -> object:
    plain = (str, int, float, bool, type(None))
    return next((key for key in value if not isinstance(key, plain)), None)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
