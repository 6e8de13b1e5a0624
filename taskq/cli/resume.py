"""The rows that an output file already holds, so that an interrupted map goes on where it was.

    rows, rows, rows, a torn ro      the torn end is cut off, and a last row that is an error: it runs again
    └── counted (in input order), or their "index" read (--unordered)

Rows are only ever appended, so a file that a crash left behind is whole up to its last line. `--retry-failed` writes a
new file:

    FILE        row 0   error 1   row 2   error 3   row 4
    FILE.new    row 0   new 1     row 2   new 3     row 4     takes the place of FILE at the end

Until then FILE is as it was, so a crash loses no row. After Ctrl-C the rows of lines that did not run again stay too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskq.cli.jsonl import BLOCK, LineSplitter
from taskq.cli.row_writer import Output
from taskq.cli.streams import CannotWrite, write_all, write_error
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from taskq.cli.jsonl import Done

__all__ = [
    "Earlier",
    "Either",
    "Indexes",
    "Prefix",
    "Rewrite",
    "Without",
    "index_of",
    "nothing_done",
    "read_back",
    "rewriting",
    "rows_of",
]

#: How rows begin, as `jsonl` writes them.
ORDERED_ERROR = re.compile(rb'\{"error": \{"type": ')

UNORDERED_ERROR = re.compile(rb'\{"index": \d{1,18}, "error": \{"type": ')

UNORDERED_ROW = re.compile(rb'\{"index": (\d{1,18}), "(result|error)": ')


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The items of earlier runs, their rows, and how many of these are errors.

    `failures`: the items with an error that are to run again; they are none of the others.
    """

    done: Done
    rows: int = 0
    failed: int = 0
    failures: Collection[int] = ()


class Prefix:
    """The first `count` items are done."""

    def __init__(self, count: int, name: str = "") -> None:
        self._count = count
        self._name = name

    def has(self, item: int) -> bool:
        """Return whether the item is among them."""
        return item < self._count

    def check(self, items: int) -> None:
        """Refuse an input with fewer items than there are rows."""
        if items < self._count:
            raise _other_input(self._name, self._count, items)


class Indexes:
    """The items whose indexes were added are done; holds few, because rows come nearly in order."""

    def __init__(self, name: str = "") -> None:
        self._below = 0
        #: Those behind the first gap.
        self.beyond: set[int] = set()
        self._highest = -1
        self._name = name

    def add(self, item: int) -> None:
        """Note an item as done."""
        self._highest = max(self._highest, item)
        if item >= self._below:
            self.beyond.add(item)
        while self._below in self.beyond:
            self.beyond.remove(self._below)
            self._below += 1

    def has(self, item: int) -> bool:
        """Return whether the item was added."""
        return item < self._below or item in self.beyond

    def check(self, items: int) -> None:
        """Refuse an input that ends before an index that was added."""
        if items <= self._highest:
            raise _other_input(self._name, self._highest + 1, items)


class Either:
    """What `done` has, and these items besides."""

    def __init__(self, done: Done, items: Collection[int]) -> None:
        self._done = done
        self._items = items

    def has(self, item: int) -> bool:
        """Return whether the item is among them."""
        return item in self._items or self._done.has(item)

    def check(self, items: int) -> None:
        """Refuse an input with fewer items."""
        self._done.check(items)


class Without:
    """What `done` has, but for these items."""

    def __init__(self, done: Done, items: Collection[int]) -> None:
        self._done = done
        self._items = items

    def has(self, item: int) -> bool:
        """Return whether the item is among them."""
        return item not in self._items and self._done.has(item)

    def check(self, items: int) -> None:
        """Refuse an input with fewer items."""
        self._done.check(items)


def nothing_done() -> Earlier:
    """Return what a fresh run starts from."""
    return Earlier(done=Prefix(0))


def read_back(output: Output, *, unordered: bool, again: bool = False) -> Earlier:
    """Read the rows that an output holds, and cut off its end where that has to be written again.

    `again`: the items of all rows with an error are to run again.

    Raises:
        ConfigError: the output cannot be read back, or its lines are not rows of such a run.
    """
    if not output.resumable:
        raise ConfigError(
            "--resume has to read what an earlier run wrote, which it cannot from "
            f"{output.name} as it is: use -o FILE (or >> FILE)"
        )
    descriptor = os.open(f"/proc/self/fd/{output.descriptor}", os.O_RDONLY) if output.name == "stdout" else None
    try:
        source = output.descriptor if descriptor is None else descriptor
        earlier, end = _scan(source, output.name, unordered=unordered, again=again)
    finally:
        if descriptor is not None:
            os.close(descriptor)
    os.ftruncate(output.descriptor, end)
    os.lseek(output.descriptor, end, os.SEEK_SET)
    return earlier


def _scan(descriptor: int, name: str, *, unordered: bool, again: bool) -> tuple[Earlier, int]:
    """Return what is done, and where the next row is to be written."""
    end = _keep_until(descriptor, name, unordered=unordered, again=again)
    is_error = (UNORDERED_ERROR if unordered else ORDERED_ERROR).match
    indexes, rows, failures, failed = Indexes(name), 0, set(), 0
    for at, row in enumerate(rows_of(descriptor, end)):
        rows += 1
        item = index_of(row, rows, name) if unordered else at
        if unordered:
            indexes.add(item)
        if is_error(row):
            failed += 1
            if again:
                failures.add(item)
    done = indexes if unordered else Prefix(rows, name)
    if not failures:
        return Earlier(done=done, rows=rows, failed=failed), end
    return Earlier(done=Without(done, failures), rows=rows - failed, failures=failures), end


def index_of(row: bytes, number: int, name: str) -> int:
    """Return the item of a row of an --unordered run; `number`: that of its line.

    Raises:
        ConfigError: it is none.
    """
    match = UNORDERED_ROW.match(row)
    if match is None:
        raise ConfigError(f"{name}: line {number} is no row of an --unordered run: leave that flag out")
    return int(match[1])


def _keep_until(descriptor: int, name: str, *, unordered: bool, again: bool) -> int:
    """Return how many bytes stay: all whole lines, but for the last when it is an error that only here runs again."""
    end = _after_line_end(descriptor, os.fstat(descriptor).st_size)
    start = _after_line_end(descriptor, end - 1)
    last = os.pread(descriptor, end - start, start)
    if not last:
        return 0
    try:
        json.loads(last)
    except (ValueError, RecursionError):
        raise ConfigError(f"{name} does not end in rows of taskq map: --resume cannot go on from it") from None
    if not unordered and UNORDERED_ROW.match(last):
        raise ConfigError(f"{name} holds rows of an --unordered run: add --unordered to resume it")
    return start if not again and (UNORDERED_ERROR if unordered else ORDERED_ERROR).match(last) else end


def _after_line_end(descriptor: int, before: int) -> int:
    """Return the place behind the last line end that stands before a place; 0 where there is none."""
    while before > 0:
        start = max(0, before - BLOCK)
        found = os.pread(descriptor, before - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        before = start
    return 0


def rows_of(descriptor: int, end: int | None = None) -> Iterator[bytes]:
    """Yield the rows of a file, without their line ends, up to a place; None: up to its end."""
    splitter, position = LineSplitter(), 0
    end = os.fstat(descriptor).st_size if end is None else end
    while position < end:
        data = os.pread(descriptor, min(BLOCK, end - position), position)
        position += len(data)
        yield from splitter.feed(data)


def _other_input(name: str, rows: int, items: int) -> ConfigError:
    return ConfigError(
        f"{name} has rows for {rows} items, the input has {items}: it is the output of another input; "
        "give another file, or leave out --resume to begin anew"
    )


#: What is added to the name of the file while it is written.
SUFFIX = ".new"

#: Bytes that are copied at once.
COPIED_AT_ONCE = 1 << 18


class Rewrite:
    """Copy the rows of an earlier run that stay. `output`: where the new ones go."""

    def __init__(self, old: Output, output: Output, earlier: Earlier, *, unordered: bool) -> None:
        self.output = output
        self._old = old
        self._failed = earlier.failures
        self._unordered = unordered
        self._rows = self._numbered()
        self._ahead = next(self._rows, None)

    def before(self, item: int) -> Iterator[bytes]:
        """Yield the rows that stay of the items before this one, each once; with --unordered they come at the end."""
        while not self._unordered and self._ahead is not None and self._ahead[0] < item:
            number, row = self._ahead
            if number not in self._failed:
                yield row + b"\n"
            self._ahead = next(self._rows, None)

    def finish(self) -> None:
        """Add the rows of all items that have no new one.

        Raises:
            CannotWrite: the disk is full, say.
        """
        written = self._written()
        os.lseek(self.output.descriptor, 0, os.SEEK_END)
        rest: list[bytes] = []
        size = 0
        for number, row in self._numbered():
            if number not in written:
                rest.append(row)
                size += len(row)
            if size > COPIED_AT_ONCE:
                self._write(rest)
                rest, size = [], 0
        self._write(rest)
        os.fsync(self.output.descriptor)

    def _written(self) -> range | set[int]:
        """Return the items whose rows are in the new file."""
        new = rows_of(self.output.descriptor)
        if self._unordered:
            return {index_of(row, at, self._old.name) for at, row in enumerate(new, 1)}
        return range(sum(1 for _ in new))

    def _numbered(self) -> Iterator[tuple[int, bytes]]:
        """Yield the rows of the earlier run, each with its item."""
        for at, row in enumerate(rows_of(self._old.descriptor)):
            yield (index_of(row, at + 1, self._old.name) if self._unordered else at), row

    def _write(self, rows: list[bytes]) -> None:
        write_all(self.output.descriptor, b"".join(row + b"\n" for row in rows), self._old.name)


@contextlib.contextmanager
def rewriting(old: Output, earlier: Earlier, *, unordered: bool) -> Iterator[Rewrite]:
    """Write a new output file in the block; when the block ends, however it does, it replaces the old one.

    Raises:
        ConfigError: the output is no file with a name.
        CannotWrite: the new file cannot be written; the old one is as it was.
    """
    if old.name == "stdout":
        raise ConfigError("--retry-failed replaces the output file, which stdout does not allow: use -o FILE")
    path = Path(f"/proc/self/fd/{old.descriptor}").readlink()
    new = path.with_name(path.name + SUFFIX)
    descriptor = _create(new, os.fstat(old.descriptor).st_mode & 0o777)
    output = Output(descriptor=descriptor, name=old.name, resumable=True)
    try:
        rewrite = Rewrite(old, output, earlier, unordered=unordered)
        try:
            yield rewrite
        except CannotWrite:
            raise
        except BaseException:
            _replace(rewrite, new, path)
            raise
        _replace(rewrite, new, path)
    finally:
        os.close(descriptor)
        new.unlink(missing_ok=True)


def _replace(rewrite: Rewrite, new: Path, path: Path) -> None:
    rewrite.finish()
    try:
        new.replace(path)
    except OSError as exc:
        raise write_error(exc, str(path)) from exc


def _create(path: Path, mode: int) -> int:
    try:
        path.unlink(missing_ok=True)  # of a run that was killed
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except OSError as exc:
        raise write_error(exc, str(path)) from exc
    os.fchmod(descriptor, mode)
    return descriptor
