"""When a job may run, and before whom: priority, delay, instant, key, and jobs that wait for other jobs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from taskq import JobOptions, Retry, State
from taskq.errors import ConfigError, DependencyFailed, JobError, TaskRefused
from tests.sample_tasks import (
    add,
    capture,
    decorated,
    divide,
    fail_until,
    hold,
    identity,
    nap,
    note_item,
    pid,
    square,
    total,
)
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger


@pytest.fixture
def one_process(make_queue: Callable[..., TaskQueue], gate: Gate, tmp_path: Any) -> TaskQueue:
    """Give a queue whose only process is busy until the gate is opened."""
    queue = make_queue(processes=1)
    busy = queue.submit(hold, gate.path)
    assert eventually(busy.running, "the only process to be busy")
    return queue


# --- order


def test_first_come_first_served(one_process: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """Jobs of one priority start in the order of their submits."""
    jobs = [one_process.submit(note_item, ledger.path, number) for number in range(200)]
    gate.open()
    for job in jobs:
        job.result(timeout=PATIENCE)
    assert ledger.texts() == [str(number) for number in range(200)]


def test_priority(one_process: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """The higher priority starts first; equals start in the order of their submits."""
    wanted = [(number, (number * 7) % 5 - 2) for number in range(60)]
    one_process.pause("default")  # else a worker might take the first one ahead
    jobs = [
        one_process.options(priority=priority).submit(note_item, ledger.path, number) for number, priority in wanted
    ]
    one_process.resume("default")
    gate.open()
    for job in jobs:
        job.result(timeout=PATIENCE)
    expected = [str(number) for number, _ in sorted(wanted, key=lambda pair: -pair[1])]
    assert ledger.texts() == expected


def test_urgent_job_overtakes_a_long_line(queue: TaskQueue, ledger: Ledger) -> None:
    """An urgent job does not wait for thousands of submitted ones."""
    line = [queue.submit(nap, 0.03) for _ in range(400)]
    waiting = sum(not job.done() for job in line)
    queue.options(priority=9).submit(square, 3).result(timeout=PATIENCE)
    left = sum(not job.done() for job in line)
    assert left > waiting / 2, f"only {left} of {waiting} were still waiting when the urgent job had ended"
    for job in line:
        job.cancel()


def test_options_of_the_decorator(one_process: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """Options given to `@task` hold, and those of `queue.options` go over them one by one."""
    one_process.pause("default")
    before = one_process.submit(note_item, ledger.path, "plain")
    urgent = one_process.submit(decorated, 1)
    order: list[str] = []
    before.add_done_callback(lambda _: order.append("plain"))
    urgent.add_done_callback(lambda _: order.append("decorated"))
    one_process.resume("default")
    gate.open()
    before.result(timeout=PATIENCE)
    eventually(lambda: len(order) == 2, "both jobs to end")
    assert order == ["decorated", "plain"]


def test_options_leave_the_queue_as_it_is(queue: TaskQueue) -> None:
    """`options` gives a view: the queue itself and other views keep their own options."""
    short, long = queue.options(timeout=0.2), queue.options(timeout=30)
    jobs = [queue.submit(nap, 0.5), long.submit(nap, 0.5), short.submit(nap, 30)]
    assert [job.result(timeout=PATIENCE) for job in jobs[:2]] == [0.5, 0.5]
    assert isinstance(jobs[2].exception(timeout=PATIENCE), TimeoutError)


def test_view_does_it_all(queue: TaskQueue) -> None:
    """A view with options has the same methods as the queue."""
    view = queue.options(priority=1)
    assert view.submit(square, 2).result(timeout=PATIENCE) == 4
    assert [job.result(timeout=PATIENCE) for job in view.submit_many(square, [(1,), (2,)])] == [1, 4]
    assert list(view.map(square, range(5))) == [0, 1, 4, 9, 16]
    assert list(view.imap(square, range(5))) == [0, 1, 4, 9, 16]
    assert sorted(view.imap_unordered(square, range(5))) == [0, 1, 4, 9, 16]
    assert list(view.starmap(add, [(1, 2)])) == [3]


def test_options_are_checked_once(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """`options(...).submit(...)` of a plain function checks the options one time, where they are written."""
    checked: list[JobOptions] = []
    check = JobOptions.check
    monkeypatch.setattr(JobOptions, "check", lambda options: (checked.append(options), check(options)))
    view = queue.options(priority=7)
    assert [options.priority for options in checked] == [7]
    job = view.submit(square, 2)
    assert not [options for options in checked[1:] if options.priority == 7]
    assert job.result(timeout=PATIENCE) == 4


def test_unknown_option(queue: TaskQueue) -> None:
    """An option that does not exist is refused with its name and the names of those that do."""
    with pytest.raises(ConfigError, match="prioritty") as raised:
        queue.options(prioritty=3).submit(square, 1)  # type: ignore[call-arg]
    assert "priority" in str(raised.value)


# --- time


def test_delay(queue: TaskQueue, ledger: Ledger) -> None:
    """A delayed job is scheduled, and does not start before its time."""
    begin = time.monotonic()
    job = queue.options(delay=0.5).submit(note_item, ledger.path, "late")
    assert job.state is State.SCHEDULED
    assert queue.submit(square, 2).result(timeout=PATIENCE) == 4
    assert job.result(timeout=PATIENCE) == "late"
    assert ledger.entries()[0].at - begin >= 0.5


def test_at(queue: TaskQueue, ledger: Ledger) -> None:
    """A job for an instant does not start before it, in whatever time zone it is given."""
    instant = datetime.now(UTC) + timedelta(seconds=0.5)
    job = queue.options(at=instant).submit(time.time)
    assert job.state is State.SCHEDULED
    assert job.result(timeout=PATIENCE) >= instant.timestamp() - 0.01


def test_at_in_the_past(queue: TaskQueue) -> None:
    """A job for an instant that has passed runs at once."""
    instant = datetime.now(UTC) - timedelta(days=1)
    assert queue.options(at=instant).submit(square, 3).result(timeout=PATIENCE) == 9


def test_delays_overtake(queue: TaskQueue, ledger: Ledger) -> None:
    """Delayed jobs start in the order of their times, not of their submits."""
    jobs = [queue.options(delay=seconds).submit(note_item, ledger.path, seconds) for seconds in (0.9, 0.3, 0.6)]
    for job in jobs:
        job.result(timeout=PATIENCE)
    assert ledger.texts() == ["0.3", "0.6", "0.9"]


def test_cancel_of_a_delayed_job(queue: TaskQueue) -> None:
    """A job that waits for its time can be cancelled."""
    job = queue.options(delay=1_000).submit(square, 3)
    assert job.cancel() is True
    assert job.state is State.CANCELLED


@pytest.mark.parametrize("options", [{"delay": -1}, {"at": datetime(2030, 1, 1)}, {"at": 5}])  # noqa: DTZ001 - refused
def test_senseless_times(queue: TaskQueue, options: dict[str, Any]) -> None:
    """A negative delay, and an instant without a time zone, are refused with the name of the option."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        queue.options(**options).submit(square, 1)


# --- key


def test_key_makes_jobs_one(one_process: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """Submits with the same key give the same job while it has not ended: it runs once."""
    bound = one_process.options(key="thumb:b")
    jobs = [bound.submit(note_item, ledger.path, number) for number in range(5)]
    other = one_process.options(key="thumb:c").submit(note_item, ledger.path, "other")
    assert len({job.id for job in jobs}) == 1
    assert other.id != jobs[0].id
    gate.open()
    assert [job.result(timeout=PATIENCE) for job in jobs] == [0] * 5
    assert other.result(timeout=PATIENCE) == "other"
    assert ledger.texts() == ["0", "other"]


def test_key_of_an_ended_job(queue: TaskQueue, ledger: Ledger) -> None:
    """Once the job of a key has ended, the key is free again."""
    bound = queue.options(key="again")
    first = bound.submit(note_item, ledger.path, "first")
    assert first.result(timeout=PATIENCE) == "first"
    second = bound.submit(note_item, ledger.path, "second")
    assert second.result(timeout=PATIENCE) == "second"
    assert first.id != second.id
    assert ledger.texts() == ["first", "second"]


# --- jobs as arguments


def test_job_as_argument(queue: TaskQueue) -> None:
    """A job among the arguments is waited for, and its result stands in its place."""
    left, right = queue.submit(square, 3), queue.submit(square, 4)
    assert queue.submit(add, left, right).result(timeout=PATIENCE) == 25
    assert queue.submit(capture, 1, two=left).result(timeout=PATIENCE) == ((1,), {"two": 9})


def test_jobs_in_a_list(queue: TaskQueue) -> None:
    """Jobs in a list or tuple or dict among the arguments are waited for as well."""
    jobs = [queue.submit(square, number) for number in range(20)]
    assert queue.submit(total, jobs).result(timeout=PATIENCE) == sum(number**2 for number in range(20))
    assert queue.submit(identity, (jobs[2], {"three": jobs[3]})).result(timeout=PATIENCE) == (4, {"three": 9})


def test_blocked_until_the_dependency_ends(queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """A job that waits for another is blocked, and takes no process away."""
    first = queue.submit(hold, gate.path)
    waiting = [queue.submit(note_item, ledger.path, first) for _ in range(20)]
    assert {job.state for job in waiting} == {State.BLOCKED}
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9
    assert ledger.texts() == []
    gate.open()
    assert [job.result(timeout=PATIENCE) for job in waiting] == ["held"] * 20


def test_dependency_on_an_ended_job(queue: TaskQueue) -> None:
    """A job that has ended serves as an argument at once."""
    job = queue.submit(square, 5)
    job.result(timeout=PATIENCE)
    assert queue.submit(add, job, job).result(timeout=PATIENCE) == 50


def test_chain(queue: TaskQueue) -> None:
    """A long chain of jobs, each an argument of the next, comes to its end."""
    job = queue.submit(identity, 0)
    for _ in range(100):
        job = queue.submit(add, job, 1)
    assert job.result(timeout=PATIENCE) == 100


def test_chain_with_one_process(make_queue: Callable[..., TaskQueue]) -> None:
    """Dependencies never tie up the only process."""
    queue = make_queue(processes=1)
    jobs = [queue.submit(nap, 0.01) for _ in range(5)]
    assert queue.submit(total, jobs).result(timeout=PATIENCE) == pytest.approx(0.05)


def test_failed_dependency(queue: TaskQueue, ledger: Ledger) -> None:
    """A job whose dependency failed fails without running, saying which one it was; and so on down the chain."""
    bad = queue.submit(divide, 1, 0)
    middle = queue.submit(note_item, ledger.path, bad)
    last = queue.submit(note_item, ledger.path, middle)
    for job, blamed in ((middle, bad), (last, middle)):
        error = job.exception(timeout=PATIENCE)
        assert isinstance(error, DependencyFailed)
        assert isinstance(error, JobError)
        assert blamed.id in str(error)
        assert (job.state, job.attempts) == (State.FAILED, 0)
    assert "ZeroDivisionError" in str(middle.exception()) or isinstance(
        middle.exception().__cause__,  # type: ignore[union-attr]
        ZeroDivisionError,
    )
    assert ledger.texts() == []


def test_dependency_that_failed_before(queue: TaskQueue) -> None:
    """A dependency that has failed already fails the job as well."""
    bad = queue.submit(divide, 1, 0)
    bad.exception(timeout=PATIENCE)
    assert isinstance(queue.submit(identity, bad).exception(timeout=PATIENCE), DependencyFailed)


def test_cancelled_dependency(one_process: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """A job whose dependency was cancelled does not run."""
    first = one_process.submit(square, 2)
    second = one_process.submit(note_item, ledger.path, first)
    assert first.cancel()
    gate.open()
    assert isinstance(second.exception(timeout=PATIENCE), DependencyFailed)
    assert ledger.texts() == []


def test_cancel_of_a_blocked_job(queue: TaskQueue, gate: Gate) -> None:
    """A job that waits for another can be cancelled, and the other goes on."""
    first = queue.submit(hold, gate.path)
    second = queue.submit(identity, first)
    assert second.cancel() is True
    gate.open()
    assert first.result(timeout=PATIENCE) == "held"
    assert second.state is State.CANCELLED


def test_dependencies_and_shutdown(make_queue: Callable[..., TaskQueue]) -> None:
    """A patient shutdown waits for blocked jobs too."""
    queue = make_queue()
    last = queue.submit(add, queue.submit(nap, 0.1), queue.submit(nap, 0.2))
    queue.shutdown()
    assert last.done()
    assert last.result() == pytest.approx(0.3)


def test_job_of_another_queue(make_queue: Callable[..., TaskQueue]) -> None:
    """A job of another queue is either waited for as well or refused, never passed as something else."""
    first, second = make_queue(processes=1), make_queue(processes=1)
    try:
        job = second.submit(add, first.submit(square, 3), 1)
    except (TypeError, ValueError):
        return
    assert job.result(timeout=PATIENCE) == 10


def test_work_goes_on_in_the_same_processes(queue: TaskQueue) -> None:
    """None of this costs a process: in the end there are as many as there were."""
    assert len({queue.submit(pid).result(timeout=PATIENCE) for _ in range(50)}) <= 2


def test_lengths_of_time_in_words(queue: TaskQueue, ledger: Ledger) -> None:
    """A length of time may be a text or a timedelta, wherever seconds are taken, and means the same."""
    words = queue.options(timeout="10m", soft_timeout=timedelta(minutes=9), delay="10ms", result_ttl="1h", expires="1d")
    job = words.options(retry=Retry(2, delay="1ms", max_delay=timedelta(seconds=1))).submit(fail_until, ledger.path, 2)
    assert job.result(timeout="1m") == 2
    assert job.exception(timeout=timedelta(seconds=1)) is None
    assert list(queue.map(square, [2, 3], timeout="1m")) == [4, 9]


def test_bad_lengths_of_time(queue: TaskQueue) -> None:
    """A text that is no length of time is refused at the call, with its name and an example."""
    with pytest.raises(ConfigError, match=r"timeout='10 monkeys' is not a length of time: write 90"):
        queue.options(timeout="10 monkeys")
    with pytest.raises(ConfigError, match="delay"):
        queue.options(delay=timedelta(seconds=-1))
    job = queue.options(delay=600).submit(square, 2)
    with pytest.raises(ConfigError, match="timeout='soon'"):
        job.result(timeout="soon")
    assert job.cancel()


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((1,), {}, "missing a required argument: 'right'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"write": 2}, "tests.sample_tasks:add takes"),
        ((1, 2), {"left": 1}, "multiple values"),
    ],
)
def test_wrong_arguments(queue: TaskQueue, args: tuple[int, ...], kwargs: dict[str, int], words: str) -> None:
    """Arguments that the task does not take are refused at the submit, with what it takes; nothing is stored."""
    before = sum(queue.counts().values())
    with pytest.raises(TaskRefused, match=words):
        queue.submit(add, *args, **kwargs)
    assert sum(queue.counts().values()) <= before
    if not kwargs:
        with pytest.raises(TypeError, match=words):
            queue.submit_many(add, [(1, 2), args])
        assert sum(queue.counts().values()) <= before
