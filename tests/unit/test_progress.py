"""The progress display: what it says, where it shows, and that nothing of it stays."""

from __future__ import annotations

import io
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from taskq import progress as module
from taskq.progress import PlainLines, Progress, track

if TYPE_CHECKING:
    from collections.abc import Callable

    PutStderr = Callable[[io.StringIO], io.StringIO]


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time on it."""
        return self.now


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the progress a clock of ours."""
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> PutStderr:
    """Give a function that puts a stderr of the test's in place; pytest sets its own after the fixtures."""

    def put(stream: io.StringIO) -> io.StringIO:
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return put


def test_says_share_failures_speed_and_time_left(clock: Clock) -> None:
    """With a total: how much of it, how fast of late, how long still."""
    progress = Progress(5000, enabled=False)
    clock.now += 5
    progress.advance(1200, failed=3)
    assert progress.text() == "1,200 of 5,000 (24 %), 3 failed, 240/s, 16 s left"


def test_says_count_speed_and_time_taken_without_a_total(clock: Clock) -> None:
    """An endless input has no share and no end."""
    progress = Progress(enabled=False)
    clock.now += 4
    progress.advance(10)
    assert progress.text() == "10, 2.5/s, 4 s"


def test_speed_follows_the_last_seconds(clock: Clock) -> None:
    """A slow start does not drag on for ever."""
    progress = Progress(100_000, enabled=False)
    for _ in range(100):
        clock.now += 1
        progress.advance(1)
        progress.text()
    for _ in range(40):
        clock.now += 1
        progress.advance(100)
        text = progress.text()
    assert " 100/s" in text


def test_what_was_done_before_does_not_count_as_speed(clock: Clock) -> None:
    """A resumed run starts with a count, not with a record."""
    progress = Progress(2000, enabled=False)
    progress.advance(1000)
    with progress:
        clock.now += 10
        progress.advance(100)
        assert progress.text() == "1,100 of 2,000 (55 %), 10/s, 1:30 left"


def test_the_end_is_told_with_the_average(clock: Clock) -> None:
    """At the end the total is what was done, and the speed that of the whole run."""
    with Progress(12, enabled=False) as progress:
        clock.now += 3700
        progress.advance(10)
    assert progress.text() == "10 of 10 (100 %), 0.0/s, 1:01:40"


def test_an_interrupted_run_keeps_its_total(clock: Clock) -> None:
    """What was broken off is not shown as complete."""
    progress = Progress(12, enabled=False)
    clock.now += 1
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    assert progress.total == 12


@pytest.mark.parametrize(("enabled", "shown"), [(None, False), (True, True), (False, False)])
def test_without_a_terminal_only_on_request(stderr: PutStderr, enabled: bool | None, shown: bool) -> None:
    """A log file is not filled unless that was asked for."""
    file = stderr(io.StringIO())
    with Progress(3, "demo", enabled) as progress:
        progress.advance(3)
        assert progress.shown is shown
    assert bool(file.getvalue()) is shown
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize(("enabled", "shown"), [(None, True), (True, True), (False, False)])
def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, enabled: bool | None, shown: bool) -> None:
    """On a terminal the bar is the default."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(3, "demo", enabled) as progress:
        progress.advance(3, failed=1)
    assert ("━" in terminal.getvalue()) is shown
    assert ("1 failed" in terminal.getvalue()) is shown


def test_plain_lines_come_now_and_then() -> None:
    """Where there is no terminal a line is written every so often, by a thread that ends."""
    lines: list[str] = []
    two = threading.Event()

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            lines.append(text)
            if len(lines) >= 2:
                two.set()
            return len(text)

    before = sys.stderr
    sys.stderr = Watched()
    try:
        plain = PlainLines(Progress(5, "demo", enabled=False), every=0.001)
        plain.start()
        assert two.wait(30)
        plain.stop()
    finally:
        sys.stderr = before
    assert all(line.startswith("demo: 0 of 5 (0 %)") for line in lines)


def test_a_stderr_that_went_away_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is a courtesy: it never raises."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())
    with Progress(1, enabled=True) as progress:
        progress.advance()
    monkeypatch.setattr(sys, "stderr", None)
    assert Progress(1, enabled=True).shown is False


def test_track_yields_what_it_is_given(stderr: PutStderr) -> None:
    """The items pass through, the last line counts them."""
    file = stderr(io.StringIO())
    assert list(track("abc", 3, "letters")) == ["a", "b", "c"]
    assert file.getvalue().startswith("letters: 3 of 3 (100 %)")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1:00"), (125, "2:05"), (3600, "1:00:00")]
)
def test_clock_times(seconds: float, text: str, clock: Clock) -> None:
    """Times are short to read."""
    progress = Progress(enabled=False)
    clock.now += seconds
    assert progress.details()[-1] == text


def test_advance_is_cheap() -> None:
    """Counting does nothing but add: no lock, no call, so that millions of items can be counted."""
    advance: Callable[..., None] = Progress.advance
    assert advance.__code__.co_names == ("done", "failed")
