"""The hands' sleep and its end."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from taskq.executors.worker.hands import Hands

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def hands() -> Iterator[Hands]:
    """Give hands with nothing in them."""
    made = Hands(processes=1)
    yield made
    made.close()


def would_wake(hands: Hands) -> bool:
    """Return whether the next sleep would end at once."""
    poll = select.poll()
    poll.register(hands.wake_fd, select.POLLIN)
    return bool(poll.poll(0))


@pytest.mark.parametrize("when", ["before it is written", "as soon as it is written"])
def test_woken_in_the_midst_of_a_wake(hands: Hands, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A worker that wakes while somebody is about to wake it sleeps at the latest after one more turn."""
    write = os.write

    def interleaved(fd: int, data: bytes) -> int:
        if when == "before it is written":
            hands.awake()
            return write(fd, data)
        written = write(fd, data)
        hands.awake()
        return written

    hands.sleeping = True
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", interleaved)
        hands.wake()
    assert not hands.sleeping
    if when == "as soon as it is written":
        assert not would_wake(hands), "one turn more than there was news"
    hands.awake()
    assert not would_wake(hands)


def test_nothing_is_read_where_nobody_woke_it(hands: Hands) -> None:
    """A sleep that ended by itself leaves the wake that comes after it to the next one."""
    hands.awake()
    hands.wake()
    assert would_wake(hands)
    hands.awake()
    assert not would_wake(hands)
