"""What jobs print, in the worker's log: bounded, harmless on a terminal, each line once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from taskq.executors.pool.output import JobOutput
from taskq.executors.worker import progress as module
from taskq.executors.worker.progress import LINE_MAX, LINES_MAX, echo


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Give what is logged."""
    found: list[dict[str, Any]] = []
    logger = SimpleNamespace(info=lambda event, **fields: found.append({"event": event, **fields}))
    monkeypatch.setattr(module, "log", logger)
    return found


def run_of(live: bytes) -> Any:
    """Return a running job that has printed this."""
    said = JobOutput()
    said.live = live
    return SimpleNamespace(output=said, echoed=0, task="shop:sell", claim=SimpleNamespace(id="one", queue="default"))


def test_each_line_once(lines: list[dict[str, Any]]) -> None:
    """A line is logged when it is complete, or when its job has ended; nothing is logged twice."""
    job = run_of(b"first\nsec")
    echo(job, ended=False)
    echo(job, ended=False)
    assert [line["text"] for line in lines] == ["first"]
    assert {line["job"] for line in lines} == {"one"}
    job.output.live += b"ond\nlast"
    echo(job, ended=False)
    job.output.text, job.output.live = job.output.live, b""
    echo(job, ended=True)
    echo(job, ended=True)
    assert [line["text"] for line in lines] == ["first", "second", "last"]


def test_bounds(lines: list[dict[str, Any]]) -> None:
    """Long lines are cut; of what a job prints without end only some lines are shown, and how much was left out."""
    echo(run_of(b"x" * 9_000_000 + b"\n" + b"y\n" * 100_000), ended=True)
    assert len(lines) == LINES_MAX + 1
    assert len(lines[0]["text"]) == LINE_MAX
    assert lines[-1]["left_out"] == 200_000 - 2 * (LINES_MAX - 1)


def test_nothing_acts_on_a_terminal(lines: list[dict[str, Any]]) -> None:
    """Control characters are shown, not sent; bytes that are no text do not end the worker."""
    echo(run_of(b"\x1b[31mred\x07 \xff\xc2\x9b\ttab\n"), ended=True)
    assert lines[0]["text"] == "\\x1b[31mred\\x07 \ufffd\\x9b\ttab"
