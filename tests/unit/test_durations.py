"""Lengths of time as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.durations import UNITS, parse_duration, to_seconds
from taskq.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("1.5", 1.5),
        (".5s", 0.5),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("2d", 172_800.0),
        ("1w", 604_800.0),
        ("1h30m", 5400.0),
        (" 1H 30m ", 5400.0),
        (90, 90.0),
        (0.25, 0.25),
        (timedelta(minutes=2, milliseconds=500), 120.5),
    ],
)
def test_reads_what_people_write(text: object, seconds: float) -> None:
    """Numbers are seconds, units may be combined, case and spaces do not matter."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "5x",
        "1h30",
        "-5",
        "0",
        0,
        -1,
        "1e3",
        "m",
        "1 2",
        "nan",
        "inf",
        True,
        None,
        float("nan"),
        [1],
        timedelta(0),
    ],
)
def test_refuses_what_is_no_length_of_time(value: object) -> None:
    """Anything else is refused with the value and an example."""
    with pytest.raises(ConfigError, match="1h30m") as caught:
        parse_duration(value)
    assert repr(value) in str(caught.value)


@given(st.integers(1, 10_000), st.sampled_from(sorted(UNITS)))
def test_a_number_with_a_unit_is_their_product(number: int, unit: str) -> None:
    """Every unit multiplies."""
    assert parse_duration(f"{number}{unit}") == pytest.approx(number * UNITS[unit])


def test_leaves_numbers_to_who_checks_them() -> None:
    """A text and a timedelta become seconds, of any size; all else stays what it is."""
    assert [to_seconds("t", value) for value in ("0", "2m", timedelta(seconds=-1))] == [0.0, 120.0, -1.0]
    things: list[object] = [1, -2.5, True, None, [1]]
    assert [to_seconds("t", thing) for thing in things] == things
    with pytest.raises(ConfigError, match="t='5x' is not a length of time"):
        to_seconds("t", "5x")
