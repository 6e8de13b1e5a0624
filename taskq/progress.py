"""A progress bar on stderr: how many are done, how many of them failed, how fast, how long still.

    advance() adds to two numbers, so that it costs next to nothing;
    a thread of its own reads them: 8 times a second for a bar, every 10 s for a plain line

rich is imported when a bar is really shown. Without a terminal, plain lines serve a log file.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from rich.console import RenderableType

__all__ = ["Progress", "track"]

#: Renderings of the bar per second: smooth to the eye, and under 1 % of a CPU.
BAR_PER_SECOND = 8.0

#: Seconds between two plain lines: alive to a reader, and no flood in a log.
PLAIN_EVERY = 10.0

#: Seconds over which the speed is averaged: follows a change, does not jump with every chunk.
RATE_WINDOW = 15.0

#: Columns of the label at the most; the bar takes what the figures leave, and this at least.
LABEL_WIDTH = 24
BAR_MIN_WIDTH = 6

#: Columns of a terminal from which there is room for the label.
LABEL_FROM = 72

T = TypeVar("T")


class Display(Protocol):
    """A display of progress."""

    def start(self) -> None:
        """Begin to show."""

    def stop(self) -> None:
        """Show the last state once more, and leave the terminal as it was."""


class Progress:
    """The count of what is done, shown on stderr while inside `with`.

    `enabled`: None shows a bar on a terminal and nothing elsewhere; True also writes plain lines where there
    is no terminal; False shows nothing. `total` may be set later, or changed. `advance` is for one thread.
    """

    def __init__(self, total: int | None = None, label: str = "", enabled: bool | None = None) -> None:
        self.total = total
        self.label = label
        self.done = 0
        self.failed = 0
        self._samples: deque[tuple[float, int]] = deque()
        self._begin()
        self._display = _display(self, enabled)

    @property
    def shown(self) -> bool:
        """Whether anything is shown at all."""
        return self._display is not None

    def _begin(self) -> None:
        """Measure from here on: what a resumed run finds done already says nothing about the speed."""
        self._began, self._before = time.monotonic(), self.done
        self._samples = deque([(self._began, self.done)])

    def __enter__(self) -> Self:
        self._begin()
        if self._display is not None:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.total = self.done
        if self._display is not None:
            self._display.stop()

    def advance(self, n: int = 1, failed: int = 0) -> None:
        """Count `n` more as done, `failed` of them as failed."""
        self.done += n
        self.failed += failed

    def text(self) -> str:
        """Return the state in words: "1,200 of 5,000 (24 %), 3 failed, 240/s, 16 s left"."""
        return ", ".join([_share(self.done, self.total), *self.details()])

    def details(self) -> list[str]:
        """Return what stands behind the bar: failures, speed, time left."""
        parts = [f"{self.failed:,} failed"] if self.failed else []
        elapsed = time.monotonic() - self._began
        if self.total is not None and self.done < self.total:
            rate = self._rate()
            left = [f"{_clock((self.total - self.done) / rate)} left"] if rate else []
            return [*parts, f"{_rounded(rate)}/s", *left]
        rate = self._rate() if self.total is None else (self.done - self._before) / max(elapsed, 1e-9)
        return [*parts, f"{_rounded(rate)}/s", _clock(elapsed)]

    def _rate(self) -> float:
        """Return the items per second of late; called by the display's thread."""
        now, done = time.monotonic(), self.done
        samples = self._samples
        while len(samples) > 1 and samples[1][0] < now - RATE_WINDOW:
            samples.popleft()
        if now - samples[-1][0] > RATE_WINDOW / 60:
            samples.append((now, done))
        since, before = samples[0]
        return (done - before) / (now - since) if now > since else 0.0


def track(iterable: Iterable[T], total: int | None = None, label: str = "", enabled: bool | None = True) -> Iterator[T]:
    """Yield from an iterable and show how far it is."""
    with Progress(total, label, enabled) as progress:
        for item in iterable:
            progress.advance()
            yield item


def _display(progress: Progress, enabled: bool | None) -> Display | None:
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if enabled is False or (enabled is None and not terminal) or sys.stderr is None:
        return None
    return Bar(progress) if terminal else PlainLines(progress)


class Bar:
    """Progress as a bar on a terminal."""

    def __init__(self, progress: Progress) -> None:
        from rich.console import Console  # noqa: PLC0415  # 50 ms that only a terminal pays
        from rich.live import Live  # noqa: PLC0415  # only a bar needs it

        self._progress = progress
        self._console = Console(stderr=True)
        self._live = Live(
            get_renderable=self._line,
            console=self._console,
            refresh_per_second=BAR_PER_SECOND,
            redirect_stdout=False,
        )

    def start(self) -> None:
        """Begin to draw."""
        self._live.start()

    def stop(self) -> None:
        """Draw the last state, and give the terminal back."""
        self._live.stop()

    def _line(self) -> RenderableType:
        from rich.progress_bar import ProgressBar  # noqa: PLC0415  # see __init__
        from rich.table import Table  # noqa: PLC0415  # as above
        from rich.text import Text  # noqa: PLC0415  # as above

        progress = self._progress
        bar = ProgressBar(total=progress.total, completed=progress.done, pulse=progress.total is None)
        words = [Text(part, style="red" if part.endswith("failed") else "") for part in progress.details()]
        share = Text(_share(progress.done, progress.total))
        row = Table.grid(padding=(0, 1), expand=True)
        labelled = bool(progress.label) and self._console.width >= LABEL_FROM
        if labelled:
            row.add_column(no_wrap=True, overflow="ellipsis", max_width=LABEL_WIDTH)
        row.add_column(ratio=1, min_width=BAR_MIN_WIDTH)
        for _ in (share, *words):
            row.add_column(no_wrap=True)
        label: list[RenderableType] = [Text(progress.label)] if labelled else []
        row.add_row(*label, bar, share, *words)
        return row


class PlainLines:
    """Progress as a line now and then, where stderr is a file or a pipe."""

    def __init__(self, progress: Progress, every: float = PLAIN_EVERY) -> None:
        self._progress = progress
        self._every = every
        self._ended = Event()
        self._thread = Thread(target=self._run, name="taskq-progress", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write the last state, and end the thread."""
        self._ended.set()
        self._thread.join()
        self._write()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self._write()

    def _write(self) -> None:
        label = f"{self._progress.label}: " if self._progress.label else ""
        _print(f"{label}{self._progress.text()}\n")


def _print(line: str) -> None:
    """Write to stderr; a reader that went away must not end the work."""
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def _share(done: int, total: int | None) -> str:
    if total is None:
        return f"{done:,}"
    percent = f" ({min(done, total) * 100 // total} %)" if total else ""
    return f"{done:,} of {max(done, total):,}{percent}"


def _rounded(rate: float) -> str:
    """Return a speed with as many digits as mean something."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"  # noqa: PLR2004  # two digits from there on


def _clock(seconds: float) -> str:
    """Return a time as "16 s", "2:05" or "1:00:00"."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"
