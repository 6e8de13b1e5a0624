"""The short text by which people recognise a job in lists: its call, without what is long or looks secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskq.redact import is_secret, safe_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["label_of", "parameters_of"]

#: Characters of a text that is shown; a longer one is left out, as it may be anything: a document, a key.
_TEXT: Final = 40
#: Characters of a whole label.
_LABEL: Final = 120
#: Arguments shown.
_SHOWN: Final = 6
#: Bits of an integer that is shown.
_BITS: Final = 64


def parameters_of(fn: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's positional parameters, as far as it has code that tells."""
    code = getattr(fn, "__code__", None)
    return () if code is None else code.co_varnames[: code.co_argcount]


def label_of(task: str, parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return a call as text, as "thumbnail('a.jpg', size=128)"."""
    shown = [
        "***" if index < len(parameters) and is_secret(parameters[index]) else _brief(value)
        for index, value in enumerate(args[:_SHOWN])
    ]
    for name, value in kwargs.items():
        shown.append(f"{name}=***" if is_secret(name) else f"{name}={_brief(value)}")
    if len(args) > _SHOWN:
        shown.append("...")
    text = f"{task.partition(':')[2]}({', '.join(shown)})"
    if not text.isascii():  # names of keyword arguments may be no valid Unicode
        text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 3]}..."


def _brief(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return str(value) if value.bit_length() <= _BITS else "<int>"
    if kind is str:
        return repr(safe_url(value)) if len(value) <= _TEXT and value.isprintable() else f"<{len(value)} characters>"
    if value is None or kind is bool or kind is float:
        return repr(value)
    return f"<{len(value)} bytes>" if kind is bytes else f"<{kind.__name__}>"
