"""What an output already holds: whole rows are kept, a torn end is cut off, a last error is run again."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.cli import jsonl, resume
from taskq.cli.jsonl import error_row, result_row
from taskq.cli.resume import Indexes, nothing_done, read_back
from taskq.cli.row_writer import Output, file_output
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from taskq.cli.resume import Earlier


def read(path: Path, *, unordered: bool = False) -> tuple[Earlier, bytes]:
    """Read an output back; return what was found and what is left of the file."""
    source = os.open(os.devnull, os.O_RDONLY)
    try:
        with file_output(str(path), source, keep=True) as output:
            earlier = read_back(output, unordered=unordered)
            os.write(output.descriptor, b"|")
    finally:
        os.close(source)
    return earlier, path.read_bytes()


def done_of(earlier: Earlier, items: int) -> list[int]:
    """Return the indexes that are done, of so many items."""
    return [item for item in range(items) if earlier.done.has(item)]


def ordered(count: int) -> bytes:
    """Return rows of a run in input order."""
    return b"".join(result_row(b'{"n": %d}' % number, None) for number in range(count))


ERROR = error_row(["BadLine", "not JSON"], 9, None, tracebacks=False)


@given(st.integers(0, 6), st.data())
def test_any_cut_of_an_ordered_file_keeps_its_whole_rows(
    tmp_path_factory: pytest.TempPathFactory, count: int, data: st.DataObject
) -> None:
    """Wherever a crash tore the file, the whole rows count and writing goes on behind them."""
    path = tmp_path_factory.mktemp("resume") / "out"
    whole = ordered(count)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    rows = whole[:cut].count(b"\n")
    earlier, left = read(path)
    assert (earlier.rows, earlier.failed, done_of(earlier, 8)) == (rows, 0, list(range(rows)))
    assert left == ordered(rows) + b"|"


@given(st.integers(0, 40), st.randoms(use_true_random=False), st.data())
def test_any_cut_of_an_unordered_file_keeps_its_indexes(
    tmp_path_factory: pytest.TempPathFactory, count: int, shuffle: random.Random, data: st.DataObject
) -> None:
    """The indexes of the whole rows are done, in whatever order they came."""
    path = tmp_path_factory.mktemp("resume") / "out"
    order = list(range(count))
    shuffle.shuffle(order)
    rows = [result_row(b"0", item) for item in order]
    whole = b"".join(rows)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    earlier, left = read(path, unordered=True)
    assert done_of(earlier, count) == sorted(order[:kept])
    assert left == b"".join(rows[:kept]) + b"|"


@pytest.mark.parametrize("garbage", [b"", b"{", b'{"n": 1', b"\0" * 5000, b"\xff"])
def test_a_torn_end_is_cut_off(tmp_path: Path, garbage: bytes) -> None:
    """Half a row, or the zeros that a power cut leaves, go."""
    path = tmp_path / "out"
    path.write_bytes(ordered(2) + garbage)
    earlier, left = read(path)
    assert earlier.rows == 2
    assert left == ordered(2) + b"|"


def test_a_last_error_is_run_again(tmp_path: Path) -> None:
    """What --on-error stop stopped at, or a crash came behind, is tried once more; earlier errors stay."""
    path = tmp_path / "out"
    path.write_bytes(ordered(1) + ERROR + ordered(1) + ERROR)
    earlier, left = read(path)
    assert (earlier.rows, earlier.failed) == (3, 1)
    assert left == ordered(1) + ERROR + ordered(1) + b"|"
    row = error_row(["BadLine", "x"], 3, 5, tracebacks=False)
    path.write_bytes(row + result_row(b"1", 2) + row)
    earlier, _ = read(path, unordered=True)
    assert (earlier.rows, earlier.failed, done_of(earlier, 9)) == (2, 1, [2, 5])


def test_rows_longer_than_a_block_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for the last row goes back as far as it must."""
    monkeypatch.setattr(resume, "BLOCK", 16)
    monkeypatch.setattr(jsonl, "BLOCK", 16)
    path = tmp_path / "out"
    long = result_row(b'"%s"' % (b"x" * 500), None)
    path.write_bytes(long * 3 + b'"torn' * 50)
    earlier, left = read(path)
    assert earlier.rows == 3
    assert left == long * 3 + b"|"


def test_an_empty_or_new_file_begins_at_the_beginning(tmp_path: Path) -> None:
    """--resume may stand on the first run already."""
    earlier, left = read(tmp_path / "new")
    assert (earlier.rows, left) == (0, b"|")
    assert nothing_done().rows == 0
    assert not nothing_done().done.has(0)


@pytest.mark.parametrize(
    ("data", "unordered", "message"),
    [
        (b"hello\nworld\n", False, "does not end in rows of taskq map"),
        (result_row(b"1", 0), False, "holds rows of an --unordered run: add --unordered"),
        (ordered(3), True, "line 1 is no row of an --unordered run: leave that flag out"),
    ],
)
def test_other_files_are_refused_and_left_as_they_are(
    tmp_path: Path, data: bytes, unordered: bool, message: str
) -> None:
    """Nothing is cut off a file that is not ours."""
    path = tmp_path / "out"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read(path, unordered=unordered)
    assert path.read_bytes() == data


def test_a_pipe_cannot_be_resumed() -> None:
    """The message tells the cure."""
    with pytest.raises(ConfigError, match="-o FILE"):
        read_back(Output(descriptor=1, name="stdout", resumable=False), unordered=False)


def test_done_indexes_take_little_memory() -> None:
    """Rows come nearly in order, so only the gaps are remembered."""
    done = Indexes()
    for start in range(0, 10_000, 10):
        for item in random.Random(start).sample(range(start, start + 10), 10):
            done.add(item)
        assert len(done.beyond) <= 10
    assert done.has(9_999)
    assert not done.has(10_000)
