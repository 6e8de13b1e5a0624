"""Failures as data: what is told of an exception, and what the client raises from it."""

from __future__ import annotations

import signal
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import codec
from taskq.errors import (
    DecodeError,
    DependencyFailed,
    EncodeError,
    JobCrashed,
    JobFailed,
    JobLost,
    JobTimeout,
    RemoteError,
    UnknownTask,
)
from taskq.result import Failure, describe_exit
from taskq.states import Reason
from tests.sample_errors import BrokenText, KeywordOnly, OddConstructor, Plain, WithAttributes


class Outer:
    """Hold an exception class."""

    class Inner(LookupError):
        """Stand within another class."""


def raised(error: BaseException) -> BaseException:
    """Return the exception with a traceback."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def travelled(error: BaseException, **how: Any) -> BaseException:
    """Send an exception the way that failures go, and return what the client raises."""
    data = codec.encode(Failure.from_exception(raised(error), **how).to_data())
    return Failure.from_data(codec.decode(data)).to_exception("7")


ORIGINALS = [
    ValueError("bad"),
    ValueError(),
    KeyError("missing"),
    KeyError(5),
    OSError(2, "No such file", "/nowhere"),
    OSError(18, "Invalid cross-device link", "/here", None, "/there"),
    ConnectionResetError(104, "reset"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ZeroDivisionError("division by zero"),
    StopIteration(3),
    TimeoutError("the task's own"),
    RuntimeError(123, "two"),
    Plain("of the user's"),
    Outer.Inner("nested class"),
    EncodeError("object of type Foo", "result[1]"),
    UnknownTask("no such task"),
]


@pytest.mark.parametrize("error", ORIGINALS, ids=repr)
def test_comes_back_as_the_original(error: Exception) -> None:
    """An exception that is builtin or of a module imported here comes back: class, arguments and text."""
    back = travelled(error)
    assert type(back) is type(error)
    assert (back.args, str(back)) == (error.args, str(error))


def test_os_error_keeps_its_fields() -> None:
    """The number, text and file names of an OSError survive."""
    back = travelled(OSError(2, "No such file", "/here", None, "/there"))
    assert isinstance(back, FileNotFoundError)
    assert (back.errno, back.strerror, back.filename, back.filename2) == (
        2,
        "No such file",
        "/here",
        "/there",
    )


@pytest.mark.parametrize(
    "error",
    [
        OddConstructor(3, "why"),
        KeywordOnly(code=3),
        WithAttributes(3, {"a": 1}),
        ExceptionGroup("two", [ValueError("a"), ValueError("b")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_rebuilt_truly_becomes_job_failed(error: BaseException) -> None:
    """What plain arguments cannot rebuild becomes a JobFailed that names it."""
    back = travelled(error)
    assert type(back) is JobFailed
    assert back.type.endswith(type(error).__qualname__)
    assert type(error).__qualname__ in str(back)
    assert "Traceback" in back.traceback


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_what_ends_programs_is_an_outcome_too(error: BaseException) -> None:
    """SystemExit and its like come back as what they were, as from the executors of the standard library."""
    back = travelled(error)
    assert type(back) is type(error)
    assert back.args == error.args


def test_the_cause_shows_the_remote_traceback() -> None:
    """The exception's cause is a RemoteError whose text is the traceback of the job."""
    back = travelled(ValueError("bad"))
    assert isinstance(back.__cause__, RemoteError)
    assert "raise error\nValueError: bad" in str(back.__cause__)


def test_no_module_is_imported_for_a_failure() -> None:
    """The class of a module that is not imported here is not looked for; JobFailed names it."""
    assert "wave" not in sys.modules
    failure = Failure(reason=Reason.ERROR, type="wave.Error", message="no wave")
    back = failure.to_exception()
    assert isinstance(back, JobFailed)
    assert (back.type, back.message, str(back)) == ("wave.Error", "no wave", "wave.Error: no wave")
    assert "wave" not in sys.modules


def test_no_code_of_a_module_runs_for_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that makes its names on demand is not asked to make one."""
    asked: list[str] = []
    lazy = types.ModuleType("lazy")
    lazy.__getattr__ = asked.append  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    assert isinstance(Failure(reason=Reason.ERROR, type="lazy.Error", message="").to_exception(), JobFailed)
    assert not asked


@pytest.mark.parametrize("name", ["int", "print", "json.dumps", "os.path", "", ".", "a..b", "nothing"])
def test_only_exception_classes_are_built(name: str) -> None:
    """A failure that names something else than an exception class builds nothing."""
    assert isinstance(Failure(reason=Reason.ERROR, type=name, message="").to_exception(), JobFailed)


def test_crash() -> None:
    """A crash says how often and by what the process died, as text and as numbers."""
    back = Failure.from_data(Failure.crashed(-signal.SIGKILL, 3).to_data()).to_exception("7")
    assert isinstance(back, JobCrashed)
    assert str(back) == "the job's process died 3 times; the last one was killed by SIGKILL (signal 9)"
    assert (back.crashes, back.exitcode, back.job_id) == (3, -9, "7")


def test_timeout() -> None:
    """A job killed at its timeout raises JobTimeout, which is a TimeoutError."""
    back = Failure.from_data(Failure.timed_out(2.5).to_data()).to_exception("7")
    assert isinstance(back, JobTimeout)
    assert "2.5 s" in str(back)
    assert back.job_id == "7"


def test_lost() -> None:
    """A job that its store lost raises JobLost."""
    failure = Failure(reason=Reason.LOST, type="taskq.errors.JobLost", message="the store was emptied")
    assert isinstance(failure.to_exception(), JobLost)


def test_job_errors_get_their_job() -> None:
    """An exception of taskq's own that tells of a job learns the job's id."""
    back = travelled(DependencyFailed("job 5 failed"))
    assert isinstance(back, DependencyFailed)
    assert back.job_id == "7"


@pytest.mark.parametrize(
    ("exitcode", "text"),
    [
        (-9, "was killed by SIGKILL (signal 9)"),
        (-11, "was killed by SIGSEGV (signal 11)"),
        (-200, "was killed by signal 200"),
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (None, "ended, nobody knows how"),
    ],
)
def test_exits_in_words(exitcode: int | None, text: str) -> None:
    """The end of a process is told in words that people know."""
    assert describe_exit(exitcode) == text


def test_matches_like_an_except_clause() -> None:
    """A failure matches its class, the classes above it, and their names; nothing else."""
    failure = Failure.from_exception(Outer.Inner("x"))
    assert failure.matches((Outer.Inner,))
    assert failure.matches((ValueError, LookupError))
    assert failure.matches(("tests.unit.test_result.Outer.Inner",))
    assert failure.matches((BaseException,))
    assert not failure.matches((KeyError, "Inner"))
    assert not failure.matches(())


def test_long_texts_are_cut_in_the_middle() -> None:
    """A message of any length leaves room in the result; its beginning and its end are kept."""
    failure = Failure.from_exception(raised(ValueError("a" + "x" * 1_000_000 + "z")))
    assert len(failure.message) < 20_000
    assert failure.message.startswith("a")
    assert failure.message.endswith("z")
    assert "characters left out" in failure.message
    assert len(codec.encode(failure.to_data())) < 200_000


def test_texts_that_are_not_unicode_travel() -> None:
    """A message with lone surrogates, as file names have, is written with escapes and encodes."""
    back = travelled(ValueError("caf\udce9"))
    assert str(back) == "caf\\udce9"


def test_broken_text_is_told_of() -> None:
    """An exception whose own __str__ fails is described all the same, and comes back as broken as it was."""
    assert type(travelled(BrokenText("x"))) is BrokenText
    failure = Failure.from_exception(raised(BrokenText("x")))
    assert "its __str__ raised RuntimeError" in failure.message
    assert "BrokenText" in failure.traceback


def test_from_data_ignores_what_newer_versions_add() -> None:
    """Entries behind the known ones are passed over."""
    failure = Failure.crashed(3, 1)
    assert Failure.from_data([*failure.to_data(), "new", {"more": 1}]) == failure


@pytest.mark.parametrize(
    "data",
    [
        None,
        "error",
        [],
        ["error", "ValueError", "x", "", [], None, 0],
        ["no reason", "ValueError", "x", "", [], None, 0, None],
        [["error"], "ValueError", "x", "", [], None, 0, None],
        ["error", 5, "x", "", [], None, 0, None],
        ["error", "ValueError", None, "", [], None, 0, None],
        ["error", "ValueError", "x", b"", [], None, 0, None],
        ["error", "ValueError", "x", "", [5], None, 0, None],
        ["error", "ValueError", "x", "", None, None, 0, None],
        ["error", "ValueError", "x", "", [], "9", 0, None],
        ["error", "ValueError", "x", "", [], None, -1, None],
        ["error", "ValueError", "x", "", [], None, 0, [[]]],
        ["error", "ValueError", "x", "", [], None, 0, 5],
    ],
)
def test_other_data_is_refused(data: object) -> None:
    """Data that `to_data` never makes raises DecodeError."""
    with pytest.raises(DecodeError):
        Failure.from_data(data)


@given(st.lists(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text() | st.none()), max_size=10))
def test_junk_raises_decode_error_only(data: list[Any]) -> None:
    """Whatever stands in a failure's place, it is read or refused with DecodeError."""
    try:
        failure = Failure.from_data(data)
    except DecodeError:
        return
    assert isinstance(failure.to_exception(), Exception)
