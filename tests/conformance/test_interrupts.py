"""A call that is interrupted at any of its instructions leaves all in order: for the next one, for others, for the end.

Interrupts come at drawn instructions, each of them as likely as any other of the code that the call goes through. After
each one the same call is made again, a second thread submits and waits, and on a store another program does.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests import interrupts
from tests.sample_tasks import add, hold, square
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq import Job, TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger
    from tests.variants import Variant

#: Points at which a call is interrupted, and the seconds after which no more are drawn; in soak runs.
POINTS, SECONDS = 60, 1.0
LONG_POINTS, LONG_SECONDS = 1_000, 600.0

#: Descriptors that may come and go: connections, readers, a reconnect under way.
SPARE = 12

OTHER = """
import sys
from taskq import TaskQueue
from tests.sample_tasks import add
queue = TaskQueue(sys.argv[1])
for line in sys.stdin:
    print(queue.submit(add, int(line), 1).result(timeout=30), flush=True)
"""


class Calls:
    """The calls that are interrupted. `make` prepares one, with nothing traced; it returns the call and its check."""

    def __init__(self, queue: TaskQueue, gate: Gate) -> None:
        self._queue = queue
        self._gate = gate

    def submit(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Submit a job; the next one is run."""
        return lambda: self._queue.submit(add, 1, 2), lambda: equal(self._queue.submit(add, 1, 2).result(PATIENCE), 3)

    def submit_many(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Submit a few jobs; the next ones are run."""

        def send() -> list[Job[Any]]:
            return self._queue.submit_many(square, [(1,), (2,), (3,)])

        return send, lambda: equal([job.result(PATIENCE) for job in send()], [1, 4, 9])

    def result(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Wait for a job; who waits again gets its result."""
        job = self._queue.submit(square, 7)
        return lambda: job.result(PATIENCE), lambda: equal(job.result(PATIENCE), 49)

    def failed_result(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Wait for a job that fails; who waits again gets its error."""
        job = self._queue.submit(square, "no number")
        return lambda: job.exception(PATIENCE), lambda: equal(type(job.exception(PATIENCE)), TypeError)

    def wait(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Wait for some jobs by `concurrent.futures`; who waits again learns that all are done."""
        jobs = [self._queue.submit(square, number) for number in range(3)]
        return (
            lambda: futures.wait(jobs, PATIENCE),
            lambda: equal((futures.wait(jobs, PATIENCE).done, [job.result() for job in jobs]), (set(jobs), [0, 1, 4])),
        )

    def as_completed(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Take jobs as they end; who does so again gets all of them."""
        jobs = [self._queue.submit(square, number) for number in range(3)]
        return (
            lambda: list(futures.as_completed(jobs, PATIENCE)),
            lambda: equal(set(futures.as_completed(jobs, PATIENCE)), set(jobs)),
        )

    def imap(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Map over some items; the next map gives all results."""

        def run() -> list[int]:
            return list(self._queue.imap(square, range(20), chunksize=5))

        return run, lambda: equal(run(), [number**2 for number in range(20)])

    def cancel(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Cancel a job that waits for its time; it is cancelled when that is asked for again."""
        job = self._queue.options(delay=1_000).submit(square, 1)
        return job.cancel, lambda: equal((job.cancel(), job.cancelled(), job.done()), (True, True, True))

    def cancel_before_others(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Cancel a job that has a callback and that another thread waits for; both hear of it."""
        job = self._queue.options(delay=1_000).submit(square, 1)
        heard: list[object] = []
        job.add_done_callback(heard.append)
        waiter = threading.Thread(target=futures.wait, args=([job], PATIENCE), daemon=True)
        waiter.start()

        def check() -> None:
            equal((job.cancel(), job.cancelled()), (True, True))
            waiter.join(PATIENCE)
            assert not waiter.is_alive()
            eventually(lambda: heard, "the callback to be called")
            assert heard == [job]

        return job.cancel, check

    def callback(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Add a callback; the job and its other callbacks are told."""
        job = self._queue.submit(square, 3)
        heard: list[object] = []

        def check() -> None:
            job.add_done_callback(heard.append)
            eventually(lambda: heard, "the callback to be called")
            assert job.result(PATIENCE) == 9

        return lambda: job.add_done_callback(lambda _: None), check


def equal(got: object, expected: object) -> None:
    """Fail unless both are the same."""
    assert got == expected


class Others:
    """Who must not be hindered: a thread of this program, and on a store another program."""

    def __init__(self, queue: TaskQueue, variant: Variant) -> None:
        self._queue = queue
        self._program = None
        if variant.places is not None:
            command = [sys.executable, "-c", OTHER, variant.url]
            self._program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def check(self) -> None:
        """Fail unless both get a result."""
        with futures.ThreadPoolExecutor(1) as pool:
            assert pool.submit(self._submit).result(timeout=PATIENCE) == 5
            if self._program is not None:
                assert pool.submit(self._ask, 6).result(timeout=PATIENCE) == 7

    def _submit(self) -> int:
        return self._queue.submit(add, 2, 3).result(timeout=PATIENCE)

    def _ask(self, number: int) -> int:
        assert self._program is not None
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{number}\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())

    def close(self) -> None:
        """End the other program."""
        if self._program is not None:
            self._program.communicate(timeout=PATIENCE)


@pytest.fixture
def others(queue: TaskQueue, variant: Variant) -> Iterator[Others]:
    """Give those who must not be hindered."""
    made = Others(queue, variant)
    yield made
    made.close()


NAMES = [name for name in vars(Calls) if not name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_call_that_is_interrupted(queue: TaskQueue, gate: Gate, others: Others, name: str) -> None:
    """After an interrupt at any instruction the same call works, and so do other threads and other programs."""
    assert interrupt_often(getattr(Calls(queue, gate), name), others, POINTS, SECONDS) > 0


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("name", NAMES)
def test_call_that_is_interrupted_a_thousand_times(queue: TaskQueue, gate: Gate, others: Others, name: str) -> None:
    """The same at a thousand drawn instructions of each call."""
    assert interrupt_often(getattr(Calls(queue, gate), name), others, LONG_POINTS, LONG_SECONDS) > 0


def interrupt_often(
    make: Callable[[], tuple[Callable[[], object], Callable[[], object]]], others: Others, points: int, seconds: float
) -> int:
    """Interrupt a call at drawn instructions and check what comes after; return how often that was."""
    others.check()
    call, check = make()
    numbers = drawn(interrupts.sites(call))
    check()
    before, came, end = psutil.Process().num_fds(), 0, time.monotonic() + seconds
    while not came or (came < points and time.monotonic() < end):
        call, check = make()
        kind = random.choice(interrupts.KINDS)
        where = interrupts.interrupted(call, next(numbers), kind)
        came += bool(where)
        try:
            check()
            others.check()
        except BaseException as error:
            error.add_note(f"the {came}th interrupt came in {where or 'nothing'}")
            raise
    eventually(
        lambda: psutil.Process().num_fds() <= before + SPARE, f"descriptors to be closed after {came} interrupts"
    )
    return came


def drawn(sites: list[interrupts.Site]) -> Iterator[int]:
    """Draw places of a call: code that it goes through once as often as what it repeats."""
    places: dict[interrupts.Site, list[int]] = {}
    for number, site in enumerate(sites, 1):
        places.setdefault(site, []).append(number)
    known = list(places.values())
    while True:
        yield random.choice(random.choice(known))


def test_an_alarm_is_heard_as_itself(queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """TimeoutError of an alarm comes out of the call that waits as it is, though it is an OSError; the job goes on."""
    job = queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    mine = interrupts.Alarm("mine")

    def ring(_number: int, _frame: object) -> None:
        raise mine

    old = signal.signal(signal.SIGUSR1, ring)
    try:
        for call in (job.result, lambda: futures.wait([job]), lambda: next(queue.imap(hold, [gate.path]))):
            bell = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
            bell.start()
            with pytest.raises(interrupts.Alarm) as raised:
                call()
            assert raised.value is mine
            bell.join()
    finally:
        signal.signal(signal.SIGUSR1, old)
    gate.open()
    assert job.result(PATIENCE) == "held"


def test_shutdown_that_is_interrupted(make_queue: Callable[..., TaskQueue], gate: Gate) -> None:
    """After an interrupt at any instruction of `shutdown` the next one ends, and nothing is left (the guard looks)."""
    assert interrupt_shutdowns(make_queue, gate, 25, 2.0) > 0


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_shutdown_that_is_interrupted_a_thousand_times(make_queue: Callable[..., TaskQueue], gate: Gate) -> None:
    """The same at a thousand drawn instructions."""
    assert interrupt_shutdowns(make_queue, gate, LONG_POINTS, LONG_SECONDS) > 0


def interrupt_shutdowns(make_queue: Callable[..., TaskQueue], gate: Gate, points: int, seconds: float) -> int:
    """Interrupt the end of queues with jobs that have ended, run and wait; return how often that was."""

    def busy() -> tuple[TaskQueue, Job[Any]]:
        queue = make_queue()
        job = queue.submit(add, 1, 2)
        assert job.result(timeout=PATIENCE) == 3
        return queue, queue.submit(square, 4)

    queue, last = busy()
    numbers = drawn(interrupts.sites(queue.shutdown))
    assert last.result(timeout=PATIENCE) == 16
    came, end = 0, time.monotonic() + seconds
    while not came or (came < points and time.monotonic() < end):
        queue, last = busy()
        where = interrupts.interrupted(queue.shutdown, next(numbers), random.choice(interrupts.KINDS))
        came += bool(where)
        closer = threading.Thread(target=queue.shutdown, daemon=True)
        closer.start()
        closer.join(PATIENCE)
        assert not closer.is_alive(), f"shutdown hangs after an interrupt in {where or 'nothing'}"
        assert last.done(), f"a job is left after an interrupt in {where or 'nothing'}"
    return came
