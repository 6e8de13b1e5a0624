"""Queues as people are shown them."""

from __future__ import annotations

import pytest

from taskq.states import State
from taskq.store import QueueRecord, WorkerRecord
from taskq.survey import as_it_runs


@pytest.mark.parametrize(
    ("running", "processes", "shown"), [(5, (2, 1), (3, 9)), (3, (2, 1), (3, 7)), (1, (8,), (1, 7)), (5, (), (5, 7))]
)
def test_no_more_runs_than_there_are_processes(
    running: int, processes: tuple[int, ...], shown: tuple[int, int]
) -> None:
    """What workers hold beyond their processes is shown as queued; where no worker is known, as the store says."""
    counts = {State.RUNNING: running, State.QUEUED: 7, State.FAILED: 1}
    workers = [
        WorkerRecord(name=f"w{n}", host="h", pid=n, queues=("mail", "other"), processes=count)
        for n, count in enumerate(processes)
    ]
    stranger = WorkerRecord(name="s", host="h", pid=9, queues=("other",), processes=50)
    (found,) = as_it_runs([QueueRecord(name="mail", counts=counts)], [*workers, stranger])
    assert (found.counts[State.RUNNING], found.counts[State.QUEUED]) == shown
    assert found.counts[State.FAILED] == 1
