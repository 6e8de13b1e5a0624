"""Failures as data: what is told of an exception, and what the client raises from it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import types
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import codec, rebuild
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
from taskq.failure import Failure, describe_exit
from taskq.states import Reason
from tests.sample_errors import BrokenText, KeywordOnly, OddConstructor, Plain, WithAttributes

if TYPE_CHECKING:
    from collections.abc import Callable


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


class Slotted(Exception):
    """Keep attributes in slots, one of them mangled."""

    __slots__ = ("__hidden", "code")

    def __init__(self, code: int) -> None:
        self.code = code
        self.__hidden = -code

    @property
    def hidden(self) -> int:
        """Return the mangled one."""
        return self.__hidden


class FileTrouble(OSError):
    """Have a constructor of its own above OSError's."""

    def __init__(self, *, path: str) -> None:
        super().__init__(2, "no such thing", path)
        self.path = path


class Several(ExceptionGroup):
    """A group with a constructor of its own."""

    def __new__(cls, message: str, members: list[Exception], code: int) -> Self:
        """Make it of two arguments."""
        return super().__new__(cls, message, members)

    def __init__(self, message: str, members: list[Exception], code: int) -> None:
        self.code = code


def traced(act: Callable[[], object]) -> Exception:
    """Return the exception that this raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        act()
    return caught.value


FULL_ORIGINALS = [
    OddConstructor(3, "why"),
    KeywordOnly(code=3),
    WithAttributes(3, {"a": (1, 2)}),
    Slotted(5),
    FileTrouble(path="/here"),
    BlockingIOError(11, "later", 5),
    subprocess.CalledProcessError(3, ["ls", "-l"], output=b"x"),
    asyncio.IncompleteReadError(b"ab", 7),
    traced(lambda: json.loads("{")),
    traced(lambda: compile("a b", "file.py", "exec")),
    traced(lambda: __import__("no_such_module")),
    traced(lambda: ().nothing),  # type: ignore[attr-defined]
    traced(lambda: int("x", 99)),
    ValueError((1, 2), {"a": datetime(2026, 1, 1, tzinfo=UTC)}),
    UnicodeDecodeError("utf-8", b"\xff" * 5000, 0, 1, "long"),
]


@pytest.mark.parametrize("error", FULL_ORIGINALS, ids=lambda error: type(error).__name__)
def test_comes_back_with_its_attributes(error: Exception) -> None:
    """An exception whose constructor takes something else than its text comes back whole: no constructor is run."""
    back = travelled(error)
    assert type(back) is type(error)
    assert (back.args, str(back), vars(back)) == (error.args, str(error), vars(error))
    for name in ("errno", "filename", "characters_written", "name", "lineno", "text", "code", "hidden", "object"):
        assert getattr(back, name, None) == getattr(error, name, None)


def test_groups_keep_their_members() -> None:
    """A group comes back with its members, of their classes, with notes and attributes, at every level."""
    inner = OddConstructor(3, "why")
    inner.add_note("of the member")
    error = Several("outer", [ValueError("a"), ExceptionGroup("inner", [inner, KeyError("b")])], code=4)
    error.add_note("of the group")
    back = travelled(error)
    assert isinstance(back, Several)
    assert (back.code, back.message, back.__notes__) == (4, "outer", ["of the group"])
    matched, rest = back.split(OddConstructor)
    assert matched is not None
    assert rest is not None
    (found,) = matched.exceptions[0].exceptions  # type: ignore[union-attr]
    assert (found.code, found.__notes__) == (3, ["of the member"])
    assert str(rest.exceptions[0]) == "a"


def test_an_unknown_member_is_a_job_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member whose class is not known here is a JobFailed, and the group a group."""
    failure = Failure.from_exception(ExceptionGroup("two", [ValueError("a"), Plain("b")]))
    monkeypatch.delattr("tests.sample_errors.Plain")
    back = failure.to_exception()
    assert isinstance(back, ExceptionGroup)
    assert [type(member) for member in back.exceptions] == [ValueError, JobFailed]


def test_the_cause_comes_too() -> None:
    """What an exception was raised from is there, behind the remote traceback; and so are exceptions that it holds."""
    error = Plain("second")
    error.__cause__ = OddConstructor(1, "first")
    error.original = KeyError("held")  # type: ignore[attr-defined]
    back: Any = travelled(error)
    assert type(back.original) is KeyError
    assert isinstance(back.__cause__, RemoteError)
    assert isinstance(back.__cause__.__cause__, OddConstructor)
    assert back.__cause__.__cause__.code == 1


def test_what_cannot_be_carried_is_said() -> None:
    """An attribute that cannot travel is left out, and a note names it and says why."""
    error = OddConstructor(3, "why")
    error.reason = threading.Lock()  # type: ignore[assignment]
    back = travelled(error)
    assert isinstance(back, OddConstructor)
    assert back.code == 3
    assert not hasattr(back, "reason")
    assert "not carried from the job: reason (object of type _thread.lock" in back.__notes__[0]


class NeedsAttribute(Exception):
    """Make its text of an attribute."""

    def __init__(self, lock: object) -> None:
        self.lock = lock

    def __str__(self) -> str:
        """Return a text that wants the attribute."""
        return f"waited for {self.lock.locked()}"  # type: ignore[attr-defined]


class Endless(Exception):
    """Have an attribute beyond all bounds."""

    def __init__(self) -> None:
        super().__init__("endless")
        self.data = b"x" * 1_000_000

    def __str__(self) -> str:
        """Return a text of it."""
        return f"{len(self.data)} bytes"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (NeedsAttribute(threading.Lock()), "would not be the same without args[0], lock"),
        (Endless(), "would not be the same without data"),
        (RuntimeError(1, threading.Lock()), "would not be the same without args[1]"),
        (SystemExit(3), "would end the program"),
        (KeyboardInterrupt(), "would end the program"),
        (GeneratorExit(), "would end the program"),
        (asyncio.CancelledError("stop"), "would end the program"),
        (BaseExceptionGroup("two", [SystemExit(1)]), "would end the program"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_cannot_be_rebuilt_truly_becomes_job_failed(error: BaseException, why: str) -> None:
    """What would not be itself, or would end the program that waits, is a JobFailed that names it and says why."""
    back = travelled(error)
    assert type(back) is JobFailed
    assert back.type.endswith(type(error).__qualname__)
    assert type(error).__qualname__ in str(back)
    assert "Traceback" in back.traceback
    assert why in back.__notes__[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_what_ends_programs_is_an_outcome_at_home(error: BaseException) -> None:
    """From a child of this program SystemExit and its like come back as what they were, as from other executors."""
    back = Failure.from_exception(raised(error)).to_exception("7", home=True)
    assert type(back) is type(error)
    assert back.args == error.args


class Watchful(Exception):
    """Note each piece of its own code that runs."""

    ran: ClassVar[list[str]] = []

    def __new__(cls, *args: object) -> Self:
        """Note it."""
        cls.ran.append("new")
        return super().__new__(cls, *args)

    def __init__(self, text: str) -> None:
        self.ran.append("init")
        super().__init__(text)

    def __setstate__(self, state: object) -> None:
        """Note it."""
        self.ran.append("setstate")

    def __reduce__(self) -> tuple[Any, ...]:
        """Note it."""
        self.ran.append("reduce")
        return super().__reduce__()  # type: ignore[return-value]

    def __setattr__(self, name: str, value: object) -> None:
        self.ran.append("setattr")
        super().__setattr__(name, value)

    def __getattribute__(self, name: str) -> Any:
        type(self).ran.append("getattribute")
        return super().__getattribute__(name)

    @property
    def code(self) -> int:
        """Note it."""
        self.ran.append("get")
        return 0

    @code.setter
    def code(self, value: int) -> None:
        self.ran.append("set")


def test_no_code_of_the_class_runs() -> None:
    """Whatever a failure from elsewhere holds, nothing of the class that it names is called to rebuild it."""
    parts = rebuild.Parts(("text",), {"code": 3, "__class__": "Evil", "other": 1}, {"errno": 5})
    Watchful.ran.clear()
    back = rebuild.build(Watchful, parts)
    assert Watchful.ran == []
    assert type(back) is Watchful
    assert object.__getattribute__(back, "__dict__") == {"code": 3, "other": 1}


def test_details_of_others_raise_nothing_else() -> None:
    """Details that taskq never wrote make a JobFailed, of any depth and any kind."""
    nested: Any = ["error", "ValueError", "x", "", [], None, 0, None]
    for _ in range(50):
        nested = ["error", "ExceptionGroup", "x", "", [], None, 0, None, codec.encode({"members": [nested]})]
    junk: list[Any] = [b"", b"\xc1", codec.encode([]), codec.encode({"args": [5]}), codec.encode({"members": [[1]]})]
    junk += [codec.encode({"attributes": {"a": b"\xc1"}}), codec.encode({"fields": {"errno": codec.encode([])}})]
    for details in (*junk, nested[8]):
        data = ["error", "OSError", "x", "", [], None, 0, [1, "x"], details]
        assert isinstance(Failure.from_data(data).to_exception(), (OSError, JobFailed))
        data[1] = "ExceptionGroup"
        assert isinstance(Failure.from_data(data).to_exception(), (ExceptionGroup, JobFailed))


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
    assert failure.matches(("tests.unit.test_failure.Outer.Inner",))
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
    """A message with lone surrogates, as file names have, comes back; what describes it has escapes in their place."""
    assert travelled(ValueError("caf\udce9")).args == ("caf\udce9",)
    assert Failure.from_exception(ValueError("caf\udce9")).message == "caf\\udce9"


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
