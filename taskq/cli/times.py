"""Instants and lengths of time as the commands write and read them.

    for programs    ISO 8601 in UTC, seconds as floats
    for people      "12 s", "3 min", "2 h", "5 d": two figures tell enough of an age

People are shown their own time zone, programs always UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime

from taskq.config import parse_duration

__all__ = ["age", "clock", "iso", "parse_older", "seconds"]

#: The units of an age: seconds in one, and its sign.
UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))

#: Multiples of a unit from which it is used: 90 s says more than 1 min, 36 h more than 1 d.
FROM = 2

#: Seconds below which a time is given in milliseconds, and with one decimal.
BRIEF = 0.1
SHORT = 10.0


def iso(instant: float | None) -> str | None:
    """Return seconds since 1970 as ISO 8601 in UTC, to the millisecond; None for None."""
    if instant is None:
        return None
    text = datetime.fromtimestamp(instant, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def age(length: float | None) -> str:
    """Return a length of time in one rounded figure: "0.4 s", "12 s", "3 min", "5 d"."""
    if length is None:
        return "-"
    length = max(0.0, length)
    if length < BRIEF:
        return f"{length * 1000:.0f} ms"
    if length < SHORT:
        return f"{length:.1f} s"
    size, sign = next((unit for unit in UNITS if length >= unit[0] * FROM), UNITS[-1])
    return f"{length / size:.0f} {sign}"


def clock(instant: float | None, now: float) -> str:
    """Return an instant as people read it, in local time: the time of day, and the date where it is another one."""
    if instant is None:
        return "-"
    there, today = datetime.fromtimestamp(instant).astimezone(), datetime.fromtimestamp(now).astimezone()
    return f"{there:%H:%M:%S}" if there.date() == today.date() else f"{there:%Y-%m-%d %H:%M}"


def seconds(length: float | None) -> float | None:
    """Return a length of time as programs get it."""
    return None if length is None else round(max(0.0, length), 6)


def parse_older(text: str | None) -> float | None:
    """Return the seconds of an --older flag."""
    return None if text is None else parse_duration(text)
