"""The short text by which people recognise a job in lists: its call, or its command.

on one's own queue file    the values, without what is long or tells a secret    thumbnail('a.jpg', size=128)
where others read them     their types; of a command its first word              thumbnail(str, size=int)
where one is given         that: the option `label`
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from taskq.redact import MASK, is_secret, safe_text, safe_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["command_label", "label_of", "parameters_of"]

#: Characters of a text that is shown; a longer one is left out, as it may be anything: a document, a key.
_TEXT: Final = 40
#: Characters of a whole label.
_LABEL: Final = 120
#: Arguments shown.
_SHOWN: Final = 6
#: Bits of an integer that is shown.
_BITS: Final = 64
#: Characters of each word of a command that are looked at.
_WORD: Final = 1000


def parameters_of(fn: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's positional parameters, as far as it has code that tells."""
    code = getattr(fn, "__code__", None)
    return () if code is None else code.co_varnames[: code.co_argcount]


def label_of(
    task: str, parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any], *, full: bool = True
) -> str:
    """Return a call as text, as "thumbnail('a.jpg', size=128)"; not `full`: as "thumbnail(str, size=int)"."""
    brief = _brief if full else _kind
    shown = [
        MASK if full and index < len(parameters) and is_secret(parameters[index]) else brief(value)
        for index, value in enumerate(args[:_SHOWN])
    ]
    for name, value in kwargs.items():
        shown.append(f"{name}={MASK}" if full and is_secret(name) else f"{name}={brief(value)}")
    if len(args) > _SHOWN:
        shown.append("...")
    return _cut(f"{task.partition(':')[2]}({', '.join(shown)})")


def command_label(argv: Sequence[str], *, full: bool) -> str:
    """Return a command as one would type it, without what tells a secret; not `full`: as "curl + 4 words"."""
    if full:
        return _cut(shlex.join(safe_words([word[:_WORD] for word in argv[: _LABEL // 2]])))
    more = len(argv) - 1
    first = safe_text(argv[0][:_WORD])
    return _cut(f"{first} + {more} word{'s' if more > 1 else ''}" if more else first)


def _cut(text: str) -> str:
    if not text.isascii():  # names of keyword arguments, and files' names in commands, may be no valid Unicode
        text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 3]}..."


def _kind(value: Any) -> str:
    return type(value).__name__


def _brief(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return str(value) if value.bit_length() <= _BITS else "<int>"
    if kind is str:
        return repr(safe_text(value)) if len(value) <= _TEXT and value.isprintable() else f"<{len(value)} characters>"
    if value is None or kind is bool or kind is float:
        return repr(value)
    return f"<{len(value)} bytes>" if kind is bytes else f"<{kind.__name__}>"
