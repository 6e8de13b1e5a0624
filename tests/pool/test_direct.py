"""Jobs that a submitter sends to a free child himself: interrupted, late, unasked for, they run once and are known."""

from __future__ import annotations

import threading
import time
import weakref
from concurrent.futures import as_completed, wait
from contextlib import suppress
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from taskq import State, TaskQueue, current_job
from tests import leaks
from tests.conftest import warm_up
from tests.faults.killing import children
from tests.sample_tasks import square
from tests.seams import executor_of
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def note_line(path: str, value: int) -> int:
    """Append a line to a file: the count of lines is the count of starts."""
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{value}\n")
    return value


def tell(value: int) -> int:
    """Tell a progress, and return at once."""
    current_job().progress(value, 10)
    return value


@pytest.fixture
def queue() -> Iterator[TaskQueue]:
    """Give a local queue of two forked children."""
    with TaskQueue("local://", processes=2, start_method="fork") as queue:
        yield queue


def offer_for(queue: TaskQueue, fn: Callable[..., Any], *args: Any) -> Any:
    """Return the offer that stands, of a child that knows the function."""
    offers = executor_of(queue).pool.dispatcher.direct

    def standing() -> Any:
        queue.submit(fn, *args).result(PATIENCE)
        offer = offers.current
        number = executor_of(queue).functions[fn].number
        return offer if offer is not None and number in offer.functions and not offer.booked else None

    return eventually(standing, "a child that knows the function is on offer")


def send_by(offer: Any, send: Callable[[bytes], int]) -> None:
    """Have who takes the offer send by this function."""
    connection = offer.connection
    offer.connection = SimpleNamespace(
        sock=SimpleNamespace(send=send, recv=connection.sock.recv), waker=connection.waker
    )


def interrupted_submits(queue: TaskQueue, path: Path) -> int:
    """Submit `note_line` until one is interrupted between booking and sending; return how many there were."""

    def interrupt(_data: bytes) -> int:
        raise KeyboardInterrupt

    for value in count():  # under load an offer may end before it is taken
        send_by(offer_for(queue, note_line, str(path) + "-warm", 0), interrupt)
        try:
            queue.submit(note_line, str(path), value)
        except KeyboardInterrupt:
            return value + 1
    raise AssertionError


def values_in(path: Path) -> list[int]:
    """Return what `note_line` was started with."""
    return sorted(map(int, path.read_text(encoding="ascii").split())) if path.exists() else []


def test_an_interrupt_between_booking_and_sending_loses_nothing(queue: TaskQueue, tmp_path: Path) -> None:
    """The job that was booked runs once, the child that was sent nothing is replaced, and all others notice nothing."""
    path = tmp_path / "starts"
    queue.submit(square, 1).result(PATIENCE)
    before = {child.pid for child in children()}
    submits = interrupted_submits(queue, path)
    jobs = [queue.submit(square, number) for number in range(20)]
    assert [job.result(PATIENCE) for job in jobs] == [number * number for number in range(20)]
    eventually(lambda: values_in(path) == list(range(submits)), "the booked job has run")
    eventually(lambda: len(after := {c.pid for c in children()}) == 2 and after != before, "a new child is there")
    assert sorted(queue.map(square, range(1000))) == sorted(number * number for number in range(1000))
    assert values_in(path) == list(range(submits))


def test_an_interrupt_in_the_last_submit_does_not_hang_the_end(tmp_path: Path) -> None:
    """A queue can be shut down after it, and the job that was booked has run."""
    path = tmp_path / "starts"
    with TaskQueue("local://", processes=2, start_method="fork") as queue:
        submits = interrupted_submits(queue, path)
    assert values_in(path) == list(range(submits))


def test_a_job_that_is_sent_late_runs_once(queue: TaskQueue, tmp_path: Path) -> None:
    """A submitter that pauses between booking and sending finds his job run elsewhere, once."""
    path = tmp_path / "starts"
    asleep, elsewhere = threading.Event(), threading.Event()
    jobs: list[Any] = []

    def submit_late() -> None:
        while not asleep.is_set():
            offer = offer_for(queue, note_line, str(path) + "-warm", 0)
            send = offer.connection.sock.send

            def send_late(data: bytes, send: Callable[[bytes], int] = send) -> int:
                asleep.set()
                elsewhere.wait(PATIENCE)
                with suppress(OSError):
                    send(data)
                return len(data)

            send_by(offer, send_late)
            jobs.append(queue.submit(note_line, str(path), len(jobs)))

    late = threading.Thread(target=submit_late)
    late.start()
    assert asleep.wait(PATIENCE)
    submits = len(jobs) + 1
    assert queue.submit(square, 3).result(PATIENCE) == 9  # wakes the dispatcher, which finds a child that does nothing
    eventually(lambda: values_in(path) == list(range(submits)), "the job has run elsewhere")
    elsewhere.set()
    late.join(PATIENCE)
    assert [job.result(PATIENCE) for job in jobs] == list(range(submits))
    assert sorted(queue.map(square, range(1000))) == sorted(number * number for number in range(1000))
    assert values_in(path) == list(range(submits))


def test_a_full_socket_is_no_end(queue: TaskQueue) -> None:
    """A child that takes nothing off its socket keeps no job; when it is replaced, none of its descriptors stays."""

    def refuse(_data: bytes) -> int:
        raise BlockingIOError

    warm_up(queue)
    before, first = leaks.take().kinds_of_descriptors(), {child.pid for child in children()}
    send_by(offer_for(queue, square, 1), refuse)
    assert queue.submit(square, 5).result(PATIENCE) == 25
    eventually(lambda: {child.pid for child in children()} != first, "the child to be replaced")
    warm_up(queue)
    eventually(lambda: leaks.take().kinds_of_descriptors() == before, "the descriptors of the one before to be closed")


@pytest.mark.parametrize("ask", ["done", "state", "callback", "wait", "as_completed", "exception", "cancelled"])
def test_whoever_asks_is_told(queue: TaskQueue, ask: str) -> None:
    """However somebody asks for such a job, the answer comes, and soon."""
    offer_for(queue, square, 1)
    job = queue.submit(square, 7)
    if ask == "done":
        eventually(job.done, "done", within=0.9)  # below the second after which the dispatcher looks by itself
    elif ask == "state":
        eventually(lambda: job.state is State.SUCCEEDED, "succeeded", within=0.9)
    elif ask == "callback":
        heard = threading.Event()
        job.add_done_callback(lambda _: heard.set())
        assert heard.wait(0.9)
    elif ask == "wait":
        assert wait([job], timeout=0.9).done == {job}
    elif ask == "as_completed":
        assert list(as_completed([job], timeout=0.9)) == [job]
    elif ask == "exception":
        assert job.exception(0.9) is None
    else:
        assert not job.cancelled()
    assert job.result(PATIENCE) == 49
    assert job.done()
    assert not job.cancel()
    assert job.attempts == 1
    assert job.state is State.SUCCEEDED


def test_many_waiters_of_one_job(queue: TaskQueue) -> None:
    """Threads that wait for the same job all hear of it."""
    offer_for(queue, time.sleep, 0.0)
    job = queue.submit(time.sleep, 0.05)
    heard: list[object] = []
    waiters = [threading.Thread(target=lambda: heard.append(job.result(PATIENCE))) for _ in range(8)]
    for waiter in waiters:
        waiter.start()
    for waiter in waiters:
        waiter.join(PATIENCE)
    assert heard == [None] * 8


def test_progress_is_known_when_the_result_is(queue: TaskQueue) -> None:
    """The last word of a short job is there with its result."""
    offer_for(queue, tell, 1)
    for value in range(1, 50):
        job = queue.submit(tell, value)
        assert job.result(PATIENCE) == value
        assert job.progress == (value, 10)


def test_errors_and_objects_come_as_they_do_elsewhere(queue: TaskQueue) -> None:
    """An error is raised, and an object is the same one for all who ask."""
    offer_for(queue, divmod, 7, 2)
    job = queue.submit(divmod, 7, 0)
    with pytest.raises(ZeroDivisionError):
        job.result(PATIENCE)
    offer_for(queue, dict, [])
    made = queue.submit(dict, [])
    assert made.result(PATIENCE) == {}
    assert made.result(PATIENCE) is made.result(PATIENCE)


def test_results_that_nobody_holds_are_not_kept(queue: TaskQueue) -> None:
    """A job whose result was read goes when its last holder drops it, while the pool sleeps."""
    offer_for(queue, square, 1)
    job = queue.submit(square, 2)
    assert job.result(PATIENCE) == 4
    seen = weakref.ref(job)
    del job
    assert seen() is None


def test_a_queue_that_is_dropped_lets_its_processes_go() -> None:
    """Also when its last jobs were never asked about."""
    before = {child.pid for child in children()}
    queue = TaskQueue("local://", processes=2, start_method="fork")
    offer_for(queue, square, 1)
    queue.submit(square, 2)
    assert {child.pid for child in children()} != before
    del queue
    eventually(lambda: {child.pid for child in children()} <= before, "the processes have ended")
