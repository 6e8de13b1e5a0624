"""Keys of a terminal, however its bytes are cut."""

from __future__ import annotations

import pytest

from taskq.cli.top.terminal import KeyReader


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"jkG?", ["j", "k", "G", "?"]),
        (b"\x1b[A\x1bOB", ["up", "down"]),
        (b"\t\x1b[Z", ["tab", "backtab"]),
        (b"\r\n", ["enter", "enter"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["pageup", "pagedown", "home", "end"]),
        (b"\x1b[1;5A", []),
        (b"\x1b[99~q", ["q"]),
        (b"\x1bq", ["esc", "q"]),
        ("ä".encode(), ["ä"]),
        (b"\xff\xfe", []),
    ],
)
def test_keys_by_name(data: bytes, keys: list[str]) -> None:
    """Both kinds of cursor keys; unknown sequences are passed over whole."""
    reader = KeyReader()
    assert reader.feed(data) == keys
    assert not reader.undecided


def test_a_torn_key_waits_for_its_rest() -> None:
    """Each byte alone makes the same key."""
    reader = KeyReader()
    assert [key for byte in b"\x1b[5~j" for key in reader.feed(bytes([byte]))] == ["pageup", "j"]


def test_a_lone_escape_is_a_key_when_nothing_follows() -> None:
    """Only time tells it from the start of another."""
    reader = KeyReader()
    assert reader.feed(b"\x1b") == []
    assert reader.undecided
    assert reader.flush() == ["esc"]
    assert not reader.undecided
    assert reader.flush() == []
