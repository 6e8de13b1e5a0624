"""The rewrite of an output by `taskq map --retry-failed`: rows of lines that run again, among the rows that stay.

    FILE        row 0   error 1   row 2   error 3   row 4
    FILE.new    row 0   new 1     row 2   new 3     row 4     takes the place of FILE at the end

Until then FILE is as it was, so a crash loses no row. After Ctrl-C the rows of lines that did not run again stay too.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from taskq.cli.output import CannotWrite, Output, write_all, write_error
from taskq.cli.resume import index_of, rows_of
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.cli.resume import Earlier

__all__ = ["Rewrite", "rewriting"]

#: What is added to the name of the file while it is written.
SUFFIX = ".new"

#: Bytes that are copied at once.
BLOCK = 1 << 18


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
            if size > BLOCK:
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
    """Write an output anew in the block; at its end, also at an early one, the new file takes the place of the old.

    Raises:
        ConfigError: the output is no file with a name.
        CannotWrite: the new file cannot be written; the old one is as it was.
    """
    if old.name == "stdout":
        raise ConfigError("--retry-failed has to write the rows anew, which it cannot on stdout: use -o FILE")
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
