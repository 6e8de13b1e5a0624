"""A job among the values: its id travels, and its result comes in its place."""

from __future__ import annotations

from typing import Any

import pytest

from taskq.codec import decode, encode
from taskq.errors import DecodeError, EncodeError

RESULTS = {"one": [1, 2], "two": {"a": (3,)}, "three": bytearray(b"x"), "four": 4}


class Handle:
    """Stand in for a job."""

    def __init__(self, job_id: str) -> None:
        self.id = job_id


def refer(value: object) -> str | None:
    """Return the id of a handle."""
    return value.id if isinstance(value, Handle) else None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Handle("one"), [1, 2]),
        ([Handle("one"), Handle("one")], [[1, 2], [1, 2]]),
        ({"x": (Handle("two"), 5)}, {"x": ({"a": (3,)}, 5)}),
        ([bytearray(b"y"), Handle("three")], [bytearray(b"y"), bytearray(b"x")]),
        ({Handle("four")}, {4}),
        ([1, [2, [3, Handle("four")]]], [1, [2, [3, 4]]]),
    ],
)
def test_result_in_the_place_of_a_job(value: Any, expected: Any) -> None:
    """Wherever a job stands, the decoded value has its result there."""
    data = encode(value, refer=refer)
    assert decode(data, resolve=RESULTS.__getitem__) == expected
    assert decode(data, resolve=RESULTS.__getitem__, max_depth=None) == expected


def test_golden_bytes() -> None:
    """A reference is extension 112 with the id in it."""
    assert encode(Handle("ab"), refer=refer).hex() == "d5706162"


def test_no_references_unless_asked_for() -> None:
    """Without the functions for it, a job is neither written nor read."""
    with pytest.raises(EncodeError, match="Handle"):
        encode([Handle("one")])
    encode(Handle("one"), refer=refer)
    with pytest.raises(EncodeError, match="Handle"):
        encode([Handle("one")])
    with pytest.raises(DecodeError, match="result of job 'one', which is not at hand"):
        decode(encode(Handle("one"), refer=refer))


def test_result_that_is_missing() -> None:
    """A result that cannot be had is an error of the message, with the reason."""
    with pytest.raises(DecodeError, match="nine"):
        decode(encode(Handle("nine"), refer=refer), resolve=RESULTS.__getitem__)


def test_references_in_a_large_message() -> None:
    """Also a message so large that its writer reads it once itself may have references."""
    value = [*([number] for number in range(50_000)), Handle("one")]
    assert decode(encode(value, refer=refer), resolve=RESULTS.__getitem__)[-1] == [1, 2]


def test_value_that_is_no_job() -> None:
    """A value that is no job is refused with its path, as ever."""
    with pytest.raises(EncodeError) as raised:
        encode({"when": [Handle("one"), object()]}, refer=refer, root="args")
    assert raised.value.path == "args['when'][1]"
