"""What `--at` means: every form of ISO 8601 is taken right, or refused with a sentence."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from taskq.cli.instants import parse_at
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: 2026-09-21T14:13:20Z.
NOW = datetime.fromtimestamp(1_790_000_000.0, UTC)

#: Clocks that go forward on 2027-03-28 from 02:00 to 03:00, and back on 2026-10-25 from 03:00 to 02:00.
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Live in a time zone for a test."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


everywhere = pytest.mark.parametrize("zone", ["UTC0", "XXX-2", "YYY+3:30", BERLIN], indirect=True)
berlin = pytest.mark.parametrize("zone", [BERLIN], indirect=True)


@everywhere
@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("2027-07-01", "2027-07-01T00:00:00"),
        ("20270701", "2027-07-01T00:00:00"),
        ("2026-W27-3", "2026-07-01T00:00:00"),
        ("2026W273", "2026-07-01T00:00:00"),
        ("2027-182", "2027-07-01T00:00:00"),
        ("2027-07-01T08", "2027-07-01T08:00:00"),
        ("2027-07-01T08:15", "2027-07-01T08:15:00"),
        (" 2027-07-01 08:15:30,25", "2027-07-01T08:15:30.250000"),
        ("20270701T081530.5", "2027-07-01T08:15:30.500000"),
        ("20270701t0815", "2027-07-01T08:15:00"),
        ("2027-06-30T24:00", "2027-07-01T00:00:00"),
    ],
)
def test_an_instant_without_a_zone_is_local(zone: str, text: str, there: str) -> None:
    """Dates by month, week or day of the year, basic or extended."""
    assert parse_at(text, NOW) == datetime.fromisoformat(there).astimezone()


@everywhere
@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2027-07-01T08:00Z", datetime(2027, 7, 1, 8, tzinfo=UTC)),
        ("20270701T0800z", datetime(2027, 7, 1, 8, tzinfo=UTC)),
        ("2027-07-01T08:00+05", datetime(2027, 7, 1, 3, tzinfo=UTC)),
        ("2027-07-01 08:00 -0330", datetime(2027, 7, 1, 11, 30, tzinfo=UTC)),
        ("2027-W26-4T08:00+05:30", datetime(2027, 7, 1, 2, 30, tzinfo=UTC)),
        ("@1900000000", datetime(2030, 3, 17, 17, 46, 40, tzinfo=UTC)),
        ("@0.5", datetime(1970, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
        ("15:00Z", datetime(2026, 9, 21, 15, tzinfo=UTC)),
        ("14:00:00+00:00", datetime(2026, 9, 22, 14, tzinfo=UTC)),
        ("T0300-11", datetime(2026, 9, 22, 14, tzinfo=UTC)),
        ("04:13:21+14", datetime(2026, 9, 21, 14, 13, 21, tzinfo=UTC)),
    ],
)
def test_one_that_says_its_zone_is_taken_at_its_word(zone: str, text: str, instant: datetime) -> None:
    """Wherever the reader lives; a time of day is the next one of that zone."""
    assert parse_at(text, NOW) == instant


@everywhere
def test_a_time_of_day_is_the_next_one(zone: str) -> None:
    """Later today, else tomorrow; never in the past."""
    now = NOW.astimezone()
    later, sooner = now + timedelta(minutes=5), now - timedelta(minutes=5)
    assert parse_at(f"{later:%H:%M:%S}", now) == later.replace(microsecond=0)
    assert parse_at(f"{sooner:%H:%M:%S}", now) == sooner.replace(microsecond=0) + timedelta(days=1)


@pytest.mark.parametrize(
    "text",
    [
        "", "soon", "25:00", "2026-13-01T00:00", "8", "08", "0800", "2027", "2027-07", "202707", "2027-0701", "2027182",
        "1900000000", "1900000000.5", "1900000000000", "20270701081500", "202707010815", "2027070120815",
        "2027-02-29", "2027-366", "2027-000", "2026-W54-1", "2026-W10-8", "2026-W10", "27-07-01", "2027/07/01",
        "2027-07-01T", "2027-07-01T08:6", "2027-07-01T08:60", "2027-07-01T08:00:60", "2027-07-01T24:01",
        "2027-07-01x08:00", "2027-07-01T08:1530", "2027-07-01T08:00+25", "2027-07-01T08:00+05:60", "08:00 PM",
        "+002027-07-01", "0000-01-01", "0001-01-01T00:00+14", "9999-12-31T23:00-14", "@999999999999", "@-1", "@1e9",
        "\u0662\u0660\u0662\u0667-\u0660\u0667-\u0660\u0661", "+10m", "in 10m", "9" * 100_000, "P1D", "now",
    ],
)  # fmt: skip
def test_what_is_no_instant_is_told(text: str) -> None:
    """With what would be one, in a sentence that is no longer for a long text."""
    with pytest.raises(ConfigError, match="write 2026-11-30T08:00") as caught:
        parse_at(text, NOW)
    assert len(str(caught.value)) < 300


def test_an_instant_that_is_over_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """The job starts at once, which may not be what was meant."""
    assert parse_at("2020-01-01T00:00Z", NOW) == datetime(2020, 1, 1, tzinfo=UTC)
    assert "is in the past" in capsys.readouterr().err


@berlin
@pytest.mark.parametrize("text", ["2027-03-28T02:30", "20270328 02:00", "2027-W12-7T02:59:59"])
def test_a_time_that_the_clocks_leave_out_is_refused(zone: str, text: str) -> None:
    """It would be due an hour early or late; the message has the two instants that may be meant."""
    with pytest.raises(ConfigError, match=r"no time here.*2027-03-28T01:\d\d\+01:00 or 2027-03-28T03:\d\d\+02:00"):
        parse_at(text, NOW)


@berlin
def test_a_time_of_day_that_is_left_out_is_that_of_the_day_after(zone: str) -> None:
    """The next time at which the clock shows it."""
    night = datetime(2027, 3, 28, 1, tzinfo=timezone(timedelta(hours=1)))
    assert parse_at("02:30", night) == datetime(2027, 3, 29, 0, 30, tzinfo=UTC)


@berlin
def test_a_time_that_comes_twice_is_said(zone: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The first is taken; a time of day is the second when the first is over."""
    assert parse_at("2026-10-25T02:30", NOW) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert "comes twice" in capsys.readouterr().err
    between = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)
    assert parse_at("02:30", between) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert parse_at("2026-10-25T02:30+01:00", NOW) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert not capsys.readouterr().err
