"""Lengths of time as people write them: 90, "1.5s", "10m", "1h30m"."""

from __future__ import annotations

import math
import re

from taskq.errors import ConfigError

__all__ = ["parse_duration"]

#: Seconds in each unit that may stand behind a number.
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}

PART = r"(\d++(?:\.\d++)?|\.\d++)\s*+(ms|[smhdw])\s*+"
BARE = r"\d++(?:\.\d*+)?|\.\d++"

#: Characters of the longest text that is read; what is longer is no length of time of anybody's.
LONGEST = 100


def parse_duration(value: object) -> float:
    """Return the seconds that a number or a text means; a bare number is seconds.

    Raises:
        ConfigError: it is not a length of time above zero.
    """
    seconds = _seconds(value)
    if seconds is None or not 0 < seconds < math.inf:
        raise ConfigError(f"{_brief(value)} is not a length of time: write 90 (seconds), 1.5s, 10m, 1h or 1h30m")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if not isinstance(value, str):
        return float(value)
    text = value.strip().lower() if len(value) <= LONGEST else ""
    if re.fullmatch(BARE, text):
        return float(text)
    if not re.fullmatch(f"(?:{PART})++", text):
        return None
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(PART, text))


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
