"""Where rows go: whole, in order, soon; and what happens when they cannot go there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from taskq.cli import row_writer as module
from taskq.cli.row_writer import Output, RowWriter, file_output, stdout_output
from taskq.cli.streams import CannotWrite, claimed_stdout
from taskq.errors import ConfigError
from tests.scripts import run
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def source() -> Iterator[int]:
    """Give the descriptor of an input."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def output(descriptor: int) -> Output:
    """Make an output of a descriptor."""
    return Output(descriptor=descriptor, name="test", resumable=False)


def test_rows_arrive_whole_and_in_order(tmp_path: Path, source: int) -> None:
    """However many, however long."""
    rows = [b"%d " % number + b"x" * (number % 3000) + b"\n" for number in range(5000)]
    path = tmp_path / "out"
    with file_output(str(path), source, keep=False) as place, RowWriter(place) as writer:
        for row in rows:
            writer.put(row)
    assert path.read_bytes() == b"".join(rows)


def test_a_single_row_is_out_soon() -> None:
    """A row does not wait for the next one: someone may be reading along."""
    reader, end = os.pipe()
    os.set_blocking(reader, False)

    def read() -> bytes:
        try:
            return os.read(reader, 100)
        except BlockingIOError:
            return b""

    with RowWriter(output(end)) as writer:
        for row in (b"1\n", b"2\n", b"3\n"):
            writer.put(row)
            assert eventually(read, "the row to come out of the pipe") == row
    os.close(reader)
    os.close(end)


def test_a_slow_reader_makes_the_writer_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that cannot leave do not pile up in memory."""
    monkeypatch.setattr(module, "CROWDED", 100_000)
    reader, end = os.pipe()
    put: list[int] = []
    with RowWriter(output(end)) as writer:

        def produce() -> None:
            for number in range(300):
                writer.put(b"x" * 9_999 + b"\n")
                put.append(number)

        thread = threading.Thread(target=produce)
        thread.start()
        eventually(lambda: len(put) > 10, "the first rows to be taken")
        eventually(lambda: writer.put_bytes - writer.written_bytes > 100_000, "the writer to be crowded")
        assert len(put) < 40
        received = 0
        while received < 3_000_000:
            received += len(os.read(reader, 1 << 16))
        thread.join(30)
    os.close(reader)
    os.close(end)
    assert len(put) == 300


def test_a_reader_that_takes_nothing_does_not_outlast_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C there is an end to waiting; what the pipe did not take is lost."""
    monkeypatch.setattr(module, "LAST_CHANCE", 0.1)
    reader, end = os.pipe()

    def interrupted() -> None:
        with RowWriter(output(end)) as writer:
            writer.put(b"x" * 1_000_000)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    os.close(reader)
    os.close(end)


def test_a_reader_that_went_away_ends_the_writing() -> None:
    """`| head`: the next row, or the end, says so."""
    reader, end = os.pipe()
    os.close(reader)

    def put_for_ever() -> None:
        with RowWriter(output(end)) as writer:
            while True:
                writer.put(b"x\n")

    def put_once() -> None:
        with RowWriter(output(end)) as writer:
            writer.put(b"x\n")

    for attempt in (put_for_ever, put_once):
        with pytest.raises(BrokenPipeError):
            attempt()
    os.close(end)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_told() -> None:
    """The message names the file and the reason."""
    full = os.open("/dev/full", os.O_WRONLY)

    def put_once() -> None:
        with RowWriter(output(full)) as writer:
            writer.put(b"x\n")

    with pytest.raises(CannotWrite, match="cannot write test: No space left on device"):
        put_once()
    os.close(full)


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    """Some programs hand us such a stdout; no row is lost on it."""
    reader, end = os.pipe()
    os.set_blocking(end, False)
    received = bytearray()

    def drain() -> None:
        while len(received) < 2_000_000:
            received.extend(os.read(reader, 1 << 16))

    thread = threading.Thread(target=drain)
    with RowWriter(output(end)) as writer:
        for _ in range(200):
            writer.put(b"x" * 9_999 + b"\n")
        thread.start()
    thread.join(30)
    os.close(reader)
    os.close(end)
    assert len(received) == 2_000_000


def test_a_file_is_emptied_unless_kept(tmp_path: Path, source: int) -> None:
    """Only --force empties it, as `>` does; without a word nothing is lost."""
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with file_output(str(path), source, keep=True) as place:
        assert place.resumable
    with pytest.raises(ConfigError, match="is not empty"), file_output(str(path), source, keep=False):
        pass
    assert path.read_bytes() == b"before"
    with file_output(str(path), source, keep=False, force=True):
        pass
    assert path.read_bytes() == b""


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, source: int) -> None:
    """A missing folder, a directory."""
    for path in (tmp_path / "no" / "out", tmp_path):
        with pytest.raises(ConfigError, match="cannot write"), file_output(str(path), source, keep=False):
            pass


def test_a_device_can_be_written_but_not_resumed(source: int) -> None:
    """-o /dev/null works."""
    with file_output(os.devnull, source, keep=False) as place, RowWriter(place) as writer:
        writer.put(b"x\n")
        assert not place.resumable


def test_a_named_pipe_can_be_written(tmp_path: Path, source: int) -> None:
    """Also as `>(gzip > FILE)`; we do not hold its other end, so a reader that leaves is noticed."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with file_output(str(path), source, keep=False) as place:
        assert not place.resumable
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            os.write(place.descriptor, b"x")


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    """It would be emptied before it is read, under whatever name."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"1\n")
    link = tmp_path / "link"
    link.symlink_to(path)
    descriptor = os.open(path, os.O_RDONLY)
    with (
        pytest.raises(ConfigError, match="is the input itself"),
        file_output(str(link), descriptor, keep=False),
    ):
        pass
    os.close(descriptor)
    assert path.read_bytes() == b"1\n"


@pytest.mark.parametrize("kind", ["hard link", "another user"])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_file_that_somebody_else_has_put_there(
    tmp_path: Path, source: int, monkeypatch: pytest.MonkeyPatch, kind: str, mode: int
) -> None:
    """In a folder where others write, neither their files nor a second name of one of ours is written to."""
    shared, important = tmp_path / "shared", tmp_path / "important"
    shared.mkdir()
    important.touch()
    if kind == "hard link":
        (shared / "out").hardlink_to(important)
    else:
        (shared / "out").touch()
    with file_output(str(shared / "out"), source, keep=False):
        pass  # a folder of one's own: nobody else has put it there
    shared.chmod(mode)
    if kind == "another user":
        owner = shared.stat().st_uid
        monkeypatch.setattr(module.os, "geteuid", lambda: owner + 1)
        os.chown(shared / "out", owner + 2, -1) if owner == 0 else None
    with pytest.raises(ConfigError, match=kind), file_output(str(shared / "out"), source, keep=False, force=True):
        pass


def test_two_commands_do_not_write_one_file(tmp_path: Path, source: int) -> None:
    """The second is refused before it empties the file; afterwards it may."""
    path = tmp_path / "out"
    program = f"""
        import os
        from taskq.cli.row_writer import file_output
        with file_output({str(path)!r}, 0, keep=False, force=True):
            pass
    """
    with file_output(str(path), source, keep=False) as place:
        os.write(place.descriptor, b"row\n")
        script = run(tmp_path, program, code=1)
        assert "another command is writing" in script.stderr
        assert path.read_bytes() == b"row\n"
    run(tmp_path, program)


def test_stdout_is_kept_for_data(tmp_path: Path) -> None:
    """What a task prints, in Python or beneath it, goes to stderr; rows go to stdout."""
    source = """
        import os, subprocess, sys
        from taskq.cli.streams import claimed_stdout
        print("before")
        with claimed_stdout() as stdout:
            print("printed")
            os.write(1, b"written\\n")
            subprocess.run(["echo", "echoed"], check=True)
            os.write(stdout, b"data\\n")
        print("after")
    """
    script = run(tmp_path, source)
    assert script.stdout == "before\ndata\nafter\n"
    assert sorted(script.stderr.split()) == ["echoed", "printed", "written"]


def test_closed_streams(tmp_path: Path) -> None:
    """Without stdout there is no place for data; without stderr what is printed vanishes."""
    source = """
        import os
        from taskq.cli.streams import claimed_stdout, hold_standard_descriptors, need_stdout
        hold_standard_descriptors()
        with claimed_stdout() as stdout:
            print("printed")
            need_stdout()
            os.write(stdout, b"data\\n")
    """
    script = run(tmp_path, source).path
    for redirect, stdout in (("2>&-", b"data\n"), (">&-", b"")):
        done = subprocess.run(
            ["sh", "-c", f'"$0" "$1" {redirect}', sys.executable, str(script)],
            capture_output=True,
            check=False,
        )
        assert done.stdout == stdout
        assert (b"stdout is closed" in done.stderr) is (redirect == ">&-")


def test_which_stdout_can_be_resumed(tmp_path: Path) -> None:
    """Only a file that is appended to: `>` has emptied it before we could look."""
    path = str(tmp_path / "out")
    appended = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    truncated = os.open(path, os.O_WRONLY)
    reader, end = os.pipe()
    assert stdout_output(appended).resumable is (sys.platform == "linux")
    assert not stdout_output(truncated).resumable
    assert not stdout_output(end).resumable
    for descriptor in (appended, truncated, reader, end):
        os.close(descriptor)


def test_claiming_restores_stdout_in_process() -> None:
    """Inside a larger program stdout is what it was, and no descriptor stays open."""
    before = os.fstat(1)
    with claimed_stdout() as stdout:
        assert os.path.samestat(os.fstat(1), os.fstat(2))
        assert os.path.samestat(os.fstat(stdout), before)
    assert os.path.samestat(os.fstat(1), before)
