"""Lines in, rows out: what is given on, what is passed over, and how outcomes are told."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.cli import jsonl
from taskq.cli.jsonl import (
    PAUSE,
    Lines,
    LineSplitter,
    count_lines,
    error_row,
    open_input,
    result_row,
)
from taskq.cli.line_task import TOO_LONG
from taskq.cli.resume import Indexes, Prefix
from taskq.errors import ConfigError, JobCrashed, JobFailed, JobTimeout, RemoteError
from taskq.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taskq.cli.jsonl import Done


@contextlib.contextmanager
def lines_of(path: Path, data: bytes, done: Done | None = None) -> Iterator[Lines]:
    """Open a file of these bytes as input."""
    path.write_bytes(data)
    descriptor, name = open_input(str(path))
    try:
        yield Lines(descriptor, name, done or Prefix(0))
    finally:
        os.close(descriptor)


@given(
    st.lists(st.binary(max_size=12).map(lambda piece: piece.replace(b"\n", b""))),
    st.integers(1, 9),
    st.booleans(),
)
def test_splitting_does_not_depend_on_the_blocks(wanted: list[bytes], size: int, ended: bool) -> None:
    """Whatever blocks the bytes come in, the lines are those of the whole."""
    data = b"\n".join(wanted) + (b"\n" if ended and wanted else b"")
    splitter = LineSplitter()
    found = [line for start in range(0, len(data), size) for line in splitter.feed(data[start : start + size])]
    found += splitter.end()
    assert found == data.removesuffix(b"\n").split(b"\n") if data else not found


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    """Beyond the limit a line is dropped as it comes; the next one is whole again."""
    splitter = LineSplitter(limit=10)
    found = [line for _ in range(1000) for line in splitter.feed(b"12345")]
    assert found == []
    assert splitter.feed(b"tail\nnext\n") == [TOO_LONG, b"next"]
    assert splitter.end() == []


def test_lines_are_given_with_their_places(tmp_path: Path) -> None:
    """Blank lines are passed over; items count from 0, lines from 1; a last line needs no end."""
    with lines_of(tmp_path / "in", b'1\n\n  \r\n"b"\r\nlast') as lines:
        given_out = list(lines)
        assert given_out == [b"1", b'"b"\r', b"last"]
        assert [lines.taken(sent) for sent in range(3)] == [(0, 1), (1, 4), (2, 5)]


def test_places_are_forgotten_when_taken(tmp_path: Path) -> None:
    """Only lines that are under way are remembered: an endless input takes no memory."""
    with lines_of(tmp_path / "in", b"1\n" * 1000) as lines:
        for sent, _ in enumerate(lines):
            lines.taken(sent)
            assert not lines.under_way


def test_a_byte_order_mark_is_taken_off(tmp_path: Path) -> None:
    """A file saved on Windows begins with one."""
    with lines_of(tmp_path / "in", b"\xef\xbb\xbf1\n2\n") as lines:
        assert list(lines) == [b"1", b"2"]


def test_done_items_are_passed_over(tmp_path: Path) -> None:
    """A resumed run gets the rest, with the places that the whole input gives them."""
    with lines_of(tmp_path / "in", b"1\n\n2\n3\n", Prefix(1)) as lines:
        assert list(lines) == [b"2", b"3"]
        assert [lines.taken(0), lines.taken(1)] == [(1, 3), (2, 4)]
    some = Indexes()
    some.add(2)
    some.add(0)
    with lines_of(tmp_path / "in", b"1\n\n2\n3\n", some) as lines:
        assert list(lines) == [b"2"]


@pytest.mark.parametrize("done", [Prefix(4, "out"), "indexes"])
def test_an_input_with_fewer_items_than_rows_is_refused(tmp_path: Path, done: Prefix | str) -> None:
    """The output of another input must not be gone on with."""
    rows: Done = Indexes("out") if isinstance(done, str) else done
    if isinstance(rows, Indexes):
        rows.add(3)
    with (
        lines_of(tmp_path / "in", b"1\n2\n3\n", rows) as lines,
        pytest.raises(ConfigError, match="out has rows for 4 items, the input has 3"),
    ):
        list(lines)


def test_a_silent_pipe_gives_pauses_only_while_results_are_awaited() -> None:
    """Results are not held back by a slow input; when nothing is under way the wait is a plain one."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"1\n")
        lines = Lines(reader, "pipe", Prefix(0))
        source = iter(lines)
        assert next(source) == b"1"
        assert [next(source), next(source)] == [PAUSE, PAUSE]
        assert lines.taken(1) is None
        assert lines.taken(0) == (0, 1)
        threading.Timer(0.2, lambda: os.write(writer, b"2\n")).start()
        assert next(source) == b"2"
        assert lines.taken(3) == (1, 2)
    finally:
        os.close(writer)
        os.close(reader)


def test_unreadable_inputs_are_refused(tmp_path: Path) -> None:
    """A missing file and a directory are told in one sentence."""
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere: No such file"):
        open_input(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="it is a directory; give a file of JSON lines"):
        open_input(str(tmp_path))
    assert open_input("-") == (0, "stdin")


def test_an_input_that_breaks_is_told(tmp_path: Path) -> None:
    """An error in the middle names the file."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ConfigError, match="cannot read folder: Is a directory"):
            list(Lines(descriptor, "folder", Prefix(0)))
    finally:
        os.close(descriptor)


@given(st.lists(st.sampled_from([b"1", b"", b"22"])), st.booleans())
def test_counting_lines_leaves_the_file_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], ended: bool
) -> None:
    """Lines are counted as they are given out, blank ones included."""
    path = tmp_path_factory.mktemp("count") / "in"
    data = b"\n".join(parts) + (b"\n" if ended else b"")
    path.write_bytes(data)
    descriptor, _ = open_input(str(path))
    try:
        assert count_lines(descriptor) == len(data.splitlines())
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    finally:
        os.close(descriptor)


def test_the_bar_knows_the_total_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in a moderate file, guessed while a large one is read, unknown for a pipe."""
    progress = Progress(enabled=False)
    with lines_of(tmp_path / "in", b"1\n" * 10) as lines:
        lines.show_total(progress)
        assert progress.total == 10
    monkeypatch.setattr(jsonl, "COUNTED", 0)
    monkeypatch.setattr(jsonl, "BLOCK", 100)
    guessed = Progress(enabled=False)
    with lines_of(tmp_path / "in", b"1\n" * 1000) as lines:
        lines.show_total(guessed)
        assert guessed.total is None
        source = iter(lines)
        for _ in range(60):
            next(source)
        assert guessed.total == 1000
    reader, writer = os.pipe()
    unknown = Progress(enabled=False)
    Lines(reader, "pipe", Prefix(0)).show_total(unknown)
    os.close(reader)
    os.close(writer)
    assert unknown.total is None


def test_rows_of_results() -> None:
    """The result's JSON as it is, or under its index."""
    assert result_row(b'{"a": 1}', None) == b'{"a": 1}\n'
    assert result_row(b'{"a": 1}', 7) == b'{"index": 7, "result": {"a": 1}}\n'


def with_trace(error: BaseException) -> BaseException:
    """Give an error the cause that errors of child processes have."""
    error.__cause__ = RemoteError("Traceback ...")
    return error


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (["BadLine", "not JSON"], {"type": "BadLine", "message": "not JSON", "line": 3}),
        (
            ["CommandFailed", "x", {"exit_code": 2}],
            {"type": "CommandFailed", "message": "x", "line": 3, "exit_code": 2},
        ),
        (with_trace(ValueError("no")), {"type": "ValueError", "message": "no", "line": 3}),
        (
            json.JSONDecodeError("m", "d", 0),
            {"type": "json.decoder.JSONDecodeError", "message": "m: line 1 column 1 (char 0)", "line": 3},
        ),
        (JobFailed("no", type="shop.Sold"), {"type": "shop.Sold", "message": "no", "line": 3}),
        (JobTimeout("late"), {"type": "JobTimeout", "message": "late", "line": 3}),
        (JobCrashed("died", crashes=3), {"type": "JobCrashed", "message": "died", "line": 3}),
    ],
)
def test_rows_of_errors(outcome: list[object] | BaseException, told: dict[str, object]) -> None:
    """Task, line, command and pool failures have one shape; with an index it stands in front."""
    assert json.loads(error_row(outcome, 3, None, tracebacks=False)) == {"error": told}
    row = error_row(outcome, 3, 2, tracebacks=False)
    assert row.startswith(b'{"index": 2, "error": {"type": ')
    assert json.loads(row) == {"index": 2, "error": told}


def test_tracebacks_only_on_request() -> None:
    """They are long, and the message says what happened."""
    row = json.loads(error_row(with_trace(ValueError("no")), 3, None, tracebacks=True))
    assert row["error"]["traceback"] == "Traceback ..."
