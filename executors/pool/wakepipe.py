"""A pipe that wakes a thread which sleeps in a poll. Waking is one system call, which is safe in signal handlers."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WakePipe"]

#: Bytes that a pipe holds at the most: one read empties it.
_PIPE_BYTES: Final = 1 << 16


class WakePipe:
    """`wake` is for any thread, `drain` for the one that polls `fd`."""

    __slots__ = ("_write_end", "drain", "fd", "wake")

    def __init__(self) -> None:
        #: Readable when it was woken.
        self.fd, self._write_end = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_end, False)
        #: Ends the sleep. Raises OSError where that is not needed: the pipe is full, or closed.
        self.wake: Callable[[], int] = partial(os.write, self._write_end, b"\0")
        #: Empties it. Raises BlockingIOError when it was not woken.
        self.drain: Callable[[], bytes] = partial(os.read, self.fd, _PIPE_BYTES)

    def close(self) -> None:
        """Free it."""
        os.close(self.fd)
        os.close(self._write_end)
