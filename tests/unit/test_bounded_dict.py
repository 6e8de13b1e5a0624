"""Dicts that keep only their newest entries."""

from __future__ import annotations

from taskq.bounded_dict import drop_oldest


def test_newest_stay() -> None:
    """The newest entries stay, in their order, and there are never more than a fifth above the limit."""
    entries: dict[int, str] = {}
    for number in range(1000):
        entries[number] = "x"
        drop_oldest(entries, 100)
        assert len(entries) <= 120
        assert list(entries) == list(range(number + 1 - len(entries), number + 1))
    assert len(entries) >= 100


def test_few_are_left_alone() -> None:
    """Below the limit nothing goes."""
    entries = dict.fromkeys(range(100))
    drop_oldest(entries, 100)
    assert len(entries) == 100
