"""JSON lines in, rows out.

    file, pipe ──blocks──▶ lines ──those not done yet──▶ the pool ──outcomes──▶ rows

A line is handed on as it was read; of the input only the numbers of the lines under way are kept.
"""

from __future__ import annotations

import os
import select
import stat
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from taskq.cli.jsontext import to_json
from taskq.cli.line_task import MAX_LINE, TOO_LONG
from taskq.cli.tell import describe, traceback_of
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.progress import Progress

__all__ = ["PAUSE", "Done", "LineSplitter", "Lines", "count_lines", "error_row", "open_input", "result_row"]

#: Bytes read at once: more than a pipe holds, and even as the shortest lines only a few MB of objects.
BLOCK = 1 << 18

#: Bytes of the largest file whose lines are counted before the start, for the bar: a tenth of a second.
COUNTED = 256 << 20

#: What is handed on now and then while the input is silent, so that whoever waits for a line can look after
#: the results that have come meanwhile. It costs a child a microsecond.
PAUSE = b""

#: Seconds of silence that make a PAUSE.
PATIENCE = 0.05

#: An item's index, from 0, and its line's number, from 1.
Place: TypeAlias = tuple[int, int]

#: What Windows programs put before UTF-8.
BOM = b"\xef\xbb\xbf"


class Done(Protocol):
    """The items for which an earlier run has written rows."""

    def has(self, item: int) -> bool:
        """Return whether the item with this index, from 0, has its row."""

    def check(self, items: int) -> None:
        """Refuse an input of so many items if there are rows beyond it."""


def open_input(name: str) -> tuple[int, str]:
    """Open a file, or stdin for "-"; return its descriptor and its name for messages.

    Raises:
        ConfigError: it cannot be read.
    """
    if name == "-":
        return 0, "stdin"
    try:
        descriptor = os.open(name, os.O_RDONLY)
    except OSError as exc:
        raise ConfigError(f"cannot read {name}: {exc.strerror}") from exc
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"cannot read {name}: it is a directory; give a file of JSON lines, or - for stdin")
    return descriptor, name


class LineSplitter:
    """Make lines, without their ends, of blocks of bytes; TOO_LONG of one beyond `limit` bytes."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that a further block completes."""
        first, *rest = data.split(b"\n")
        self._keep(first)
        if not rest:
            return []
        rest.insert(0, b"".join(self._pieces))
        self._pieces, self._size = [], 0
        self._keep(rest.pop())
        return rest

    def end(self) -> list[bytes]:
        """Return the last line, if it has no end."""
        return [b"".join(self._pieces)] if self._size else []

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._limit:
            self._pieces.append(piece)
        else:
            self._pieces = [TOO_LONG]


class Lines:
    """Iterate over the lines of an input that are to be run, passing over blank ones and those done.

    From a pipe or a terminal that is silent while lines are under way, a PAUSE comes now and then.
    """

    def __init__(self, descriptor: int, name: str, done: Done) -> None:
        self._descriptor = descriptor
        self._name = name
        self._done = done
        self._regular = _size_of(descriptor) is not None
        #: Where the lines stood that were given out and not taken, by their number.
        self.under_way: dict[int, Place] = {}
        self._bytes = self._items = self._size = 0
        self._progress: Progress | None = None

    def __iter__(self) -> Iterator[bytes]:
        splitter, sent, item, number = LineSplitter(), 0, 0, 0
        data = b"begin"
        while data:
            while self._is_quiet():
                sent += 1
                yield PAUSE
            data = self._read()
            for line in splitter.feed(data) if data else splitter.end():
                number += 1
                if not line or line.isspace():
                    continue
                if not self._done.has(item):
                    self.under_way[sent] = (item, number)
                    sent += 1
                    yield line
                item += 1
            self._items = item
        self._done.check(item)

    def place(self, sent: int) -> Place | None:
        """Return the place of the `sent`th line given out while it is under way; None where it was a PAUSE."""
        return self.under_way.get(sent)

    def taken(self, sent: int) -> Place | None:
        """Return the place of the `sent`th line given out; None where it was a PAUSE."""
        return self.under_way.pop(sent, None)

    def _is_quiet(self) -> bool:
        """Wait a moment for input; return whether there is none while results are awaited."""
        if self._regular or not self.under_way:
            return False
        return not select.select([self._descriptor], [], [], PATIENCE)[0]

    def show_total(self, progress: Progress) -> None:
        """Tell a bar how many items there are: counted in a moderate file, guessed in a larger one."""
        size = _size_of(self._descriptor)
        if size is None:
            return
        if size <= COUNTED:
            progress.total = count_lines(self._descriptor)
        else:
            self._size, self._progress = size, progress

    def _guess_total(self) -> None:
        if self._progress is not None and self._items:
            share = min(1.0, self._bytes / self._size)
            self._progress.total = round(self._items / share)

    def _read(self) -> bytes:
        try:
            data = os.read(self._descriptor, BLOCK)
        except OSError as exc:
            raise ConfigError(f"cannot read {self._name}: {exc.strerror}") from exc
        if not self._bytes:
            data = data.removeprefix(BOM)
        self._guess_total()
        self._bytes += len(data)
        return data


def _size_of(descriptor: int) -> int | None:
    """Return the bytes of a regular file; None for a pipe or a terminal."""
    status = os.fstat(descriptor)
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def count_lines(descriptor: int) -> int:
    """Return the lines of a regular file from where it stands, which stays."""
    count, position, last = 0, os.lseek(descriptor, 0, os.SEEK_CUR), b"\n"
    while data := os.pread(descriptor, BLOCK, position):
        count += data.count(b"\n")
        position += len(data)
        last = data[-1:]
    return count + (last != b"\n")


def result_row(text: bytes, item: int | None) -> bytes:
    """Return the row of a result; with its item's index where rows come in any order."""
    return text + b"\n" if item is None else b'{"index": %d, "result": %b}\n' % (item, text)


def error_row(outcome: list[Any] | BaseException, line: int, item: int | None, *, tracebacks: bool) -> bytes:
    """Return the row of an item that failed."""
    error = to_json({"error": _describe(outcome, line, tracebacks)})
    return error + b"\n" if item is None else b'{"index": %d, %b\n' % (item, error[1:])


def _describe(outcome: list[Any] | BaseException, line: int, tracebacks: bool) -> dict[str, Any]:
    if isinstance(outcome, list):
        kind, message, *more = outcome
        fields: dict[str, Any] = more[0] if more else {}
        return {"type": kind, "message": message, "line": line, **fields}
    error = {**describe(outcome), "line": line}
    return {**error, "traceback": traceback_of(outcome)} if tracebacks else error
