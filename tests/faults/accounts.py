"""Account for jobs under fire: each ends exactly once, and every extra run is tied to a kill.

starts of a job  <=  1 + its crashes        crashes of all jobs  <=  kills
a result for every job, its own             starts of all jobs   <=  jobs + kills
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tests.sample_tasks import note_and_nap

if TYPE_CHECKING:
    from collections import Counter

    from taskq import Job, TaskQueue
    from tests.faults.killing import Killer
    from tests.ledger import Ledger

#: Seconds for one job's result under fire; each may be killed many times, and processes take their time to come back.
PATIENCE = 45.0

#: Crashes allowed to a job where the test kills at random and no job is to blame.
ENOUGH = 1_000

#: Jobs under way at once.
WINDOW = 40


def submit_under_fire(queue: TaskQueue, ledger: Ledger, killer: Killer, at_least: int) -> list[Job[int]]:
    """Keep the queue full of short jobs until the killing is over; return the jobs, ended and checked."""
    bound = queue.options(max_crashes=ENOUGH)
    jobs: list[Job[int]] = []
    waiting: deque[tuple[int, Job[int]]] = deque()
    while killer.busy or len(jobs) < at_least or waiting:
        while len(waiting) < WINDOW and (killer.busy or len(jobs) < at_least):
            job = bound.submit(note_and_nap, ledger.path, len(jobs), 0.002 * (len(jobs) % 4))
            waiting.append((len(jobs), job))
            jobs.append(job)
        number, job = waiting.popleft()
        assert job.result(timeout=PATIENCE) == number
    return jobs


def check(jobs: list[Job[int]], ledger: Ledger, kills: int) -> None:
    """Fail unless the ledger and the jobs' own counts agree with what was done to them."""
    counts = ledger.counts()
    for number, job in enumerate(jobs):
        starts = counts[f"start {number}"]
        assert 1 <= starts <= 1 + job.crashes, f"job {number} started {starts} times and crashed {job.crashes} times"
        assert 1 <= counts[f"end {number}"] <= starts
    crashes = sum(job.crashes for job in jobs)
    assert crashes <= kills, f"{crashes} crashes of {kills} kills"
    assert total_starts(counts) <= len(jobs) + kills


def total_starts(counts: Counter[str]) -> int:
    """Return how many starts the ledger holds."""
    return sum(count for text, count in counts.items() if text.startswith("start "))
