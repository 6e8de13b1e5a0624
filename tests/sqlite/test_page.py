"""The shared page: its places, which programs of several versions share, and how it is mapped."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from taskq.executors.sqlite.page import SIZE, Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: The place of every number on the page, in steps of eight bytes: what other versions read and write there.
PLACES = {
    "wal.committed": 1,
    "wal.synced": 2,
    "completions": 3,
    "frames": 4,
    "holder": 5,
    "workers_generation": 6,
    "wal.suspect": 7,
    "created": 8,
    "wal.batch": 9,
    "wal.wanted": 10,
    "append_log.committed": 11,
    "append_log.synced": 12,
    "append_log.suspect": 13,
    "append_log.batch": 14,
    "append_log.wanted": 15,
    "append_log.last": 16,
    "append_log.ingested": 17,
    "append_log.seal": 18,
}

#: The byte of each futex: how often it woke, and behind it whether somebody listens.
FUTEXES = {
    "lock_futex": 256,
    "wal.synced_futex": 264,
    "wal.committed_futex": 272,
    "append_log.synced_futex": 280,
    "append_log.committed_futex": 288,
}


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    """Open a file of one page."""
    opened = os.open(tmp_path / "page", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(opened, SIZE)
    yield opened
    os.close(opened)


@pytest.fixture
def page(descriptor: int) -> Page:
    """Map it."""
    made = Page.new()
    made.attach(descriptor)
    return made


def _part(page: Page, name: str) -> tuple[Any, str]:
    part, _, field = name.rpartition(".")
    return (getattr(page, part) if part else page), field


@pytest.mark.parametrize(("name", "place"), PLACES.items())
def test_numbers_have_their_places(page: Page, descriptor: int, name: str, place: int) -> None:
    """Each number is eight bytes at its place, and nothing else changes with it."""
    setattr(*_part(page, name), 0x1122334455667788)
    words = struct.unpack(f"<{SIZE // 8}Q", os.pread(descriptor, SIZE, 0))
    assert {at: word for at, word in enumerate(words) if word} == {place: 0x1122334455667788}


@pytest.mark.parametrize(("name", "place"), FUTEXES.items())
def test_futexes_have_their_places(page: Page, descriptor: int, name: str, place: int) -> None:
    """A futex is four bytes that count its wakes, from the highest on to 0, and four that say whether one listens."""
    part, field = _part(page, name)
    futex = getattr(part, field)
    futex.wakes = 0xFFFFFFFF
    assert futex.listen() == 0xFFFFFFFF
    assert os.pread(descriptor, SIZE, 0)[place : place + 8] == b"\xff\xff\xff\xff\x01\0\0\0"
    futex.wake()
    assert not any(os.pread(descriptor, SIZE, 0))


def test_flags_have_their_places(page: Page, descriptor: int) -> None:
    """The flags of workers begin at byte 512, those of subscriptions at 1024."""
    page.flag_worker(3, 1)
    page.flag_subscription(5, 2)
    data = os.pread(descriptor, SIZE, 0)
    assert {at: byte for at, byte in enumerate(data) if byte} == {515: 1, 1029: 2}
    assert page.worker_in_need() == 3
    assert page.worker_in_need(4) == -1


def test_another_file_in_the_same_place(page: Page, descriptor: int, tmp_path: Path) -> None:
    """A page that is mapped anew shows the other file to all who hold it, and goes on from its numbers."""
    page.wal.committed, page.append_log.synced, page.completions = 7, 8, 9
    wal, numbers = page.wal, page.numbers()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(other, SIZE)
        page.attach(other)
        assert wal.committed == 0
        page.follow(numbers)
        assert (wal.committed, page.append_log.committed, page.completions) == (7, 8, 9)
        assert struct.unpack_from("<Q", os.pread(other, 16, 0), 8) == (7,)
        assert os.pread(descriptor, SIZE, 0)[8] == 7
    finally:
        os.close(other)


def test_no_file(page: Page) -> None:
    """What cannot be mapped is the system's error, and what was mapped stays."""
    page.frames = 5
    with pytest.raises(OSError, match="Bad file descriptor"):
        page.attach(-1)
    assert page.frames == 5
