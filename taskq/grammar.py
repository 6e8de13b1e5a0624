"""The grammar of names that people give: of queues, workers and keys. They become parts of keys, labels and files.

RQ's own names fit it. Names that were stored before, or by others, are shown and read as they are.
"""

from __future__ import annotations

import re

from taskq.errors import ConfigError

__all__ = ["MAX_KEY", "MAX_NAME", "check_name"]

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
