"""Lengths of time as people write them, on command lines, in settings and in Python: 90, "1.5s", "10m", "1h30m"."""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from taskq.errors import ConfigError

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["UNITS", "Duration", "parse_duration", "to_seconds"]

#: What stands wherever Python takes a length of time: seconds, a text, or a timedelta.
Duration: TypeAlias = "float | str | timedelta"

#: Seconds in each unit that may stand behind a number.
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}

PART = r"(\d++(?:\.\d++)?|\.\d++)\s*+(ms|[smhdw])\s*+"
BARE = r"\d++(?:\.\d*+)?|\.\d++"

#: Characters of the longest text that is read; a longer one is no length of time.
LONGEST = 100


def parse_duration(value: object) -> float:
    """Return the seconds that a number, a text or a timedelta means; a bare number is seconds.

    Raises:
        ConfigError: it is not a length of time above zero.
    """
    seconds = _seconds_of(value)
    if seconds is None or not 0 < seconds < math.inf:
        raise ConfigError(f"{_brief(value)} is not a length of time: write 90 (seconds), 1.5s, 10m, 1h or 1h30m")
    return seconds


def to_seconds(name: str, value: object) -> Any:
    """Return a text or a timedelta as float seconds, and all else as it is: for who checks numbers by itself.

    Raises:
        ConfigError: the text is no length of time; the message has the setting's `name`.
    """
    if isinstance(value, str):
        seconds = _read(value)
        if seconds is None:
            raise ConfigError(f"{name}={_brief(value)} is not a length of time: write 90 (seconds), 1.5s, 10m or 1h30m")
        return seconds
    return value if isinstance(value, (int, float)) or _seconds_of(value) is None else _seconds_of(value)


def _seconds_of(value: object) -> float | None:
    """Return the seconds that a value means, of any sign and size; None: it is no length of time."""
    if isinstance(value, str):
        return _read(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    datetime = sys.modules.get("datetime")  # where nobody has imported it, there is no timedelta
    return value.total_seconds() if datetime is not None and isinstance(value, datetime.timedelta) else None


def _read(text: str) -> float | None:
    text = text.strip().lower() if len(text) <= LONGEST else ""
    if re.fullmatch(BARE, text):
        return float(text)
    if not re.fullmatch(f"(?:{PART})++", text):
        return None
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(PART, text))


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
