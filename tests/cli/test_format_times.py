"""Instants and lengths of time, as people and programs read and write them."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from taskq.cli.format import age, clock, iso, seconds

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
