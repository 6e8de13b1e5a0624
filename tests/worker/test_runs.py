"""The pool runner's sleep and its end."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest

from taskq.executors.worker.runs import PoolRunner

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def runner() -> Iterator[PoolRunner]:
    """Give a runner without runs."""
    made = PoolRunner(processes=1)
    yield made
    made.close()


def would_wake(runner: PoolRunner) -> bool:
    """Return whether the next sleep would end at once."""
    poll = select.poll()
    poll.register(runner.wake_fd, select.POLLIN)
    return bool(poll.poll(0))


@pytest.mark.parametrize("when", ["before it is written", "as soon as it is written"])
def test_woken_in_the_midst_of_a_wake(runner: PoolRunner, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A worker that wakes while somebody is about to wake it sleeps at the latest after one more turn."""
    write = runner.wake_pipe.wake

    def interleaved() -> int:
        if when == "before it is written":
            runner.awake()
            return write()
        written = write()
        runner.awake()
        return written

    runner.sleeping = True
    with monkeypatch.context() as patched:
        patched.setattr(runner.wake_pipe, "wake", interleaved)
        runner.wake()
    assert not runner.sleeping
    if when == "as soon as it is written":
        assert not would_wake(runner), "one turn more than there was news"
    runner.awake()
    assert not would_wake(runner)


def test_nothing_is_read_where_nobody_woke_it(runner: PoolRunner) -> None:
    """A sleep that ended by itself leaves the wake that comes after it to the next one."""
    runner.awake()
    runner.wake()
    assert would_wake(runner)
    runner.awake()
    assert not would_wake(runner)
