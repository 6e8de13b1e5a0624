"""`taskq map` on a store: the rows of a local map, made by workers."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from taskq import TaskQueue
from taskq.codec import encode
from taskq.connect import open_store
from taskq.envelope import CALL, Template
from taskq.ids import new_id
from taskq.options import JobOptions
from taskq.store import NewJob
from tests.cli.command import Command, taskq
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.store_queue import Queue


def test_map_by_workers(queue: Queue, worker: Callable[..., Command]) -> None:
    """The rows of a local map: objects, arrays, values, failures, bad lines, each at its place."""
    worker(queue.url)
    lines = b'0\n[2]\n{"number": 4}\nnot json\n1\n'
    done = queue.run("map", "jobs.fail_odd", "--jsonl", "-", stdin=lines, code=1)
    here = taskq(queue.project, "map", "jobs.fail_odd", "--jsonl", "-", "--url", "local://", stdin=lines)
    assert (done.out, done.err) == (here.out, here.err)
    numbers = b"".join(b"%d\n" % number for number in range(3000))
    done = queue.run("map", "jobs:square", "--jsonl", "-", "--unordered", stdin=numbers)
    rows = {row["index"]: row["result"] for row in map(json.loads, done.out.splitlines())}
    assert rows == {number: number * number for number in range(3000)}


def test_map_by_workers_runs_what_they_trust(file_queue: Queue, worker: Callable[..., Command]) -> None:
    """Neither another module's tasks nor commands, unless the worker was told so."""
    worker(file_queue.url)
    done = file_queue.run("map", "math:factorial", "--jsonl", "-", stdin=b"3\n", code=1)
    assert "start it with --import math" in done.out
    (file_queue.project / "in.jsonl").write_text('"stolen"\n')
    words = ("map", "--url", file_queue.url, "--jsonl", "in.jsonl", "--", "touch", "{}")
    with Command(file_queue.project, *words, name="m-") as command:
        eventually(lambda: "map_command" in file_queue.run("status").out, "the command to wait for others")
        command.interrupt()
        assert command.wait() == 130
    assert not (file_queue.project / "stolen").exists()


def test_map_of_commands_by_workers(file_queue: Queue, worker: Callable[..., Command]) -> None:
    """Exit code and output are the row."""
    worker(file_queue.url, "--allow-commands")
    lines = b'"a"\n"b"\n'
    done = file_queue.run("map", "--jsonl", "-", "--", "sh", "-c", "echo {}; test {} = a", stdin=lines, code=1)
    first, second = map(json.loads, done.out.splitlines())
    assert (first["exit_code"], first["stdout"]) == (0, "a\n")
    assert (second["error"]["exit_code"], second["error"]["stdout"]) == (1, "b\n")


def test_map_waits_for_a_worker(file_queue: Queue, worker: Callable[..., Command]) -> None:
    """It says so, and goes on when one comes."""
    (file_queue.project / "in.jsonl").write_text("1\n2\n")
    words = ("map", "jobs:square", "--jsonl", "in.jsonl", "--url", file_queue.url)
    with Command(file_queue.project, *words, name="m-") as command:
        eventually(lambda: "no worker serves queue default now" in command.err, "it to say so")
        worker(file_queue.url)
        assert command.wait() == 0
        assert command.out == "1\n4\n"


@pytest.mark.parametrize("flags", [(), ("--unordered",)])
def test_resume_of_a_killed_map_runs_no_line_twice(
    queue: Queue, worker: Callable[..., Command], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """A map is killed in the middle of it, again and again: --resume knows the lines that its workers went on with."""
    worker(queue.url)
    done = tmp_path / "done"
    done.mkdir()
    count = 150
    lines = "".join(json.dumps([str(done), number]) + "\n" for number in range(count))
    (queue.project / "in.jsonl").write_text(lines)
    words = (
        "map",
        "jobs:note_slowly",
        "--jsonl",
        "in.jsonl",
        "-o",
        "out.jsonl",
        "--url",
        queue.url,
        "--resume",
        *flags,
    )
    for least in (5, 40):
        with Command(queue.project, *words, name=f"m{least}-") as command:
            eventually(lambda least=least: len(list(done.iterdir())) >= least, "some lines to be run")  # type: ignore[misc]
            command.process.kill()
    assert taskq(queue.project, *words).code == 0
    assert {file.name: file.read_text() for file in done.iterdir()} == dict.fromkeys(map(str, range(count)), "x")
    rows = [json.loads(row) for row in (queue.project / "out.jsonl").read_text().splitlines()]
    assert sorted(row["result"] if flags else row for row in rows) == list(range(count))
    assert flags or rows == list(range(count))
    assert not (queue.project / "out.jsonl.chunks").exists()
    assert json.loads(queue.run("status", "--json").out)["jobs"] == []


@pytest.mark.parametrize(
    ("name", "args", "result"),
    [
        ("taskq.cli.far_lines:run_far_line", ["jobs:square", b"3"], b"9"),
        ("taskq.cli:map_line", ["jobs:square", b"3"], b"9"),
        ("taskq.cli.commands:run_command_line", [["false"], 0, b"1"], ["CommandFailed", "false exited with code 1"]),
        ("taskq.cli:map_command", [["false"], 0, b"1"], ["CommandFailed", "false exited with code 1"]),
    ],
)
def test_names_in_stored_jobs_stay(
    file_queue: Queue, worker: Callable[..., Command], name: str, args: list[Any], result: Any
) -> None:
    """Jobs that a map has stored, by the names of its first version too, run; commands only where they are allowed."""
    options = JobOptions()
    envelope = Template(CALL, name, options).pack(encode(args), encode({}))
    with contextlib.closing(open_store(file_queue.url)) as store:
        (job_id,) = store.put([NewJob(id=new_id(), task=name, envelope=envelope, options=options, label=name)])
        if args[0] == ["false"]:
            worker(file_queue.url)
            eventually(lambda: "--allow-commands" in str(store.get([job_id])[0].refusal), "the refusal")  # type: ignore[union-attr]
        worker(file_queue.url, "--allow-commands")
        with TaskQueue(file_queue.url) as queue:
            found = queue.job(job_id).result(timeout=PATIENCE)
        assert found == result if isinstance(result, bytes) else found[:2] == result
