"""Instants as people write them after `--at`: ISO 8601 and nothing near it, so that no date is taken for a time.

    2026-11-30T08:00  20261130T0800  2026-11-30 08:00:30.5     local time, or that of Z, +02, +0200, +02:00 behind it
    2026-11-30  20261130  2026-W49-1  2026W491  2026-334       the start of that day
    08:00  08:00:30  T0800                                     the next time at which a clock shows this
    @1900000000                                                seconds since 1970

A local time that the clocks leave out is refused. Of one that comes twice the first is taken, and it is said.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING

from taskq.cli.tell import say
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["parse_at"]

#: Characters of the longest text that can be an instant.
LONGEST = 64

DATES = (
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)",
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)",
    r"(?P<year>\d{4})-W(?P<week>\d\d)-(?P<weekday>\d)",
    r"(?P<year>\d{4})W(?P<week>\d\d)(?P<weekday>\d)",
    r"(?P<year>\d{4})-(?P<nth>\d{3})",
)
FRACTION = r"(?:[.,](?P<fraction>\d{1,9}))?"
EXTENDED = rf"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d){FRACTION})?"
BASIC = rf"(?P<hour>\d\d)(?:(?P<minute>\d\d)(?:(?P<second>\d\d){FRACTION})?)?"
ZONE = r"\s?(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?"
EPOCH = r"@(?P<epoch>\d{1,12}(?:\.\d{1,9})?)"

#: The days that are looked at for a time of day: by the last of them every clock has shown every time once.
DAYS = 4

CURE = "write 2026-11-30T08:00 (local time), 2026-11-30T08:00Z, 08:00 for the next one, or @1900000000"


def parse_at(text: str, now: datetime | None = None) -> datetime:
    """Return the instant that a text means: ISO 8601, local time unless it says; or HH:MM, the next one.

    Raises:
        ConfigError: it is neither, or the local clock never shows it.
    """
    now = now or datetime.now(UTC)
    try:
        meant = _parse(text.strip(), now)
    except ConfigError:
        raise
    except (ValueError, OverflowError, OSError):  # a month of 13; a year that the system's clock does not reach
        hint = _hint(text.strip())
        raise ConfigError(f"--at: {_short(text)!r} is not an instant: {hint}{CURE}") from None
    if meant < now:
        say(f"--at: {text.strip()} is in the past ({meant.isoformat(timespec='seconds')}): the job may start at once")
    return meant


def _parse(text: str, now: datetime) -> datetime:
    if (parts := _match(EPOCH, text)) is not None:
        return datetime.fromtimestamp(float(parts["epoch"]), UTC).astimezone()
    if (parts := _match(rf"T?{EXTENDED}{ZONE}", text) or _match(rf"T{BASIC}{ZONE}", text)) is not None:
        return _next(_time(parts), _zone(parts), now, text)
    for day in DATES:
        if (parts := _match(day, text)) is not None:
            return _instant(datetime.combine(_date(parts), time()), None, text)
        for clock in (EXTENDED, BASIC):
            if (parts := _match(rf"{day}[T ]{clock}{ZONE}", text)) is not None:
                return _instant(_combined(parts), _zone(parts), text)
    raise ValueError(text)


def _match(pattern: str, text: str) -> dict[str, str] | None:
    found = re.fullmatch(pattern, text, re.ASCII | re.IGNORECASE) if len(text) <= LONGEST else None
    return None if found is None else {name: value for name, value in found.groupdict().items() if value is not None}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def _hint(text: str) -> str:
    """Return a hint where the text looks like something else."""
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return "a bare number may be a time, a year or seconds: "
    if text.startswith("+") or text.lower().startswith("in "):
        return "for so much later there is --delay 10m: "
    return ""


# --- the parts


def _date(parts: dict[str, str]) -> date:
    year = int(parts["year"])
    if "week" in parts:
        return date.fromisocalendar(year, int(parts["week"]), int(parts["weekday"]))
    if "nth" in parts:
        found = date(year, 1, 1) + timedelta(days=int(parts["nth"]) - 1)
        if found.year != year:
            raise ValueError(parts["nth"])
        return found
    return date(year, int(parts["month"]), int(parts["day"]))


def _time(parts: dict[str, str]) -> time:
    micros = int(parts.get("fraction", "0")[:6].ljust(6, "0"))
    return time(int(parts["hour"]), int(parts.get("minute", 0)), int(parts.get("second", 0)), micros)


def _combined(parts: dict[str, str]) -> datetime:
    """Put day and time together; 24:00 is the end of the day, as ISO 8601 has it."""
    late = parts["hour"] == "24"
    clock = _time({**parts, "hour": "00"} if late else parts)
    if late and clock != time():
        raise ValueError("24")
    return datetime.combine(_date(parts), clock) + timedelta(days=late)


def _zone(parts: dict[str, str]) -> tzinfo | None:
    """Return the zone that is written; None for the local one."""
    zone = parts.get("zone")
    if zone is None or zone in "Zz":
        return None if zone is None else UTC
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if minutes > 59:  # noqa: PLR2004 - an hour has sixty
        raise ValueError(zone)
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if zone[0] == "-" else offset)


# --- the instant


def _instant(there: datetime, zone: tzinfo | None, text: str) -> datetime:
    """Return the instant at which a clock shows a day and a time."""
    if zone is not None:
        return there.replace(tzinfo=zone).astimezone()
    meant = list(_local(there))
    if not meant:
        raise ConfigError(_left_out(there, text))
    return _first(meant, text)


def _next(clock: time, zone: tzinfo | None, now: datetime, text: str) -> datetime:
    """Return the next instant at which the clock shows a time of day."""
    today = now.astimezone(zone).date()
    for ahead in range(DAYS):
        there = datetime.combine(today + timedelta(days=ahead), clock)
        meant = [there.replace(tzinfo=zone).astimezone()] if zone is not None else list(_local(there))
        if later := [instant for instant in meant if instant > now]:
            return _first(later, text)
    raise ValueError(text)


def _local(there: datetime) -> Iterator[datetime]:
    """Yield the instants at which the local clock shows this: one; none or two where the clocks change."""
    first, second = there.replace(fold=0).astimezone(), there.replace(fold=1).astimezone()
    for instant in [first] if first == second else [first, second]:
        if datetime.fromtimestamp(instant.timestamp()) == there:  # noqa: DTZ006 - the local clock is what is asked
            yield instant


def _first(meant: list[datetime], text: str) -> datetime:
    if len(meant) > 1:
        told = " and ".join(instant.isoformat(timespec="minutes") for instant in meant)
        say(f"--at: {text} comes twice, as the clocks go back: {told}; the first is taken")
    return meant[0]


def _left_out(there: datetime, text: str) -> str:
    """Return the message for a time that the clocks skip; its two readings tell by how much."""
    instants = sorted((there.replace(fold=0).astimezone(), there.replace(fold=1).astimezone()))
    told = " or ".join(instant.isoformat(timespec="minutes") for instant in instants)
    return f"--at: {text!r} is no time here, the clocks go forward past it: write {told}"
