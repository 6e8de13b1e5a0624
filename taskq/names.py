"""Names: of classes and of the main program, as other processes import them; of queues, workers and keys.

The latter are given by people, and become parts of Redis keys, labels and files: `check_name` holds their grammar. RQ's
own names fit it. Names that were stored before, or by others, are shown and read as they are.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MAX_KEY", "MAX_NAME", "check_name", "did_you_mean", "main_module", "portable_name", "qualified_name"]


def qualified_name(cls: type) -> str:
    """Return a class's name as "module.Qualname", builtins without their module."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def portable_name(cls: type) -> str:
    """Return a class's name as other processes have it, whose main program is another."""
    name = qualified_name(cls)
    if cls.__module__ != "__main__":
        return name
    return f"{main_module() or '__main__'}.{cls.__qualname__}"


def main_module() -> str:
    """Return the name by which the main program could be imported; empty: it cannot be."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":  # python -m package.module
        return str(spec.name)
    path = getattr(main, "__file__", None)
    name = os.path.basename(path)[:-3] if isinstance(path, str) and path.endswith(".py") else ""  # noqa: PTH119  # see test_loads_no_module_that_few_need
    return name if name.isidentifier() and _is_found(name, str(path)) else ""


def _is_found(name: str, path: str) -> bool:
    """Return whether an import of the name would find this file; nothing is imported."""
    from importlib.machinery import PathFinder  # noqa: PLC0415  # only where a program is its own tasks' module

    try:
        spec = PathFinder.find_spec(name)
        return spec is not None and spec.origin is not None and os.path.samefile(spec.origin, path)  # noqa: PTH121
    except (OSError, ValueError):
        return False


# --- names that people give

#: Characters of a name of a queue or a worker, and of a key.
MAX_NAME, MAX_KEY = 128, 512

#: No spaces, commas, control characters, nor what shells and Redis' patterns take for more than itself.
_NAME = re.compile(rf"\w[\w.:/@+=#%~-]{{0,{MAX_NAME - 1}}}")

#: Keys are text more than names ("thumb of b.jpg, large"): no list parts them at spaces and commas.
_KEY = re.compile(rf"\w[\w.:/@+=#%~, -]{{0,{MAX_KEY - 1}}}")


def check_name(what: str, value: object) -> str:
    """Return a name as it is; where `what` is "key", spaces and commas may stand in it.

    Raises:
        ConfigError: it does not fit the grammar; the error says `what` it is and the rule.
    """
    key = what == "key"
    if isinstance(value, str) and (_KEY if key else _NAME).fullmatch(value) is not None and "/.." not in value:
        return value
    shown = repr(value)
    raise ConfigError(f"{what}={shown if len(shown) <= MAX_NAME else shown[:MAX_NAME] + '...'}: {_rule(key=key)}")


def _rule(*, key: bool) -> str:
    signs = "_ - . : / @ + = # % ~" + (", spaces or commas" if key else "")
    start = "the first a letter, a digit or _, and no part of a path that begins with .."
    return f"give 1 to {MAX_KEY if key else MAX_NAME} letters, digits or {signs}, {start}"


#: Names offered at most.
OFFERED = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean x or y?" for the known names that resemble the word, or an empty text."""
    from difflib import get_close_matches  # noqa: PLC0415  # wanted after a mistake only, not at start-up

    close = get_close_matches(word, list(known), n=OFFERED)
    return f"; did you mean {' or '.join(close)}?" if close else ""
