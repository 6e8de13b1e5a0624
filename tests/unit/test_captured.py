"""What is kept of a command's output: no byte is changed, and what is missing is counted."""

from __future__ import annotations

import json
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.captured import HELD, Kept, Stream, as_document, output_of, packed, plain, said_of_cut
from taskq.cli.jsontext import to_text
from taskq.errors import DecodeError

outputs = st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda text: text.encode(errors="replace")))


def kept_of(data: bytes, limit: int) -> Stream:
    """Return what is kept of an output that came at once."""
    kept = Kept(limit)
    kept.add(data)
    return kept.stream()


@given(outputs)
def test_what_has_room_comes_as_it_was(data: bytes) -> None:
    """Through JSON and through a store's values, text or not; as text it stands there as such."""
    stream = kept_of(data, 1000)
    for result in (plain("stdout", stream), packed("stdout", stream, 500), as_document(packed("stdout", stream, 500))):
        assert output_of(result, "stdout") == data
        assert said_of_cut(result) == []
    document = json.loads(to_text(as_document(packed("stdout", stream, 500))))
    assert output_of(document, "stdout") == data
    try:
        assert document == {"stdout": data.decode()}
    except UnicodeDecodeError:
        assert document["stdout"] == data.decode(errors="replace")


@given(outputs, st.integers(2, 200))
def test_what_has_no_room_is_cut_in_its_middle(data: bytes, limit: int) -> None:
    """Start and end stay as they were, and the bytes that are missing are counted."""
    result = packed("stdout", kept_of(data, limit), 500)
    found, dropped = output_of(result, "stdout"), result.get("stdout_dropped_bytes", 0)
    assert len(found) + dropped == len(data)
    assert len(found) <= limit
    assert data.startswith(found[: len(found) // 2])
    assert data.endswith(found[len(found) // 2 :]) or not dropped
    assert bool(said_of_cut(result)) == bool(dropped)


def test_compression_is_what_counts() -> None:
    """Much of the same fits; noise is cut until its compressed bytes are within the limit."""
    same, noise = b"x" * 3_000_000, random.Random(1).randbytes(3_000_000)
    assert output_of(packed("stdout", kept_of(same, HELD), 50_000), "stdout") == same
    result = packed("stdout", kept_of(noise, HELD), 50_000)
    assert 40_000 < len(result["stdout_data"]) <= 50_000
    assert result["stdout_dropped_bytes"] + len(output_of(result, "stdout")) == len(noise)
    assert "of 3,000,000 bytes are kept" in said_of_cut(result)[0]
    assert len(result["stdout"].encode()) < 50_000


def test_a_cut_through_a_character_leaves_a_text() -> None:
    """It is no reason for base64."""
    data = "€".encode() * 1000
    for limit in range(100, 112):
        assert "stdout_base64" not in plain("stdout", kept_of(data, limit))
    assert "stdout_base64" in plain("stdout", kept_of(b"\xff" + data, 100))


@pytest.mark.parametrize(
    "result",
    [
        {"stdout": 5},
        {"stdout": "", "stdout_base64": "?"},
        {"stdout": "", "stdout_data": b"x"},
        {"stdout": "", "stdout_data": zlib.compress(bytes(HELD + 1))},
        {"stdout": "", "stdout_data": zlib.compress(b"x" * 100)[:-5]},
    ],
)
def test_a_stranger_s_result_is_refused(result: dict[str, object]) -> None:
    """Whatever stands there, and however large it would become."""
    with pytest.raises(DecodeError):
        output_of(result, "stdout")
