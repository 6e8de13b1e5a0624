"""The output of jobs besides their results: what they print, log, and note of themselves.

    child    OutputCapture: one file for file descriptors 1 and 2, so that text written by C code and by other programs
             that the job starts is in it. When a job ends, its text is sent to the parent and the file is emptied.
    parent   JobOutput: all that one job has said. Reads the file of a running job live, and of a dead child.

The file is anonymous memory, opened to append, so emptying it cannot make a hole in it. It is only as large as
what one job prints; beyond the limit the parent gives its memory back while the job runs.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from taskq.executors.pool import protocol

__all__ = ["OUTPUT_LIMIT", "JobOutput", "OutputCapture", "last_words", "trim"]

#: Bytes kept of what a job says; with the line that tells what was left out, a mebibyte.
OUTPUT_LIMIT: Final = 1024 * 1024 - 256
#: Bytes of memory that a job's file may take before what is above the limit is given back.
_TRIM_FROM: Final = OUTPUT_LIMIT + 4 * 1024 * 1024
#: From where on it is given back: a multiple of any page's size, above the limit.
_TRIM_TO: Final = 1024 * 1024
#: What st_blocks counts.
_BLOCK: Final = 512
#: Linux' fallocate: free the memory behind a range, keep the file's size.
_PUNCH_HOLE_KEEP_SIZE: Final = 2 | 1
#: C's setvbuf: write whole lines.
_LINE_BUFFERED: Final = 1


class OutputCapture:
    """The file into which a child prints. In the child."""

    def __init__(self) -> None:
        self.fd = _append_only_memory()

    def take_over(self) -> None:
        """Have everything that this process prints from now on go into the file, line by line."""
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            _flush(stream)
            os.dup2(self.fd, number)
        sys.stdout = _by_lines(sys.stdout, 1)
        sys.stderr = _by_lines(sys.stderr, 2)
        _make_c_print_by_lines()

    def write(self, data: bytes) -> None:
        """Add text, behind all that was printed before."""
        _flush(sys.stdout)
        _flush(sys.stderr)
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def size(self) -> int:
        """Return how many bytes were printed since the file was emptied."""
        _flush(sys.stdout)
        _flush(sys.stderr)
        return os.lseek(self.fd, 0, os.SEEK_END)

    def take(self) -> bytes:
        """Return what is in the file, up to the limit, and empty it."""
        data = os.pread(self.fd, OUTPUT_LIMIT, 0)
        os.ftruncate(self.fd, 0)
        return data


def _append_only_memory() -> int:
    if hasattr(os, "memfd_create"):
        import fcntl  # noqa: PLC0415  # in the child only

        fd = os.memfd_create("taskq-output")
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        return fd
    import tempfile  # noqa: PLC0415  # macOS: see page.create_memory

    with tempfile.TemporaryFile("ab+") as file:
        return os.dup(file.fileno())


def _by_lines(stream: Any, number: int) -> Any:
    """Return a stream that hands each line to the system when it is complete."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
        return stream
    return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _make_c_print_by_lines() -> None:
    """Have C code's printf write whole lines at once too, where its library can be asked."""
    import ctypes  # noqa: PLC0415  # in the child only

    try:
        library = ctypes.CDLL(None)
        stdout = ctypes.c_void_p.in_dll(library, "stdout")
        library.setvbuf(stdout, None, _LINE_BUFFERED, 0)
    except (OSError, ValueError, AttributeError):
        return


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except (AttributeError, OSError, ValueError):  # no stream, or a job closed it: not our affair
        return


# --- in the parent


class JobOutput:
    """What one job has said, over all its attempts. Written by the dispatcher's thread, read by any."""

    __slots__ = ("live", "meta_bytes", "text")

    def __init__(self) -> None:
        self.text = b""
        #: What the running attempt has printed so far; it comes once more when that has ended.
        self.live = b""
        #: Codec bytes of its notes; None: it made none.
        self.meta_bytes: bytes | None = None

    def take(self, what: int, data: bytes, size: int) -> None:
        """Take a note. `size`: of what was printed, how many bytes there were in all."""
        if what == protocol.META:
            self.meta_bytes = data
            return
        self.live = b""
        room = max(0, OUTPUT_LIMIT - len(self.text))
        left_out = max(size, len(data)) - min(room, len(data))
        if room or not left_out:
            self.text += data[:room]
        if left_out and room:
            self.text += f"\n... {left_out:,} more bytes were left out: the first MiB is kept\n".encode()

    def all(self) -> bytes:
        """Return all its text, as of now."""
        return self.text + self.live

    def peek(self, output: int) -> bytes:
        """Return what the running job has printed since it was looked at last."""
        seen = len(self.live)
        room = OUTPUT_LIMIT - len(self.text) - seen
        return os.pread(output, room, seen) if room > 0 else b""

    def meta(self) -> dict[str, Any]:
        """Return its notes, as of now."""
        from taskq import codec  # noqa: PLC0415  # 10 ms that only who asks pays

        return {} if self.meta_bytes is None else codec.decode(self.meta_bytes)


def last_words(output: int | None) -> tuple[bytes, int] | None:
    """Return what a dead child's job had printed, and how much that was in all; None: nothing."""
    size = 0 if output is None else os.fstat(output).st_size
    return (os.pread(output, OUTPUT_LIMIT, 0), size) if output is not None and size else None


def trim(output: int | None) -> None:
    """Give back the memory of what a running job has printed far above the limit."""
    if output is None or os.fstat(output).st_blocks * _BLOCK < _TRIM_FROM:
        return
    import ctypes  # noqa: PLC0415  # a job that prints without end is rare

    fallocate = getattr(ctypes.CDLL(None), "fallocate", None)
    if fallocate is not None:
        end = os.fstat(output).st_size
        lengths = (ctypes.c_longlong(_TRIM_TO), ctypes.c_longlong(end - _TRIM_TO))
        fallocate(output, _PUNCH_HOLE_KEEP_SIZE, *lengths)
