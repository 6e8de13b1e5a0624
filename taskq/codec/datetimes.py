"""Dates, times and durations as bytes, with their zones, and back."""

from __future__ import annotations

import struct
import sys
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache

__all__ = [
    "pack_date",
    "pack_datetime",
    "pack_time",
    "pack_timedelta",
    "unpack_date",
    "unpack_datetime",
    "unpack_time",
    "unpack_timedelta",
]

DATETIME = struct.Struct(">HBBBBBI")
TIME = struct.Struct(">BBBI")
DATE = struct.Struct(">I")
TIMEDELTA = struct.Struct(">iII")
OFFSET = struct.Struct(">q")

#: Kinds of zone.
NAIVE, FIXED, FIXED_NAMED, ZONE = 0, 1, 2, 3

#: Bytes that a zone may take; the longest key of a real one takes 32.
MAX_ZONE = 255

MICROSECOND = timedelta(microseconds=1)


def pack_datetime(value: datetime) -> bytes:
    """Write a datetime of any zone that can travel."""
    head = DATETIME.pack(value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
    return head + _pack_zone(value.tzinfo, value.fold)


def unpack_datetime(data: bytes) -> datetime:
    """Read what `pack_datetime` wrote."""
    zone, fold = _unpack_zone(data[DATETIME.size :])
    year, month, day, hour, minute, second, microsecond = DATETIME.unpack(data[: DATETIME.size])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def pack_time(value: time) -> bytes:
    """Write a time of day."""
    head = TIME.pack(value.hour, value.minute, value.second, value.microsecond)
    return head + _pack_zone(value.tzinfo, value.fold)


def unpack_time(data: bytes) -> time:
    """Read what `pack_time` wrote."""
    zone, fold = _unpack_zone(data[TIME.size :])
    hour, minute, second, microsecond = TIME.unpack(data[: TIME.size])
    return time(hour, minute, second, microsecond, zone, fold=fold)


def pack_date(value: date) -> bytes:
    """Write a date."""
    return DATE.pack(value.toordinal())


def unpack_date(data: bytes) -> date:
    """Read what `pack_date` wrote."""
    return date.fromordinal(*DATE.unpack(data))


def pack_timedelta(value: timedelta) -> bytes:
    """Write a duration."""
    return TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def unpack_timedelta(data: bytes) -> timedelta:
    """Read what `pack_timedelta` wrote."""
    return timedelta(*TIMEDELTA.unpack(data))


def _pack_zone(zone: tzinfo | None, fold: int) -> bytes:
    """Write a `datetime.timezone`, or a `zoneinfo.ZoneInfo` with a key; other zones are refused."""
    if zone is None:
        return bytes((fold,))
    data = _pack_fixed(zone, fold) if type(zone) is timezone else _pack_named(zone, fold)
    if len(data) > MAX_ZONE:
        raise ValueError(f"the name of its tzinfo is longer than {MAX_ZONE} bytes")
    return data


def _pack_named(zone: tzinfo, fold: int) -> bytes:
    zone_type = getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None)
    key: str | None = getattr(zone, "key", None) if type(zone) is zone_type else None
    if key is None:
        raise ValueError(
            f"its tzinfo, a {type(zone).__module__}.{type(zone).__qualname__}, cannot travel: use "
            "datetime.timezone or zoneinfo.ZoneInfo, for instance value.astimezone(timezone.utc)"
        )
    return bytes((fold + 2 * ZONE,)) + key.encode()


def _pack_fixed(zone: timezone, fold: int) -> bytes:
    offset, name = zone.utcoffset(None), zone.tzname(None)
    data = OFFSET.pack(offset // MICROSECOND)
    if name == timezone(offset).tzname(None):
        return bytes((fold + 2 * FIXED,)) + data
    return bytes((fold + 2 * FIXED_NAMED,)) + data + name.encode()


@lru_cache(maxsize=64)
def _unpack_zone(data: bytes) -> tuple[tzinfo | None, int]:
    if len(data) > MAX_ZONE:
        raise ValueError(f"a zone takes at most {MAX_ZONE} bytes, not {len(data)}")
    kind, fold = divmod(data[0], 2)
    if kind == NAIVE and len(data) == 1:
        return None, fold
    if kind == FIXED:
        return timezone(_unpack_offset(data[1:])), fold
    if kind == FIXED_NAMED:
        offset = _unpack_offset(data[1 : 1 + OFFSET.size])
        return timezone(offset, data[1 + OFFSET.size :].decode()), fold
    if kind == ZONE:
        from zoneinfo import ZoneInfo  # noqa: PLC0415  # few programs need it, and it takes milliseconds

        return ZoneInfo(data[1:].decode()), fold
    raise ValueError(f"there is no zone of kind {kind}")


def _unpack_offset(data: bytes) -> timedelta:
    return timedelta(microseconds=OFFSET.unpack(data)[0])
