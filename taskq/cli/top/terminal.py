"""A terminal's modes and keys: keys as they are pressed, the other screen, no cursor; given back at any end.

    with Terminal(keys) as terminal:    cbreak mode, alternate screen, SIGWINCH and SIGTSTP wake the loop
        terminal.wait(...)              a key, a wake, or the time
        terminal.paint(lines)
    KeyReader().feed(data)              names of keys, of bytes however they are cut into pieces

Only SIGKILL can end the program with the terminal still taken; `reset` helps then.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import tty
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType, TracebackType

    from taskq.cli.screen import Line

__all__ = ["KeyReader", "Terminal", "key_descriptor"]

#: Columns and lines of a terminal that does not tell.
USUAL = (80, 24)

#: Bytes that are read of the keys, and of the wakes, at once.
READ = 1024


@contextlib.contextmanager
def key_descriptor() -> Iterator[int | None]:
    """Give the descriptor from which keys come: stdin, or the terminal itself where that is redirected."""
    if sys.stdin is not None and sys.stdin.isatty():
        yield sys.stdin.fileno()
        return
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Terminal:
    """Hold the terminal while inside `with`."""

    def __init__(self, keys: int | None) -> None:
        from rich.console import Console  # noqa: PLC0415 - 50 ms that only this command pays

        self._keys = keys
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._stack = contextlib.ExitStack()
        self._suspend = False

    # -- taking and giving back

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_wakes)
            for number, handler in ((signal.SIGWINCH, self._on_resize), (signal.SIGTSTP, self._on_stop)):
                stack.callback(signal.signal, number, signal.signal(number, handler))
            self._take(stack.enter_context(contextlib.ExitStack()))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _close_wakes(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _take(self, screen: contextlib.ExitStack) -> None:
        self._screen = screen
        if self._keys is not None:
            before = termios.tcgetattr(self._keys)
            screen.callback(termios.tcsetattr, self._keys, termios.TCSAFLUSH, before)
            tty.setcbreak(self._keys)
        self._picture = screen.enter_context(self._console.screen(hide_cursor=True))

    def _on_resize(self, _number: int, _frame: FrameType | None) -> None:
        self.wake()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._suspend = True
        self.wake()

    def _stop_here(self) -> None:
        """Give the terminal back, stop as Ctrl-Z asks, and take it again when the shell lets us go on."""
        self._suspend = False
        self._screen.close()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take(self._screen)

    # -- in and out

    def wake(self) -> None:
        """End the wait; from any thread, and from signal handlers."""
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")

    def wait(self, timeout: float | None) -> bytes:
        """Return what keys sent; empty after a wake, or after `timeout` seconds.

        Raises:
            EOFError: the terminal is gone.
        """
        sources = [self._wake_read] if self._keys is None else [self._wake_read, self._keys]
        ready = select.select(sources, [], [], timeout)[0]
        if self._wake_read in ready:
            with contextlib.suppress(OSError):
                os.read(self._wake_read, READ)
        if self._suspend:
            self._stop_here()
        if self._keys is None or self._keys not in ready:
            return b""
        data = os.read(self._keys, READ)
        if not data:
            raise EOFError("the terminal is gone")
        return data

    def size(self) -> tuple[int, int]:
        """Return the terminal's columns and lines, now."""
        try:
            size: Any = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            size = USUAL
        return tuple(size) if all(size) else USUAL

    def paint(self, lines: Iterable[Line]) -> None:
        """Fill the screen with lines, which must fit it."""
        from rich.text import Text  # noqa: PLC0415 - see __init__

        self._console.size = self.size()
        text = Text("\n").join(Text.assemble(*line) for line in lines)
        text.no_wrap, text.overflow = True, "crop"
        self._picture.update(text)


#: What terminals send for keys that have no character of their own, in both modes of the cursor keys.
SEQUENCES = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "Z": "backtab",
    "1~": "home",
    "4~": "end",
    "5~": "pageup",
    "6~": "pagedown",
}

CONTROLS = {"\t": "tab", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x0c": "redraw"}

SEQUENCE = re.compile(r"\x1b(?:\[|O)([0-9;]*[A-Za-z~])")

#: The start of a sequence whose rest has not come yet.
TORN = re.compile(r"\x1b(?:[\[O][0-9;]*)?")


class KeyReader:
    """Make names of keys of what a terminal sends, however it is cut into pieces."""

    def __init__(self) -> None:
        self._rest = ""

    @property
    def undecided(self) -> bool:
        """Whether what came last may be Esc, or the start of another key."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Return the keys that these bytes complete."""
        self._rest += data.decode(errors="ignore")
        return list(self._keys())

    def flush(self) -> list[str]:
        """Nothing more came: what looked like the start of a key was Esc."""
        rest, self._rest = self._rest, ""
        return ["esc", *rest[1:]] if rest else []

    def _keys(self) -> Iterator[str]:
        while self._rest and TORN.fullmatch(self._rest) is None:
            found = SEQUENCE.match(self._rest)
            if found is not None:
                self._rest = self._rest[found.end() :]
                if (name := SEQUENCES.get(found[1])) is not None:
                    yield name
            else:
                sign, self._rest = self._rest[0], self._rest[1:]
                yield "esc" if sign == "\x1b" else CONTROLS.get(sign, sign)
