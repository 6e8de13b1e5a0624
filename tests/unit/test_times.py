"""Instants and lengths of time, as people and programs read and write them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from taskq.cli.times import age, clock, iso, parse_at, seconds
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: 2026-09-21T14:13:20Z.
NOW = 1_790_000_000.0


@pytest.fixture(params=["UTC0", "XXX-2", "YYY+3:30"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Live in a time zone for a test."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def test_programs_get_utc() -> None:
    """ISO 8601 to the millisecond, None for what has not come to pass."""
    assert iso(NOW) == "2026-09-21T14:13:20.000Z"
    assert iso(NOW + 0.0306) == "2026-09-21T14:13:20.030Z"
    assert iso(None) is None
    assert (seconds(1.25), seconds(-1), seconds(None)) == (1.25, 0.0, None)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (None, "-"),
        (-5, "0 ms"),
        (0.0421, "42 ms"),
        (0.44, "0.4 s"),
        (9.96, "10.0 s"),
        (12.4, "12 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_an_age_is_one_figure(length: float | None, text: str) -> None:
    """In the largest unit of which there are two."""
    assert age(length) == text


def test_people_read_their_own_time(zone: str) -> None:
    """The time of day, and the date only of another day."""
    here = datetime.fromtimestamp(NOW).astimezone()
    assert clock(NOW, NOW + 60) == f"{here:%H:%M:%S}"
    assert clock(NOW, NOW + 200_000) == f"{here:%Y-%m-%d %H:%M}"
    assert clock(None, NOW) == "-"


def test_an_instant_without_a_zone_is_local(zone: str) -> None:
    """One that says its zone is taken at its word."""
    assert parse_at("2026-11-30T08:00") == datetime(2026, 11, 30, 8).astimezone()
    assert parse_at("2026-11-30") == datetime(2026, 11, 30).astimezone()
    assert parse_at("2026-11-30T08:00Z") == datetime(2026, 11, 30, 8, tzinfo=UTC)
    assert parse_at("2026-11-30T08:00+05:00") == datetime(2026, 11, 30, 8, tzinfo=timezone(timedelta(hours=5)))


def test_a_time_of_day_is_the_next_one(zone: str) -> None:
    """Later today, else tomorrow; never in the past."""
    now = datetime.fromtimestamp(NOW).astimezone()
    later, sooner = now + timedelta(minutes=5), now - timedelta(minutes=5)
    assert parse_at(f"{later:%H:%M:%S}", now) == later.replace(microsecond=0)
    assert parse_at(f"{sooner:%H:%M:%S}", now) == sooner.replace(microsecond=0) + timedelta(days=1)


@pytest.mark.parametrize("text", ["", "soon", "25:00", "2026-13-01T00:00", "8"])
def test_what_is_no_instant_is_told(text: str) -> None:
    """With what would be one."""
    with pytest.raises(ConfigError, match="write 2026-11-30T08:00"):
        parse_at(text)
