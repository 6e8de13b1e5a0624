"""How a job's exception reaches the caller: its class, its attributes, its traceback; and those that cannot travel."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import EncodeError, JobCrashed, JobError, JobFailed, RemoteError
from taskq.names import qualified_name
from tests import sample_errors
from tests.sample_errors import (
    BrokenReduce,
    BrokenText,
    FailsInLoading,
    HoldsLock,
    KeywordOnly,
    KillsInReduce,
    OddConstructor,
    Plain,
    Unpicklable,
    WithAttributes,
)
from tests.sample_tasks import divide, fail, identity, nap, square
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from taskq import TaskQueue


def error_of(queue: TaskQueue, fn: Any, *args: Any) -> BaseException:
    """Return the exception of a job that has to fail, and see that the queue works on."""
    error = queue.submit(fn, *args).exception(timeout=PATIENCE)
    assert error is not None, f"{fn} did not fail"
    assert queue.submit(square, 11).result(timeout=PATIENCE) == 121
    return error


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (ValueError, ("bad",)),
        (ValueError, ()),
        (KeyError, ("missing",)),
        (RuntimeError, (123,)),
        (OSError, (2, "No such file", "/nowhere")),
        (FileNotFoundError, (2, "No such file", "/nowhere")),
        (UnicodeDecodeError, ("utf-8", b"\xff", 0, 1, "invalid")),
        (Plain, ("of the user's",)),
        (Plain, ("two", "args")),
        (AssertionError, ()),
        (MemoryError, ()),
        (RecursionError, ("too deep",)),
        (TimeoutError, ("the task's own",)),
        (ConnectionResetError, (104, "reset")),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_class_and_arguments(queue: TaskQueue, kind: type[Exception], args: tuple[Any, ...]) -> None:
    """The exception is of the original class, with the same arguments and text."""
    error = error_of(queue, fail, qualified_name(kind), *args)
    expected = kind(*args)  # OSError makes one of the class that fits the number
    assert type(error) is type(expected)
    assert error.args == expected.args
    assert str(error) == str(expected)


def test_os_error_keeps_its_fields(queue: TaskQueue) -> None:
    """An OSError keeps its number, text and file name."""
    error = error_of(queue, fail, "FileNotFoundError", 2, "No such file", "/nowhere")
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.strerror, error.filename) == (2, "No such file", "/nowhere")


def test_attributes(queue: TaskQueue) -> None:
    """An exception of the user's keeps its attributes."""
    error = error_of(queue, fail, qualified_name(WithAttributes), 418, {"pot": "tea", "cups": (1, 2)})
    assert type(error) is WithAttributes
    assert (error.code, error.detail) == (418, {"pot": "tea", "cups": (1, 2)})


def test_constructors_of_other_arguments(queue: TaskQueue) -> None:
    """An exception whose constructor takes several arguments, or some by keyword, comes back as itself."""
    odd = error_of(queue, sample_errors.raise_odd, 7, "strange")
    assert isinstance(odd, OddConstructor)
    assert (odd.code, odd.reason, str(odd)) == (7, "strange", "7: strange")
    keyword = error_of(queue, sample_errors.raise_keyword_only, 9)
    assert isinstance(keyword, KeywordOnly)
    assert keyword.code == 9


def test_groups(queue: TaskQueue) -> None:
    """A group comes back with its members, so that `except*` finds them, their attributes and their notes."""
    error = error_of(queue, sample_errors.raise_group)
    assert isinstance(error, ExceptionGroup)
    first, second = error.exceptions
    assert (type(first), first.args, first.__notes__) == (ValueError, ("v",), ["noted"])
    assert isinstance(second, OddConstructor)
    assert second.code == 7


def test_texts_that_exit(queue: TaskQueue) -> None:
    """An exception whose text raises SystemExit is the job's failure like any other: its process lives on."""
    error = error_of(queue, fail, qualified_name(sample_errors.ExitsInText))
    assert type(error) is sample_errors.ExitsInText or isinstance(error, JobFailed), type(error)


def test_what_is_too_large(queue: TaskQueue) -> None:
    """A group too wide to be described is still the job's failure; a cause too large leaves the exception itself."""
    group = error_of(queue, sample_errors.raise_wide_group, 5000)
    assert isinstance(group, (ExceptionGroup, JobFailed)), repr(group)
    assert "wide" in str(group)
    small = error_of(queue, sample_errors.raise_from_large, 60_000)
    assert (type(small), str(small)) == (ValueError, "small")
    assert "cause" in "".join(small.__notes__)


def test_the_cause_itself(queue: TaskQueue) -> None:
    """What an exception was raised from stands behind the remote traceback, of its own class."""
    error = error_of(queue, sample_errors.raise_with_cause)
    assert isinstance(error.__cause__, RemoteError)
    assert type(error.__cause__.__cause__) is ValueError


@pytest.mark.parametrize("kind", [sample_errors.ExitsInReduce, sample_errors.KillsInLoadingToo])
def test_unpickling_that_exits(queue: TaskQueue, kind: type[Exception]) -> None:
    """No exception of a job ends the program that awaits it, whatever its pickle would run."""
    error = error_of(queue, fail, qualified_name(kind), "text")
    assert isinstance(error, (kind, JobFailed))
    assert "text" in str(error)


def test_remote_traceback_is_the_cause(queue: TaskQueue) -> None:
    """The cause of the exception shows the traceback of the child process, with its source line."""
    error = error_of(queue, divide, 1, 0)
    assert isinstance(error.__cause__, RemoteError)
    text = str(error.__cause__)
    assert "Traceback (most recent call last)" in text
    assert "sample_tasks.py" in text
    assert "return left / right" in text
    assert "ZeroDivisionError" in text


def test_remote_traceback_is_shown(queue: TaskQueue) -> None:
    """Python's own report of the uncaught exception has the remote traceback in it."""
    job = queue.submit(divide, 1, 0)
    try:
        job.result(timeout=PATIENCE)
    except ZeroDivisionError:
        shown = "".join(traceback.format_exception(*sys.exc_info()))
    assert "return left / right" in shown
    assert "job.result" in shown


def test_remote_cause_is_shown(queue: TaskQueue) -> None:
    """A chain of exceptions in the job is in the remote traceback in full."""
    error = error_of(queue, sample_errors.raise_with_cause)
    assert type(error) is Plain
    assert "the first of two" in str(error.__cause__)
    assert "direct cause" in str(error.__cause__)


def test_raised_again_and_again(queue: TaskQueue) -> None:
    """Asking a failed job for its result many times does not make its traceback grow without end."""
    job = queue.submit(divide, 1, 0)
    depths = []
    for _ in range(20):
        with pytest.raises(ZeroDivisionError) as raised:
            job.result(timeout=PATIENCE)
        depths.append(len(traceback.extract_tb(raised.value.__traceback__)))
    assert depths[-1] <= depths[0] + 4 * 20


@pytest.mark.parametrize(
    ("kind", "args"), [(SystemExit, (3,)), (SystemExit, ()), (KeyboardInterrupt, ()), (GeneratorExit, ())]
)
def test_base_exceptions(queue: TaskQueue, kind: type[BaseException], args: tuple[Any, ...]) -> None:
    """SystemExit, KeyboardInterrupt and GeneratorExit are the job's outcome, and end no process.

    From another machine none ends the program that awaits it, either: it is told of by a JobFailed.
    """
    before = queue.submit(square, 2).result(timeout=PATIENCE)
    error = error_of(queue, fail, qualified_name(kind), *args)
    if "durable" in queue.capabilities:
        assert isinstance(error, JobFailed)
        assert error.type == kind.__name__
    else:
        assert type(error) is kind
        assert error.args == args
    assert before == 4


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_base_exceptions_in_a_map(queue: TaskQueue, kind: type[BaseException]) -> None:
    """In a map too they are the item's outcome."""
    results: list[Any] = list(queue.imap(fail, [qualified_name(kind)] * 5, return_exceptions=True))
    expected = JobFailed if "durable" in queue.capabilities else kind
    assert [type(result) for result in results] == [expected] * 5


@pytest.mark.parametrize(
    ("fn", "args", "kind", "words"),
    [
        (sample_errors.raise_odd, (7, "strange"), OddConstructor, "7: strange"),
        (sample_errors.raise_keyword_only, (9,), KeywordOnly, "code 9"),
        (fail, (qualified_name(HoldsLock), "locked"), HoldsLock, "locked"),
        (fail, (qualified_name(BrokenReduce), "stubborn"), BrokenReduce, "stubborn"),
        (fail, (qualified_name(FailsInLoading), "heavy"), FailsInLoading, "heavy"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_awkward_exceptions(
    queue: TaskQueue, fn: Any, args: tuple[Any, ...], kind: type[Exception], words: str
) -> None:
    """An exception that cannot be rebuilt arrives as itself or as JobFailed: named, with text and traceback."""
    error = error_of(queue, fn, *args)
    assert type(error) is kind or isinstance(error, JobFailed), repr(error)
    assert words in str(error)
    if isinstance(error, JobFailed):
        assert error.type == f"{kind.__module__}.{kind.__qualname__}"
        assert words in error.message
    assert kind.__name__ in str(error.__cause__)
    assert "sample_" in str(error.__cause__)


def test_exception_without_text(queue: TaskQueue) -> None:
    """An exception whose text cannot be had still arrives under its name."""
    error = error_of(queue, fail, qualified_name(BrokenText))
    assert type(error) is BrokenText or "BrokenText" in str(error)


@pytest.mark.parametrize("fn", [fail, sample_errors.return_killing])
def test_pickling_that_kills(queue: TaskQueue, fn: Any) -> None:
    """An exception or result whose pickling ends the process costs that job only: it ends, one way or another."""
    args = (qualified_name(KillsInReduce),) if fn is fail else ()
    neighbours = [queue.submit(square, number) for number in range(50)]
    error = error_of(queue, fn, *args)
    assert isinstance(error, (JobCrashed, JobFailed, EncodeError, KillsInReduce)), repr(error)
    if isinstance(error, JobCrashed):
        assert error.exitcode in {41, 42}
    assert [job.result(timeout=PATIENCE) for job in neighbours] == [number**2 for number in range(50)]


@pytest.mark.parametrize(
    "fn",
    [
        sample_errors.return_unpicklable,
        sample_errors.return_lock,
        sample_errors.return_lambda,
        sample_errors.return_generator,
    ],
)
def test_result_that_cannot_travel(queue: TaskQueue, fn: Any) -> None:
    """A result that can be neither encoded nor pickled fails its job with an EncodeError that names it."""
    job = queue.submit(fn)
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, EncodeError)
    assert "result" in str(error)
    assert job.state == "failed"
    assert queue.submit(square, 4).result(timeout=PATIENCE) == 16


def test_path_of_a_bad_result(queue: TaskQueue) -> None:
    """The error names the path of the bad part of the result."""
    error = error_of(queue, sample_errors.return_unpicklable_deep)
    assert isinstance(error, EncodeError)
    assert error.path == "result['rows'][1]['bad']"
    assert "Unpicklable" in str(error)


def test_bad_results_in_a_map(queue: TaskQueue) -> None:
    """In a map, an item whose result cannot travel fails alone."""
    results = list(queue.imap(sample_errors.bad_at_three, range(6), return_exceptions=True))
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5]
    assert isinstance(results[3], EncodeError)


@pytest.mark.needs("pickle", why="such a result is refused before it travels")
def test_result_that_cannot_be_loaded(queue: TaskQueue) -> None:
    """A result whose loading raises is an error of that job, each time it is asked for, and never a hang."""
    job = queue.submit(sample_errors.return_raising_in_loading)
    error = job.exception(timeout=PATIENCE)
    assert error is not None
    assert "cannot be loaded" in str(error)
    with pytest.raises(type(error)):
        job.result()
    assert queue.submit(square, 4).result(timeout=PATIENCE) == 16


def test_argument_that_cannot_travel(queue: TaskQueue) -> None:
    """An argument that can be neither encoded nor pickled is refused by `submit`, with its path."""
    with pytest.raises(EncodeError) as raised:
        queue.submit(identity, {"when": [1, Unpicklable()]})
    assert raised.value.path == "args[0]['when'][1]"
    assert "Unpicklable" in str(raised.value)
    with pytest.raises(EncodeError) as raised:
        queue.submit(identity, value=Unpicklable())
    assert raised.value.path == "kwargs['value']"
    assert queue.submit(square, 4).result(timeout=PATIENCE) == 16


def test_item_that_cannot_travel(queue: TaskQueue) -> None:
    """In a map, an item that cannot travel is that item's EncodeError; the others give their results."""
    items = [1, 2, Unpicklable(), 4]
    results = list(queue.imap(identity, items, return_exceptions=True))
    assert results[:2] + results[3:] == [1, 2, 4]
    assert isinstance(results[2], EncodeError)


@pytest.mark.needs("pickle", why="no message between machines may name a type to build")
def test_argument_that_cannot_be_loaded(queue: TaskQueue) -> None:
    """An argument whose loading raises in the child fails its job, and only that."""
    neighbours = [queue.submit(square, number) for number in range(20)]
    job = queue.submit(identity, sample_errors.RaisesInLoading())
    error = job.exception(timeout=PATIENCE)
    assert error is not None
    assert "cannot be loaded" in str(error) or "cannot be loaded" in str(error.__cause__)
    assert [other.result(timeout=PATIENCE) for other in neighbours] == [number**2 for number in range(20)]


@pytest.mark.needs("pickle", why="no message between machines may name a type to build")
def test_argument_whose_loading_kills(queue: TaskQueue) -> None:
    """An argument whose loading kills the child crashes its job, and only that."""
    neighbours = [queue.submit(square, number) for number in range(20)]
    job = queue.submit(identity, sample_errors.KillsInLoading())
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, JobCrashed)
    assert [other.result(timeout=PATIENCE) for other in neighbours] == [number**2 for number in range(20)]


def test_error_names_the_job(queue: TaskQueue) -> None:
    """Errors that the pool itself raises for a job carry the job's id."""
    job = queue.options(timeout=0.2).submit(nap, 60)
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, JobError)
    assert error.job_id == job.id


@pytest.mark.needs("pickle", why="no message between machines may name a type to build")
def test_exceptions_as_values(queue: TaskQueue) -> None:
    """An exception that is returned is a result like any other."""
    returned = queue.submit(sample_errors.return_exception).result(timeout=PATIENCE)
    assert isinstance(returned, Plain)
    assert returned.args == ("a value",)
