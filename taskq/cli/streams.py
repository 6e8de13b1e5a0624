"""stdout and stderr of the command: every write that fails is told in one way, wherever it comes from.

    print, click, rich, structlog ──▶ sys.stdout ──▶ write(2) ── fails ──▶ OutputClosed, CannotWrite
                                  ──▶ sys.stderr ──▶ write(2) ── fails ──▶ nothing: there is nobody to tell

Python's own streams raise an OSError that looks like one of a network, and once more when the interpreter ends.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from taskq.cli.output import STDERR, STDOUT, write_all

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["drop_stdout", "finish_stdout", "guard_streams"]


class _Descriptor(io.RawIOBase):
    """Write all of what comes to a descriptor; what cannot be written is an error if `strict`, else dropped."""

    def __init__(self, descriptor: int, name: str, *, strict: bool) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._name = name
        self._strict = strict
        self.dropping = False

    def write(self, data: Buffer, /) -> int:
        """Write it, however many steps that takes."""
        size = memoryview(data).nbytes
        with contextlib.suppress(*() if self._strict else (OSError,)):
            if not self.dropping:
                write_all(self._descriptor, data, self._name)
        return size

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


def guard_streams() -> None:
    """Put streams of ours in the place of Python's, where those are the process's own."""
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = _like(sys.stdout, _Descriptor(STDOUT, "stdout", strict=True))
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        sys.stderr = _like(sys.stderr, _Descriptor(STDERR, "stderr", strict=False))


def _like(stream: Any, raw: _Descriptor) -> TextIO:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, stream.errors, newline="\n", line_buffering=stream.line_buffering
    )


def finish_stdout() -> None:
    """Write what is left for stdout.

    Raises:
        OutputClosed, CannotWrite: it cannot be written.
    """
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def drop_stdout() -> None:
    """Forget what is left for a stdout that cannot be written: the end of the interpreter would tell it once more."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Descriptor):
        raw.dropping = True
