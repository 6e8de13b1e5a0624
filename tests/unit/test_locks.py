"""Locks and waits that an interrupted call leaves usable."""

from __future__ import annotations

import json
import sys
import threading
from concurrent import futures
from typing import Any

import pytest

from taskq.errors import DecodeError
from taskq.job import Job, Undecoded
from taskq.locks import CallLock, SafeCondition, SafeEvent, aside, pass_on
from tests.waiting import PATIENCE, eventually


def take(lock: CallLock) -> bool:
    """Take a lock and leave without giving it back, as a call that was interrupted."""
    return lock.acquire()


def test_lock_of_a_call_that_is_over() -> None:
    """Another thread gets a lock that an interrupted call has left, and so does the same thread."""
    lock = CallLock()
    assert take(lock)
    with futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(lock.acquire, timeout=PATIENCE).result()
        pool.submit(lock.release).result()
    assert take(lock)
    assert take(lock)


def test_lock_of_a_call_that_goes_on() -> None:
    """No other thread gets a lock as long as the call goes on that holds it; the thread itself may nest."""
    lock = CallLock()
    with lock, lock, futures.ThreadPoolExecutor(1) as pool:
        assert not pool.submit(lock.acquire, timeout=0.1).result()
    with futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(lock.acquire, blocking=False).result()


def test_lock_excludes() -> None:
    """Threads that take turns at a lock never are behind it at once."""
    lock, inside, most = CallLock(), [0], [0]

    def work() -> None:
        for _ in range(500):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    with futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work) for _ in range(8)]:
            done.result(timeout=PATIENCE)
    assert (inside, most) == ([0], [1])


def test_lock_of_a_condition() -> None:
    """A Condition made with it wakes who waits, also when it was taken twice."""
    lock = CallLock()
    condition = threading.Condition(lock)  # type: ignore[arg-type]  # it is one by what it does
    told: list[bool] = []

    def wait() -> None:
        with lock, condition:
            told.append(condition.wait(PATIENCE))

    thread = threading.Thread(target=wait)
    thread.start()

    def tell() -> list[bool]:
        with condition:
            condition.notify_all()
        return told

    eventually(tell, "the waiter to be told")
    thread.join(PATIENCE)
    assert told == [True]


def test_bell_and_flag() -> None:
    """Who waits returns when it is so, or False when the time is over."""
    assert not SafeCondition().wait_for(lambda: False, 0.01)
    flag = SafeEvent()
    assert not flag.wait(0.01)
    with futures.ThreadPoolExecutor(1) as pool:
        waits = pool.submit(flag.wait, PATIENCE)
        flag.set()
        assert waits.result(timeout=PATIENCE)
    flag.clear()
    assert not flag.is_set()


def test_aside() -> None:
    """Work that is done aside gives its value, or raises, in another thread than the main one."""
    assert aside(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 // 0)


class Outcome(Undecoded):
    """A value whose decoding fails so often."""

    failed = False

    def __init__(self, errors: list[Exception]) -> None:
        self._errors = errors

    def decode(self, job_id: str) -> tuple[Any, BaseException | None]:
        """Return the value, or the next error."""
        del job_id
        return (None, self._errors.pop()) if self._errors else (42, None)


class Ended(Job[Any]):
    """A job that has ended with an outcome."""

    id = "job"

    def __init__(self, outcome: Outcome) -> None:
        self.settle(outcome)


@pytest.mark.parametrize("wrapped", [False, True])
def test_signal_handler_that_raises_while_a_result_is_decoded(wrapped: bool) -> None:
    """What a signal handler raises meanwhile is raised, and is not the job's outcome: who asks again gets its value."""
    error: Exception = TimeoutError("an alarm")
    if wrapped:
        error = DecodeError("no message")
        error.__cause__ = TimeoutError("an alarm")
    job = Ended(Outcome([error]))
    with pytest.raises(TimeoutError, match="alarm"):
        job.result()
    assert job.result() == 42


def test_result_that_cannot_be_decoded() -> None:
    """An error that comes each time is the job's outcome."""
    job = Ended(Outcome([DecodeError("no message"), DecodeError("no message")]))
    with pytest.raises(DecodeError):
        job.result()
    assert isinstance(job.exception(), DecodeError)


def test_what_a_handler_raised_is_told_from_what_was_called() -> None:
    """An error that comes by way of a function that was given a frame is raised again, any other is not."""
    alarm = TimeoutError("alarm")

    def handler(_number: int, _frame: object) -> None:
        raise alarm

    class Text(str):
        __slots__ = ()

        def startswith(self, *_: object) -> bool:  # json asks it: from the library's code into ours
            return self.ask()

        def ask(self) -> bool:
            raise NotImplementedError

    class Interrupted(Text):
        __slots__ = ()

        def ask(self) -> bool:
            handler(14, sys._getframe())  # noqa: SLF001  # nothing public tells
            return False

    class Refusing(Text):
        __slots__ = ()

        def ask(self) -> bool:
            raise TimeoutError("its own")

    with pytest.raises(TimeoutError) as passed:
        pass_on(_from_below(Interrupted()))
    assert passed.value is alarm
    pass_on(_from_below(Refusing()))


def _from_below(text: str) -> BaseException:
    """Return what a call of the standard library raises, with its traceback from there on."""
    with pytest.raises(TimeoutError) as raised:
        json.loads(text)
    assert raised.tb.tb_next is not None
    return raised.value.with_traceback(raised.tb.tb_next)


def test_errors_that_are_each_other_s_cause() -> None:
    """A chain of causes that leads back to itself is gone through once."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    pass_on(first)
