"""Whole programs on a queue file with garbage in it: a worker runs the good job, and commands end as they say."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from taskq.states import State
from tests.cli.command import taskq
from tests.fuzz.sqlite.rows import Rows, filled
from tests.rq.hands import new_job
from tests.store_steps import state_of
from tests.waiting import eventually
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import WorkerSession
    from tests.fuzz.garbage import Garbage

#: Pieces of garbage in one file.
BATCH = 150

#: Runs in the ordinary suite, and in `make soak`.
RUNS = [0, *(pytest.param(run, marks=pytest.mark.soak) for run in range(1, 200))]

#: Commands, and the exit codes that they are documented to end with over a store that can be read.
COMMANDS: dict[str, set[int]] = {
    "status": {0},
    "status ID": {0, 4},
    "result ID --timeout 100ms": {0, 1, 4, 5, 124},
    "logs ID": {0, 4},
    "queues": {0},
    "workers": {0},
    "doctor": {0, 1},
    "top": {0},
    "top --json": {0},
    "purge --yes": {0},
}


@pytest.fixture
def spoiled(store: SQLiteStore, path: Path, join: Callable[..., WorkerSession], garbage: Garbage) -> list[str]:
    """Give a queue file full of garbage, as the ids of the jobs that were put into it."""
    ids, _ = filled(store, join("first"), join("second"), 0)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows = Rows(connection, garbage, but={"inbox"})
        for _ in range(BATCH):
            rows.spoil()
    return ids


@pytest.mark.parametrize("run", RUNS)
def test_worker(store: SQLiteStore, spoiled: list[str], url: str, tmp_path: Path, run: int) -> None:
    """A worker on a spoiled file runs the good job, and ends by itself when it is told to."""
    del spoiled, run
    (good,) = store.put([new_job()])
    with WorkerProcess(url, tmp_path, imports=["operator:add"]) as process:
        eventually(lambda: state_of(store, good) is State.SUCCEEDED, "the good job to run")
        process.stop()
        assert "Traceback" not in process.log(), process.log()


@pytest.mark.parametrize("run", RUNS)
def test_commands(spoiled: list[str], url: str, tmp_path: Path, garbage: Garbage, run: int) -> None:
    """Commands over a spoiled file end with a code that they are documented to have, and without a traceback."""
    del run
    for line, codes in COMMANDS.items():
        words = [garbage.random.choice(spoiled) if word == "ID" else word for word in line.split()]
        check(taskq(tmp_path, words[0], "--url", url, *words[1:]), codes)
    other = f"sqlite://{tmp_path}/other.db"
    check(taskq(tmp_path, "transfer", url, other), {0, 1})


def check(done: Any, codes: set[int]) -> None:
    """Fail where a command ended as it should not."""
    assert done.code in codes, done
    assert "Traceback" not in done.err, done
