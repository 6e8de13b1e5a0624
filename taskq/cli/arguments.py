"""Tasks by name, and their arguments as words on the command line, as HTTPie writes them.

    a.jpg               a text
    :=128               JSON: a number, true, null, a list, an object
    size=128            a keyword argument, a text       size:=128          the same, JSON
    @notes.txt          the text of a file               note=@notes.txt    as a keyword argument
    :=@data.json        the JSON in a file               data:=@data.json   as a keyword argument

`@-` is stdin. What looks like one of these but is meant as it stands is written as JSON: ':="size=128"'. A task is
named module:function and found as `python -m` would find it.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from taskq.allowlist import named
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Arguments", "check_call", "find_task", "import_from_here", "parse_arguments", "spread"]

#: Characters of a bad value that are repeated in a message.
SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The arguments of a call."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def parse_arguments(words: Iterable[str], args_json: str | None = None) -> Arguments:
    """Return the arguments that words mean; those of `args_json` come first.

    Raises:
        ConfigError: bad JSON, a file that cannot be read, a keyword given twice; the message shows the word.
    """
    first = spread(_json(_content(args_json), "--args-json")) if args_json is not None else Arguments()
    args, kwargs = list(first.args), dict(first.kwargs)
    for word in words:
        name, value = _parse(word)
        if name is None:
            args.append(value)
        elif name in kwargs:
            raise ConfigError(f"{word!r}: the argument {name!r} is given twice")
        else:
            kwargs[name] = value
    return Arguments(args=tuple(args), kwargs=kwargs)


def spread(value: Any) -> Arguments:
    """Return the arguments that one JSON value means: an object is keywords, an array is a list of them."""
    if isinstance(value, dict):
        return Arguments(kwargs=value)
    return Arguments(args=tuple(value)) if isinstance(value, list) else Arguments(args=(value,))


def _parse(word: str) -> tuple[str | None, Any]:
    head, mark, rest = word.partition("=")
    if mark and head.endswith(":") and (head == ":" or head[:-1].isidentifier()):
        return head[:-1] or None, _json(_content(rest), repr(_short(word)))
    if mark and head.isidentifier():
        return head, _content(rest)
    return None, _content(word)


def _content(text: str) -> str:
    """Return the text itself, or that of the file which it names with an @."""
    if not text.startswith("@"):
        return text
    name = text[1:]
    try:
        if name == "-":
            return sys.stdin.buffer.read().decode()
        with open(name, "rb") as file:  # noqa: PTH123 - the name is what the user wrote
            return file.read().decode()
    except OSError as exc:
        raise ConfigError(f"{text!r}: cannot read {name!r}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{text!r}: {name!r} is not UTF-8 text (byte {exc.start + 1})") from exc


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        why = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        cure = "a text needs double quotes, or = in the place of :="
        raise ConfigError(f"{where}: {_short(text)!r} is not JSON: {why} ({cure})") from None


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def import_from_here() -> None:
    """Make the working directory importable; child processes get this process's `sys.path`."""
    if not sys.flags.safe_path:
        with contextlib.suppress(FileNotFoundError):
            here = os.getcwd()  # noqa: PTH109 - sys.path holds texts
            if here not in sys.path:
                sys.path.insert(0, here)


def find_task(name: str) -> Callable[..., Any]:
    """Import the function of a name.

    Raises:
        UnknownTask: nothing of that name is there.
        ConfigError: the name is malformed, or its module cannot be imported.
    """
    import_from_here()
    return named(name)


def check_call(name: str, function: Callable[..., Any], arguments: Arguments) -> None:
    """See that a function takes these arguments, before a process is started for it.

    Raises:
        ConfigError: it does not; the message shows what it takes.
    """
    signature = _signature(function)
    if signature is None:
        return
    try:
        signature.bind(*arguments.args, **arguments.kwargs)
    except TypeError as exc:
        takes = str(signature).partition(" -> ")[0]
        raise ConfigError(f"{name} takes {takes}: {exc}") from None


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return a function's signature, its annotations evaluated; None where it has none."""
    with contextlib.suppress(Exception):  # annotations are a stranger's code, and need not mean anything
        return inspect.signature(function, eval_str=True)
    with contextlib.suppress(TypeError, ValueError):  # some builtins do not tell
        return inspect.signature(function)
    return None
