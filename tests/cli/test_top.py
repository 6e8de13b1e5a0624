"""`taskq top`, driven on a pseudo-terminal with real workers: what is seen, what keys do, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from tests import processes
from tests.cli.command import Command, program, taskq
from tests.cli.conftest import empty_file
from tests.cli.pseudo_terminal import PseudoTerminal
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Watched:
    """A store, and `taskq top` on it."""

    def __init__(self, project: Path, url: str) -> None:
        self.project = project
        self.url = url

    def submit(self, *words: object) -> str:
        """Submit a job; return its id."""
        return taskq(self.project, "submit", "--url", self.url, *words).out.strip()

    def job(self, job_id: str) -> dict[str, Any]:
        """Return what is known of a job."""
        (found,) = json.loads(taskq(self.project, "status", "--url", self.url, job_id, "--json").out)["jobs"]
        return found

    def paused(self) -> list[str]:
        """Return the queues that are paused."""
        rows = json.loads(taskq(self.project, "queues", "--url", self.url, "--json").out)["queues"]
        return [row["queue"] for row in rows if row["paused"]]

    def top(self, columns: int = 100, lines: int = 30, **env: str) -> PseudoTerminal:
        """Start it on a terminal of this size."""
        words = (program(), "top", "--every", "100ms", "--url", self.url)
        return PseudoTerminal(self.project, *words, columns=columns, lines=lines, **env)


@pytest.fixture
def watched(project: Path, url: str) -> Watched:
    """Give an empty store of each kind."""
    return Watched(project, url)


@pytest.fixture
def file(project: Path) -> Watched:
    """Give an empty queue file: for what does not depend on the store."""
    return Watched(project, empty_file(project))


def test_it_shows_what_goes_on(watched: Watched, worker: Callable[..., Command]) -> None:
    """Queues, running jobs with their progress, failures, workers, and the speed; all of it live."""
    worker(watched.url, "--name", "somewhere")
    with watched.top() as top:
        top.shows("somewhere")
        top.shows("nothing runs")
        watched.submit("jobs:fail", "x")
        top.shows("ValueError: no x")
        gate = watched.project / "gate"
        watched.submit("jobs:watched", str(gate))
        screen = top.shows("75 %")
        assert "watched(" in screen
        assert "1 run" in screen
        top.shows(" wait")
        gate.touch()
        top.shows("nothing runs")
        top.press("q")
        assert top.wait() == 0
        top.assert_given_back()


def test_a_job_closely_with_its_log(watched: Watched, worker: Callable[..., Command]) -> None:
    """Enter shows the chosen job and its log as it grows; Esc goes back."""
    worker(watched.url)
    gate = watched.project / "gate"
    job_id = watched.submit("jobs:watched", str(gate))
    with watched.top() as top:
        top.shows("watched(")
        top.press("\r")
        top.shows(f"id         {job_id}")
        top.shows("step 3")
        gate.touch()
        top.shows("succeeded")
        top.shows("last words")
        top.press("\x1b")
        top.shows("nothing runs")


def test_keys_that_kill_and_run_again(watched: Watched, worker: Callable[..., Command]) -> None:
    """C asks, K kills, R queues a failed job again; the line below says what came of it."""
    worker(watched.url)
    failed = watched.submit("jobs:fail", "x")
    with watched.top() as top:
        top.shows("ValueError: no x")
        job_id = watched.submit("jobs:hang")
        top.shows("hang()")
        top.press("c")
        top.press("C")
        top.shows(f"{job_id} was asked to stop; K kills it")
        top.press("K")
        eventually(lambda: watched.job(job_id)["state"] == "cancelled", "the job to be killed")
        top.shows("nothing runs")
        top.press("\tR")
        top.shows(f"{failed} is queued again")
        eventually(lambda: watched.job(failed)["state"] == "failed", "the job to have failed again")


def test_keys_that_pause_and_resume(watched: Watched) -> None:
    """P on the chosen queue; again takes it back."""
    watched.submit("jobs:square", ":=1", "--queue", "a")
    watched.submit("jobs:square", ":=1", "--queue", "b")
    with watched.top() as top:
        top.shows("2 wait")
        top.press("\x1b[Zj")
        top.press("P")
        top.shows("queue b is paused")
        assert watched.paused() == ["b"]
        top.press("P")
        top.shows("queue b is running again")
        assert watched.paused() == []


def test_help_and_the_way_back(file: Watched) -> None:
    """? lists the keys; any key closes it."""
    with file.top() as top:
        top.shows("no queues yet")
        top.press("?")
        top.shows("pause the queue, or resume it")
        top.press("C")
        top.shows("no queues yet")


def test_it_follows_the_size_of_the_window(file: Watched) -> None:
    """Wide and high, or 40 columns by 10 lines: the picture fits, the panel in focus is shown."""
    file.submit("jobs:square", ":=1")
    with file.top() as top:
        top.shows("Workers")
        top.resize(40, 10)
        eventually(lambda: "Workers" not in top.read() and "nothing runs" in top.read(), "the small picture")
        top.press("\x1b[Z")
        top.shows("default")
        top.resize(120, 40)
        screen = top.shows("Workers")
        assert "CANCELLED" in screen


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)], ids=str
)
def test_signals_give_the_terminal_back(file: Watched, number: int, code: int) -> None:
    """The exit code of the signal, nothing left, the terminal as it was."""
    with file.top() as top:
        top.shows("no queues yet")
        os.kill(top.process.pid, number)
        assert top.wait() == code
        top.assert_given_back()
        assert not processes.of_session(top.process.pid)


def test_ctrl_c_gives_the_terminal_back(file: Watched) -> None:
    """As typed: 130."""
    with file.top() as top:
        top.shows("no queues yet")
        top.press("\x03")
        assert top.wait() == 130
        top.assert_given_back()


def test_ctrl_z_lends_the_terminal(file: Watched) -> None:
    """Stopped, with the terminal as it was; when it goes on it draws again, and keys work."""
    with file.top() as top:
        top.shows("no queues yet")
        top.press("\x1a")
        eventually(lambda: state_of(top.process.pid) == "T", "it to stop")
        top.assert_given_back()
        seen = len(top.output)
        os.kill(top.process.pid, signal.SIGCONT)
        eventually(lambda: b"no queues yet" in (top.read() and top.output[seen:]), "the picture to be drawn again")
        top.press("q")
        assert top.wait() == 0
        top.assert_given_back()


def state_of(pid: int) -> str:
    """Return how the kernel names the state of a process."""
    seen = processes.look(pid)
    return "" if seen is None else seen.state


def test_an_error_gives_the_terminal_back(file: Watched) -> None:
    """A bug of ours shows its traceback on a terminal that can be read."""
    script = file.project / "buggy.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from taskq.cli.top import app
            def broken(*_):
                raise RuntimeError("a bug")
            app.press = broken
            from taskq.cli.app import run
            run(sys.argv[1:])
            """
        )
    )
    with PseudoTerminal(file.project, sys.executable, script, "top", "--url", file.url) as top:
        top.shows("no queues yet")
        top.press("j")
        assert top.wait() == 1
        top.assert_given_back()
        assert "RuntimeError: a bug" in top.read()


def test_a_store_that_goes_away_is_told(project: Path, redis: Any) -> None:
    """The last picture stays, with the trouble below it; keys work; it goes on when the store is back."""
    watched = Watched(project, redis.fresh_url())
    watched.submit("jobs:square", ":=1")
    with watched.top() as top:
        top.shows("1 wait")
        redis.freeze()
        try:
            top.press("?")
            top.shows("pause the queue, or resume it")
            top.press("x")
        finally:
            redis.thaw()
        top.shows("1 wait")
        top.press("q")
        assert top.wait() == 0


def test_colours_only_where_they_are_wanted(file: Watched) -> None:
    """A table on a terminal has colours; with NO_COLOR it has none; on a dumb terminal top prints once."""
    file.submit("jobs:square", ":=1", "--delay", "1h")
    for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        words = (program(), "status", "--url", file.url)
        with PseudoTerminal(file.project, *words, **env) as terminal:
            assert terminal.wait() == 0
            assert "scheduled" in terminal.read()
            assert (b"\x1b[" in terminal.output) is coloured
    with file.top(TERM="dumb") as top:
        assert top.wait() == 0
        assert b"\x1b" not in top.output
        assert "nothing runs" in top.read()


def test_purge_asks_on_a_terminal(file: Watched) -> None:
    """Y forgets, anything else does not."""
    job_id = file.submit("jobs:square", ":=1")
    words = (program(), "purge", "--state", "queued", "--url", file.url)
    for answer, code in (("n\n", 1), ("y\n", 0)):
        assert file.job(job_id)["state"] == "queued"
        with PseudoTerminal(file.project, *words) as terminal:
            terminal.shows("Delete 1 queued in sqlite://")
            terminal.press(answer)
            assert terminal.wait() == code
    assert taskq(file.project, "status", job_id, "--url", file.url).code == 4


def test_watch_on_a_terminal(file: Watched) -> None:
    """It draws in place, and fits the window's height."""
    for number in range(20):
        file.submit("jobs:square", f":={number}")
    words = (program(), "status", "--watch", "--limit", 50, "--url", file.url)
    with PseudoTerminal(file.project, *words, columns=80, lines=10) as terminal:
        screen = terminal.shows("square(19)")
        assert screen.startswith("QUEUE")
        terminal.press("\x03")
        assert terminal.wait() == 130
