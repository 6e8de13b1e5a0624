"""A program on a pseudo-terminal, and what a person would see on its screen."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
from typing import TYPE_CHECKING, Self

import pyte

from tests import processes
from tests.cli.command import LIMIT, environment
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

#: Bytes read of the terminal at once.
READ = 1 << 16

#: Makes the terminal the controlling one: the first that a session's leader opens is.
DOOR = 'exec "$@" <"$0" >"$0" 2>&1'

#: What takes the other screen and hides the cursor, and what gives them back.
TAKEN, GIVEN_BACK = b"\x1b[?1049h", b"\x1b[?1049l"
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"


class PseudoTerminal:
    """Run a command on a terminal of its own while inside `with`; leaving ends it."""

    def __init__(self, folder: Path, *words: object, columns: int = 100, lines: int = 30, **env: str) -> None:
        self._folder = folder
        self._words = [str(word) for word in words]
        self._size = (columns, lines)
        self._env = env
        self.output = b""

    def __enter__(self) -> Self:
        self._ours, self.theirs = os.openpty()
        self._screen = pyte.Screen(*self._size)
        self._stream = pyte.ByteStream(self._screen)
        self._set_size()
        self.modes = termios.tcgetattr(self.theirs)
        env = {**environment(self._folder), "TERM": "xterm-256color", **self._env}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            if name not in self._env:
                env.pop(name, None)
        self.process = subprocess.Popen(
            ["sh", "-c", DOOR, os.ttyname(self.theirs), *self._words],
            cwd=self._folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=processes.take_signals,  # noqa: PLW1509 - it sets signals, no more
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes.end(processes.of_session(self.process.pid))
        self.process.wait()
        os.close(self._ours)
        os.close(self.theirs)

    def _set_size(self) -> None:
        columns, lines = self._size
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    # -- what a person does

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Draw the window larger or smaller; the kernel tells the program."""
        self._size = (columns, lines)
        self._screen.resize(lines, columns)
        self._set_size()

    # -- what a person sees

    def read(self) -> str:
        """Take what has come, and return the screen as text."""
        while select.select([self._ours], [], [], 0)[0]:
            try:
                data = os.read(self._ours, READ)
            except OSError:
                break
            if not data:
                break
            self.output += data
            self._stream.feed(data)
        return "\n".join(line.rstrip() for line in self._screen.display)

    def shows(self, text: str) -> str:
        """Wait until a text is on the screen; return the screen."""
        eventually(lambda: text in self.read(), f"{text!r} to be on the screen:\n{self.read()}")
        return self.read()

    def wait(self) -> int:
        """Return the program's exit code; what it writes meanwhile is read, lest it wait for us."""
        eventually(lambda: self.read() is not None and self.process.poll() is not None, "the program to end", LIMIT)
        self.read()
        return self.process.returncode

    def assert_given_back(self) -> None:
        """Fail unless the terminal is as it was before the program."""
        self.read()
        assert self.output.rfind(GIVEN_BACK) > self.output.rfind(TAKEN) >= 0
        assert self.output.rfind(SHOWN) > self.output.rfind(HIDDEN) >= 0
        assert termios.tcgetattr(self.theirs) == self.modes
