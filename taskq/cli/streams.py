"""stdout and stderr of the command: every write that fails is told in one way, wherever it comes from.

    print, click, rich, structlog ──▶ sys.stdout ──▶ write(2) ── fails ──▶ OutputClosed, CannotWrite
                                  ──▶ sys.stderr ──▶ write(2) ── fails ──▶ nothing: there is nobody to tell

Python's own streams raise an OSError that looks like one of a network, and once more when the interpreter ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Any, TextIO

from taskq.errors import ConfigError, TaskqError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

__all__ = [
    "CannotWrite",
    "OutputClosed",
    "claimed_stdout",
    "drop_stdout",
    "finish_stdout",
    "guard_streams",
    "hold_standard_descriptors",
    "need_stdout",
    "write_all",
    "write_error",
]

#: stdin, stdout, stderr by number.
STDIN, STDOUT, STDERR = 0, 1, 2


class CannotWrite(TaskqError, OSError):
    """Output could not be written; the message says why."""


class OutputClosed(BrokenPipeError):
    """The reader of our output is gone; a class of its own, since connections raise BrokenPipeError too."""


def write_error(error: OSError, name: str) -> OSError:
    """Return the error to raise for one of write(2). `name`: where the output goes."""
    if isinstance(error, BrokenPipeError):
        return OutputClosed(f"nobody reads {name} any more")
    return CannotWrite(f"cannot write {name}: {error.strerror}")


def write_all(descriptor: int, data: Buffer, name: str) -> None:
    """Write bytes to a descriptor.

    Raises:
        OutputClosed, CannotWrite: it cannot be done.
    """
    rest = memoryview(data).cast("B")
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # who started us made the pipe non-blocking
            select.select([], [descriptor], [])
        except OSError as exc:
            raise write_error(exc, name) from exc


@contextlib.contextmanager
def claimed_stdout() -> Iterator[int]:
    """Keep stdout for data: yield a descriptor of it; what is printed, also by children, goes to stderr."""
    if sys.stdout is not None:
        sys.stdout.flush()
    kept = fcntl.fcntl(STDOUT, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
    try:
        _point(STDOUT, at=STDERR)
        yield kept
    finally:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
        os.dup2(kept, STDOUT)
        os.close(kept)


def hold_standard_descriptors() -> None:
    """Open /dev/null for what is closed of stdin, stdout and stderr, so that no file of ours becomes one."""
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _point(descriptor: int, *, at: int) -> None:
    """Make one descriptor a duplicate of another; of /dev/null, where that one is closed."""
    try:
        os.dup2(at, descriptor)
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, descriptor)
        os.close(nothing)


def need_stdout() -> None:
    """Refuse to go on without a stdout.

    Raises:
        ConfigError: who started us has closed it.
    """
    if sys.stdout is None:
        raise ConfigError("stdout is closed, so the output has no place: redirect it with > FILE")


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
    """Replace Python's stdout and stderr, where those are the process's own."""
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
    """Drop what is buffered for a stdout that cannot be written, or the interpreter's end would report it again."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Descriptor):
        raw.dropping = True
