"""The result of a chunk as bytes: read as it was written, and refused when it is anything else."""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.chunks import pack_outcomes, pack_values, read_chunk, read_items, read_outcomes
from taskq.codec import decode, encode
from taskq.errors import DecodeError
from taskq.failure import Failure
from taskq.states import Reason

FAILURE = Failure(reason=Reason.ERROR, type="ValueError", message="bad")


def test_values() -> None:
    """A chunk of which every item succeeded has its values in one message."""
    data = pack_values(5_000, [1, "a", (2,)])
    assert read_chunk(data, 3) == (5_000, [1, "a", (2,)], None)
    assert [decode(entry) for entry in read_outcomes(data) if isinstance(entry, bytes)] == [1, "a", (2,)]


def test_records() -> None:
    """A chunk with failures has a record for each item."""
    records = [encode(1), FAILURE, encode(None)]
    data = pack_outcomes(7, records)
    assert read_chunk(data, 3) == (7, None, records)
    assert read_outcomes(data) == records


def test_values_that_cannot_travel_together() -> None:
    """A value that cannot travel is a failure of its own item; so is one that is too large."""
    _, values, records = read_chunk(pack_values(1, [1, object(), b"x" * 100], limit=50), 3)
    assert values is None
    assert records is not None
    assert records[0] == encode(1)
    assert [entry.type for entry in records[1:] if isinstance(entry, Failure)] == ["taskq.errors.EncodeError"] * 2


def test_limit_is_for_each_value() -> None:
    """Values that are small each may be large together."""
    _, values, records = read_chunk(pack_values(1, [b"x" * 40] * 10, limit=50), 10)
    assert values == [b"x" * 40] * 10 if records is None else len(records) == 10


@pytest.mark.parametrize("jobs", [0, 2, 4])
def test_another_number_of_items(jobs: int) -> None:
    """A result with more or fewer entries than the chunk has items is refused."""
    for data in (pack_values(1, [1, 2, 3]), pack_outcomes(1, [encode(1)] * 3)):
        with pytest.raises(DecodeError):
            read_chunk(data, jobs)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        msgpack.packb([1, 0]),
        msgpack.packb(["1", 0, b"\x90"]),
        msgpack.packb([1, 2, b"\x90"]),
        msgpack.packb([1, 0, [1]]),
        msgpack.packb([1, 0, b"\xc1"]),
        msgpack.packb([1, 1, [5]]),
        msgpack.packb([1, 1, [[True]]]),
        msgpack.packb([1, 1, [[True, "text"]]]),
        msgpack.packb([1, 1, [[False, [1]]]]),
        msgpack.packb([1, 1, [[None, b""]]]),
    ],
)
def test_broken_results(data: bytes) -> None:
    """Whatever is no result of a chunk is a DecodeError."""
    with pytest.raises(DecodeError):
        read_chunk(data, 1)
    with pytest.raises(DecodeError):
        read_outcomes(data)


@given(st.binary(max_size=100))
def test_junk(junk: bytes) -> None:
    """Random bytes are refused or read, never anything else."""
    for read in (lambda: read_chunk(junk, 1), lambda: read_outcomes(junk), lambda: read_items(junk)):
        try:
            found: Any = read()
        except DecodeError:
            continue
        assert found is not None
