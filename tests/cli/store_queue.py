"""Commands on one store, and what tests ask of it."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from taskq.connect import open_store
from taskq.states import State
from tests.cli.command import Done, taskq
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

#: An id as taskq makes them.
ID = re.compile(r"[0-9A-Z]{26}\n")


class Queue:
    """Run commands on one store."""

    def __init__(self, project: Path, url: str) -> None:
        self.project = project
        self.url = url

    def run(self, verb: str, *words: object, code: int = 0, **more: Any) -> Done:
        """Run a command that must end with this exit code."""
        done = taskq(self.project, verb, "--url", self.url, *words, **more)
        assert done.code == code, done
        return done

    def submit(self, *words: object) -> str:
        """Submit a job; return its id, which is all that is printed."""
        done = self.run("submit", *words)
        assert ID.fullmatch(done.out), done
        assert done.err == ""
        return done.out.strip()

    def job(self, job_id: str) -> dict[str, Any]:
        """Return what status knows of a job."""
        (found,) = json.loads(self.run("status", job_id, "--json").out)["jobs"]
        return found

    def state(self, job_id: str) -> str:
        """Return where a job stands."""
        return str(self.job(job_id)["state"])

    def until(self, job_id: str, state: str) -> None:
        """Wait until a job has come to a state; asked of the store itself, as each command would be a process."""
        with contextlib.closing(open_store(self.url)) as store:
            eventually(lambda: [job.state for job in store.get([job_id]) if job] == [state], f"{job_id} to be {state}")

    def until_one_runs(self) -> None:
        """Wait until a job runs; asked of the store itself, too."""
        with contextlib.closing(open_store(self.url)) as store:
            eventually(lambda: sum(row.counts.get(State.RUNNING, 0) for row in store.queues()), "a job to run")

    def waiting(self) -> int:
        """Return how many jobs wait."""
        rows = json.loads(self.run("queues", "--json").out)["queues"]
        return sum(int(row["counts"]["queued"]) for row in rows)
