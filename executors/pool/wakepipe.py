"""A pipe that wakes a thread which sleeps in a poll. Waking is one system call, which is safe in signal handlers."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

__all__ = ["WakePipe"]

#: Bytes that a pipe holds at the most: one read empties it.
_PIPE_BYTES: Final = 1 << 16


class WakePipe:
    """`wake` is for any thread, `drain` for the one that polls `fd`."""

    __slots__ = ("_write_end", "fd")

    def __init__(self) -> None:
        #: Readable when it was woken.
        self.fd, self._write_end = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_end, False)

    def wake(self) -> bool:
        """End the sleep; return False if that is not needed: the pipe is full, or closed."""
        try:
            os.write(self._write_end, b"\0")
        except OSError:
            return False
        return True

    def drain(self) -> None:
        """Empty it."""
        with suppress(BlockingIOError):
            os.read(self.fd, _PIPE_BYTES)

    def close(self) -> None:
        """Free it."""
        os.close(self.fd)
        os.close(self._write_end)
