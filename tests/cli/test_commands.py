"""Commands as jobs of a store: their output byte for byte, their folder, their variables."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.command import LIMIT, Command, environment, program, taskq

if TYPE_CHECKING:
    from tests.cli.store_queue import Queue

FAILING = ("sh", "-c", r"printf 'a\377'; echo err >&2; exit 3")

#: More than a result may measure, less when it is compressed.
LONG = ("sh", "-c", "yes | head -c 3000000")


def work(queue: Queue) -> None:
    """Work off what is kept, in another folder, as a worker with a variable of its own."""
    folder = queue.project / "elsewhere"
    folder.mkdir(exist_ok=True)
    env = {"OWN": "the worker's", "TMPDIR": str(queue.project / "tmp")}  # a path that is short enough for sockets
    done = taskq(folder, "worker", "--allow-commands", "--burst", "--url", queue.url, **env)
    assert done.code == 0, done


def raw(queue: Queue, *words: str) -> tuple[bytes, bytes]:
    """Return what a command writes, as bytes."""
    line = [program(), words[0], "--url", queue.url, *words[1:]]
    done = subprocess.run(
        line, cwd=queue.project, env=environment(queue.project), capture_output=True, check=False, timeout=LIMIT
    )
    return done.stdout, done.stderr


def document(queue: Queue, job_id: str, code: int = 0) -> dict[str, Any]:
    """Return what is told of a command that has ended."""
    found: dict[str, Any] = json.loads(queue.run("result", "--json", job_id, code=code).out)
    return found


def test_output_comes_as_it_was_written(queue: Queue) -> None:
    """What is no text, in JSON as base64; and more than a result holds when it is not compressed."""
    binary, long = queue.submit("--", "printf", r"a\377b"), queue.submit("--", *LONG)
    work(queue)
    assert raw(queue, "result", "--raw", binary) == (b"a\xffb", b"")
    assert raw(queue, "logs", binary) == (b"a\xffb", b"")
    assert document(queue, binary)["result"]["stdout_base64"] == "Yf9i"
    assert json.loads(queue.run("logs", "--json", binary).out)["log_base64"] == "Yf9i"
    assert raw(queue, "result", "--raw", long) == (b"y\n" * 1_500_000, b"")
    assert document(queue, long)["result"]["stdout"] == "y\n" * 1_500_000


def test_what_is_cut_is_said(file_queue: Queue) -> None:
    """How many bytes are kept of how many."""
    job_id = file_queue.submit("--", "sh", "-c", "head -c 2000000 /dev/urandom")
    work(file_queue)
    out, err = raw(file_queue, "result", "--raw", job_id)
    assert 100_000 < len(out) < 1_000_000
    assert f"{len(out):,} of 2,000,000 bytes are kept".encode() in err


def test_a_command_that_failed_shows_its_output(queue: Queue) -> None:
    """And its exit code: as JSON, and passed on."""
    job_id = queue.submit("--", *FAILING)
    work(queue)
    error = document(queue, job_id, code=1)["error"]
    assert (error["type"], error["exit_code"]) == ("CommandFailed", 3)
    out, err = raw(queue, "result", "--raw", job_id)
    assert b"a\xff" in out
    assert b"err" in out + err
    assert b"sh exited with code 3" in err


def test_a_command_runs_where_it_was_submitted(file_queue: Queue) -> None:
    """On a queue file; with the environment of the worker, and what --env adds to it."""
    words = ("--env", "HERE", "--env", "SAID=x=y", "--", "sh", "-c", 'pwd; echo "$HERE $SAID $OWN"')
    job_id = file_queue.run("submit", *words, HERE="mine").out.strip()
    work(file_queue)
    assert document(file_queue, job_id)["result"]["stdout"] == f"{file_queue.project}\nmine x=y the worker's\n"


def test_a_command_runs_in_the_folder_that_is_said(queue: Queue) -> None:
    """On any store; on Redis it is the worker's own unless one is said."""
    said, unsaid = queue.submit("--cwd", "/", "--", "pwd"), queue.submit("--", "pwd")
    work(queue)
    assert document(queue, said)["result"]["stdout"] == "/\n"
    where = queue.project if queue.url.startswith("sqlite") else queue.project / "elsewhere"
    assert document(queue, unsaid)["result"]["stdout"] == f"{where}\n"


def test_a_folder_that_is_gone_fails_the_job(file_queue: Queue) -> None:
    """The command does not run in another one."""
    gone = file_queue.project / "gone"
    gone.mkdir()
    job_id = file_queue.submit("--cwd", gone, "--", "touch", file_queue.project / "ran")
    gone.rmdir()
    work(file_queue)
    error = document(file_queue, job_id, code=1)["error"]
    assert error["exit_code"] == 126
    assert f"touch: cannot be run in {gone}" in error["message"]
    assert not (file_queue.project / "ran").exists()


@pytest.mark.parametrize("where", ["local", "store"])
def test_the_commands_of_a_map_too(file_queue: Queue, where: str) -> None:
    """They run here by default, wherever that is, and in the folder that is said."""
    (file_queue.project / "in").write_text("1\n", encoding="utf-8")
    url = file_queue.url if where == "store" else "local://"
    for folder, expected in ((None, file_queue.project), ("/", "/")):
        said = () if folder is None else ("--cwd", folder)
        words = ("map", "--url", url, "--jsonl", "in", "-o", "out", "--force", "--env", "X=7", *said)
        with Command(file_queue.project, *words, "--", "sh", "-c", r'pwd; printf "$X\377"') as command:
            if where == "store":
                while command.process.poll() is None:
                    work(file_queue)
            assert command.wait() == 0, command.err
        row = json.loads((file_queue.project / "out").read_text(encoding="utf-8"))
        assert row["stdout"] == f"{expected}\n7\ufffd"
        assert "stdout_base64" in row


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--cwd", "nosuch", "--", "ls"), "--cwd nosuch: there is no such folder"),
        (("--env", "NOSUCH_1", "--", "ls"), "--env NOSUCH_1: there is no such variable here"),
        (("--env", "=x", "--", "ls"), "--env '=x': write NAME=VALUE"),
        (("--cwd", "/", "jobs:same", "x"), "are for a command after --"),
    ],
)
def test_what_is_not_there_is_refused(file_queue: Queue, words: tuple[str, ...], why: str) -> None:
    """Before anything is kept."""
    assert why in file_queue.run("submit", *words, code=2).err
    assert file_queue.waiting() == 0


def test_a_command_ends_when_nobody_reads_it(file_queue: Queue) -> None:
    """As it does in a shell: `taskq submit --wait -- yes | head -1`."""
    reader, end = os.pipe()
    with Command(file_queue.project, "submit", "--wait", "--url", file_queue.url, "--", "yes", stdout=end) as command:
        os.close(end)
        assert os.read(reader, 2) == b"y\n"
        os.close(reader)
        assert command.wait() == 141


@pytest.mark.parametrize("where", ["a worker", "here", "local"])
def test_no_command_gets_the_queue_s_password(file_queue: Queue, where: str) -> None:
    """Nor a job of a worker; a URL without one is there."""
    secret = f"{file_queue.url}?durability=normal#pwd=s3cret"
    plain_url = f"{file_queue.url}?durability=normal"
    words = ("--url", "local://" if where == "local" else plain_url, "--", "printenv", "TASKQ_URL")
    for url, code, out in ((plain_url, 0, f"{plain_url}\n"), (secret, 1, "")):
        if where == "a worker":
            job_id = taskq(file_queue.project, "submit", *words, TASKQ_URL=url).out.strip()
            worker = ("worker", "--allow-commands", "--burst", "--url", plain_url)
            assert taskq(file_queue.project, *worker, TASKQ_URL=url).code == 0
            assert taskq(file_queue.project, "result", "--raw", "--url", plain_url, job_id).out == out
        else:
            done = taskq(file_queue.project, "submit", "--wait", *words, TASKQ_URL=url)
            assert (done.code, done.out) == (code, out)


def test_the_url_may_stand_in_a_file(file_queue: Queue) -> None:
    """Of any command; a file that has something else in it is refused without showing it."""
    project = file_queue.project
    (project / "url").write_text(f"{file_queue.url}\n", encoding="utf-8")
    (project / "bad").write_text("s3cret words\n", encoding="utf-8")
    assert taskq(project, "submit", "math:sqrt", ":=4", "--url-file", "url").code == 0
    assert file_queue.waiting() == 1
    assert taskq(project, "worker", "--import", "math:sqrt", "--burst", "--url-file", "url").code == 0
    assert file_queue.waiting() == 0
    for name in ("bad", "nosuch"):
        done = taskq(project, "status", "--url-file", name)
        assert done.code == 2
        assert f"--url-file {name}:" in done.err
        assert "s3cret" not in done.err
