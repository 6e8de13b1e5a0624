"""Results that are read one after the other: few calls of the store, right values, and nothing asked for in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from taskq import State
from taskq.codec import encode
from taskq.executors.durable.look_ahead import MOST, LookAhead
from tests.sample_tasks import square

if TYPE_CHECKING:
    from taskq import TaskQueue
    from tests.observed_store import ObservedStore


def end(store: ObservedStore, job_id: str, value: object) -> None:
    """End a job as a worker would."""
    store.end(job_id, State.SUCCEEDED, result=encode(value), attempts=1)


def test_few_calls(queue: TaskQueue, store: ObservedStore) -> None:
    """Results of jobs that have ended, read in order, are asked for by the hundred."""
    jobs = queue.submit_many(square, [(number,) for number in range(1000)])
    for number, job in enumerate(jobs):
        end(store, job.id, number * number)
    store.calls.clear()
    assert [job.result(10) for job in jobs] == [number * number for number in range(1000)]
    assert store.calls.count("ask") <= 10


def test_large_results_are_read_when_they_are_wanted(queue: TaskQueue, store: ObservedStore) -> None:
    """Results that a handle would not keep are asked for one by one: none is read and thrown away again and again."""
    jobs = queue.submit_many(square, [(number,) for number in range(50)])
    for number, job in enumerate(jobs):
        end(store, job.id, bytes([number]) * 10_000)
    store.asked = 0
    assert [job.result(10) for job in jobs] == [bytes([number]) * 10_000 for number in range(50)]
    assert store.asked <= 55


class Held:
    """Handles by number, of which some have ended."""

    def __init__(self, count: int, ended: set[int]) -> None:
        self.line = [str(number) for number in range(count)]
        self.ended = {str(number) for number in ended}

    def __len__(self) -> int:
        return len(self.line)

    def ids(self) -> list[str]:
        """Return all ids."""
        return self.line

    def is_open(self, job_id: str) -> bool:
        """Return whether the end was not heard of."""
        return job_id not in self.ended


@given(st.sets(st.integers(0, 299)))
def test_no_more_in_vain_than_of_use(slow: set[int]) -> None:
    """Whatever is slow: a program that reads in order asks for each job once or twice, and ahead within the bound."""
    held = Held(300, set())
    look = LookAhead(held)
    in_vain = of_use = 0
    for number, job_id in enumerate(held.line):
        if not held.is_open(job_id):
            continue
        ahead = look.after(job_id)
        assert len(ahead) <= MOST
        assert all(int(each) > number and held.is_open(each) for each in ahead)
        held.ended.add(job_id)  # who waits is told, also of one that is slow
        quick = {each for each in ahead if int(each) not in slow}
        held.ended |= quick
        of_use += len(quick) + 1
        in_vain += len(ahead) - len(quick)
    assert in_vain <= 5 * of_use
