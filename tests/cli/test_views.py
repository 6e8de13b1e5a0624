"""What the commands about jobs, queues and workers print: golden files of every output, on every width."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from taskq import log
from taskq.cli import stores
from taskq.cli.app import run
from taskq.cli.exits import Exit
from taskq.errors import BackendUnavailable
from taskq.states import State
from tests.cli.command import assert_golden
from tests.cli.fake_store import NOW, FakeStore, job_id, sample_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The command, the name of its golden file, and its exit code on the sample store.
OUTPUTS = [
    ("status", "status", 0),
    ("status --state failed --limit 1", "status-failed", 0),
    ("status --queue reports", "status-queue", 0),
    (f"status {job_id(1)}", "status-succeeded", 0),
    (f"status {job_id(3)}", "status-crashed", 0),
    (f"status {job_id(5)}", "status-running", 0),
    (f"status {job_id(8)}", "status-scheduled", 0),
    (f"status {job_id(2)} {job_id(9)} nowhere", "status-some", 4),
    (f"result {job_id(1)}", "result", 0),
    (f"result {job_id(2)}", "result-failed", 1),
    (f"result {job_id(2)} --tracebacks", "result-traceback", 1),
    (f"result {job_id(4)}", "result-cancelled", 5),
    (f"result {job_id(5)}", "result-running", 124),
    ("result nowhere", "result-nowhere", 4),
    (f"wait {job_id(1)} {job_id(4)} {job_id(2)}", "wait", 1),
    (f"wait --any {job_id(4)} {job_id(1)}", "wait-any", 5),
    (f"wait --timeout 50ms {job_id(5)}", "wait-timeout", 124),
    (f"logs {job_id(5)}", "logs", 0),
    (f"cancel {job_id(5)} {job_id(7)} {job_id(1)}", "cancel", 1),
    (f"retry {job_id(2)} {job_id(4)}", "retry", 0),
    (f"retry {job_id(7)}", "retry-queued", 1),
    ("retry --failed", "retry-failed", 0),
    ("retry --failed --queue reports", "retry-none", 0),
    ("queues", "queues", 0),
    ("workers", "workers", 0),
    ("pause reports nightly", "pause", 0),
    ("resume mail reports", "resume", 0),
    ("purge --yes", "purge", 0),
    ("purge --yes --state failed --older 1m", "purge-older", 0),
    ("doctor", "doctor", 1),
    ("top", "top", 0),
]

#: Outputs that are tables, and so differ with the width.
TABLES = ["status", "queues", "workers", "top", f"status {job_id(3)}", "doctor"]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[FakeStore]:
    """Put the sample store behind every URL, at one moment and in one time zone."""
    found = sample_store()
    for name in ("TASKQ_URL", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(stores, "open_store", lambda _url: found)
    monkeypatch.setattr(time, "time", lambda: NOW)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC0")
        time.tzset()
        yield found
    time.tzset()
    log.silence()  # the commands run in this process, and set it up


@pytest.fixture
def told(store: FakeStore, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command; return its exit code and all it said, stderr behind a line of its own."""

    def tell(*words: str) -> tuple[int, str]:
        code = run([*words])
        out, err = capsys.readouterr()
        return code, out + (f"--- stderr\n{err}" if err else "")

    return tell


@pytest.mark.parametrize(("line", "name", "code"), OUTPUTS, ids=[name for _, name, _ in OUTPUTS])
def test_output(told: Callable[..., tuple[int, str]], line: str, name: str, code: int) -> None:
    """Word for word, with the documented exit code."""
    got, text = told(*line.split())
    assert got == code
    assert_golden(f"{name}.txt", text)


@pytest.mark.parametrize(("line", "name", "code"), OUTPUTS, ids=[name for _, name, _ in OUTPUTS])
def test_json(told: Callable[..., tuple[int, str]], line: str, name: str, code: int) -> None:
    """Under --json stdout is JSON documents, one per line, with the same exit code; so is what is said of errors."""
    got, text = told(*line.split(), "--json")
    assert got == code
    assert_golden(f"{name}.json", text)
    for row in text.partition("--- stderr\n")[0].splitlines():
        assert isinstance(json.loads(row), dict)


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("line", TABLES)
def test_tables_fit(
    told: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, line: str, width: int
) -> None:
    """COLUMNS is the width, also of a pipe; 40 is enough to see what matters."""
    monkeypatch.setenv("COLUMNS", str(width))
    _, text = told(*line.split())
    assert max(map(len, text.splitlines())) <= width
    assert_golden(f"{line.split(maxsplit=1)[0]}{'-one' * (' ' in line)}-{width}.txt", text)


def test_an_id_may_be_cut_short(told: Callable[..., tuple[int, str]]) -> None:
    """Its start or its end, as a table shows it, when no other job has that."""
    whole = told("status", job_id(5))
    assert told("status", "…YA4F0005") == whole
    assert told("status", "yA4F0005".upper()) == whole
    code, text = told("status", "01KB2Z7X")
    assert (code, "may be any of 9 jobs: " in text, job_id(9) in text) == (Exit.USAGE, True, True)
    assert told("status", "005")[0] == Exit.NOT_FOUND


def test_nothing_yet(told: Callable[..., tuple[int, str]], store: FakeStore) -> None:
    """An empty store is no error, and the words say what comes next."""
    store.jobs.clear()
    store.paused.clear()
    store.living.clear()
    assert_golden("nothing.txt", "".join(told(verb)[1] for verb in ("status", "queues", "workers", "top", "retry")))


def test_purge_asks(told: Callable[..., tuple[int, str]], store: FakeStore) -> None:
    """Where there is nobody to ask it removes nothing and says what to do."""
    code, text = told("purge")
    assert (code, len(store.jobs)) == (Exit.USAGE, 9)
    assert "this would delete 1 succeeded, 2 failed, 1 cancelled in sqlite:///home/ann/queue.db" in text
    assert "add --yes" in text


def test_purge_leaves_what_waits_and_runs(told: Callable[..., tuple[int, str]], store: FakeStore) -> None:
    """Unless their state is named; what runs stays in any case."""
    told("purge", "--yes")
    assert {record.state for record in store.jobs.values()} == {
        State.QUEUED,
        State.RUNNING,
        State.SCHEDULED,
        State.BLOCKED,
    }
    told("purge", "--yes", "--state", "queued")
    assert State.QUEUED not in {record.state for record in store.jobs.values()}
    assert told("purge", "--yes", "--state", "running")[0] == Exit.USAGE


def test_a_store_that_is_away(told: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3 from every verb, one sentence, and the document of it under --json."""

    def away(_url: str) -> FakeStore:
        raise BackendUnavailable("redis://h:6379 cannot be reached: is it running?")

    monkeypatch.setattr(stores, "open_store", away)
    for verb in ("status", "queues", "workers", "doctor", "top", "retry --failed", "wait x", "logs x", "pause q"):
        assert told(*verb.split()) == (3, "--- stderr\ntaskq: redis://h:6379 cannot be reached: is it running?\n")
    _, text = told("status", "--json")
    assert json.loads(text.removeprefix("--- stderr\n"))["error"]["exit_code"] == 3


def test_local_has_no_jobs_to_show(told: Callable[..., tuple[int, str]]) -> None:
    """It ends with its process; the cure is another URL."""
    code, text = told("status", "--url", "local://")
    assert code == Exit.USAGE
    assert "local:// keeps no jobs that another command could see: give --url sqlite:///PATH" in text


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("retry", "give the ids of jobs, or --failed"),
        ("retry x --failed", "give the ids of jobs, or --failed"),
        ("retry x --queue q", "--queue goes with --failed"),
        ("wait", "Missing argument 'ID...'"),
        ("wait x --timeout soon", "'soon' is not a length of time"),
        ("status --state done", "'done' is not one of"),
        ("status --limit -1", "-1 is not in the range"),
        ("purge --older yesterday", "'yesterday' is not a length of time"),
        ("stauts", "did you mean status?"),
        ("config", "Usage: taskq config"),
    ],
)
def test_a_wrong_command_line(told: Callable[..., tuple[int, str]], line: str, sentence: str) -> None:
    """Exit code 2, what is wrong and what would be right."""
    code, text = told(*line.split())
    assert (code, sentence in text) == (Exit.USAGE, True), text
