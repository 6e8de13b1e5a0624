"""A job's failure as plain data, and the exception that the client raises from it.

    exception in the child ──from_exception──▶ Failure ──to_data──▶ bytes ──from_data──▶ Failure
                                                                                            │
    the original class (builtin or already imported here), or JobFailed  ◀──to_exception────┘

Nothing is imported because a failure names it.
"""

from __future__ import annotations

import signal
import sys
import traceback as tracebacks
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from taskq.errors import (
    DecodeError,
    DependencyFailed,
    JobCrashed,
    JobError,
    JobExpired,
    JobFailed,
    JobLost,
    JobTimeout,
    RemoteError,
)
from taskq.record import Record
from taskq.states import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Failure", "Scalar", "describe_exit", "qualified_name"]

#: What the `args` of an exception may hold to travel with its failure.
Scalar: TypeAlias = bool | int | float | str | bytes | None
#: What `Failure.matches` takes: classes, or their names as `qualified_name` gives them.
ExceptionClasses: TypeAlias = "Iterable[type[BaseException] | str]"

SCALARS = frozenset({bool, int, float, str, bytes, type(None)})

#: The texts of all reasons.
REASONS = frozenset(reason.value for reason in Reason)

#: Characters kept of a message and of a traceback: far above any that people read, and together far
#: below the 1 MiB that a result may measure on a durable executor.
MESSAGE_LIMIT = 16_384
TRACEBACK_LIMIT = 65_536

#: Characters kept of another job's message.
BRIEF_LIMIT = 500

#: What a task may end with besides an Exception: its job's outcome, as with every executor of concurrent.futures.
ENDINGS: dict[str, type[BaseException]] = {
    kind.__name__: kind for kind in (SystemExit, KeyboardInterrupt, GeneratorExit)
}

#: Bytes or characters that all the `args` of an exception may take together to travel with it.
ARGS_LIMIT = 4096

#: Classes that a failure counts as where no exception object told (a killed process leaves none).
CLASS_OF_REASON: dict[Reason, type[Exception]] = {
    Reason.TIMEOUT: JobTimeout,
    Reason.CRASHED: JobCrashed,
    Reason.LOST: JobLost,
    Reason.EXPIRED: JobExpired,
}


class Failure(Record):
    """Tell why a job failed, in plain data that any process can read.

    `type` and the names in `mro` read "module.Qualname", builtins without their module. `mro` holds the
    classes that an `except` clause could catch the exception by. `args` are the exception's own where
    all are plain and short, else None. `exitcode` is negative for a signal, as in multiprocessing.
    """

    reason: Reason
    type: str
    message: str
    traceback: str = ""
    mro: tuple[str, ...] = ()
    exitcode: int | None = None
    crashes: int = 0
    args: tuple[Scalar, ...] | None = None

    @classmethod
    def from_exception(cls, exc: BaseException, reason: Reason = Reason.ERROR) -> Self:
        """Describe an exception; one whose own `__str__` fails is described all the same."""
        return cls(
            reason=reason,
            type=qualified_name(type(exc)),
            message=_clean(_text_of(exc), MESSAGE_LIMIT),
            traceback=_clean(_traceback_of(exc), TRACEBACK_LIMIT),
            mro=_names_of(type(exc)),
            args=_plain_args(exc),
        )

    @classmethod
    def crashed(cls, exitcode: int | None, crashes: int) -> Self:
        """Describe a job whose process died `crashes` times, the last time with `exitcode`."""
        times = "once" if crashes == 1 else f"{crashes} times"
        message = f"the job's process died {times}; the last one {describe_exit(exitcode)}"
        return cls._without_exception(Reason.CRASHED, message, exitcode=exitcode, crashes=crashes)

    @classmethod
    def timed_out(cls, timeout: float) -> Self:
        """Describe a job that was killed after `timeout` seconds."""
        message = f"the job ran past its timeout of {timeout:g} s and its process was killed"
        return cls._without_exception(Reason.TIMEOUT, message)

    @classmethod
    def expired(cls, expires: float | None = None) -> Self:
        """Describe a job that had not started `expires` seconds after its submit."""
        within = "its time" if expires is None else f"{expires:g} s of its submit"
        return cls._without_exception(Reason.EXPIRED, f"the job expired: nothing had started it within {within}")

    @classmethod
    def lost(cls, message: str = "the store no longer has the job: it may have run or not") -> Self:
        """Describe a job that its store has lost."""
        return cls._without_exception(Reason.LOST, message)

    @classmethod
    def dependency(cls, job_id: str, cause: Failure | None = None, *, cancelled: bool = False) -> Self:
        """Describe a job that was not run because the job `job_id`, which it waited for, failed with `cause`."""
        known = DependencyFailed
        what = "was cancelled" if cancelled else "did not succeed"
        if cause is not None:
            what = _clean(f"failed with {cause.type}: {cause.message}".removesuffix(": "), BRIEF_LIMIT)
        message = f"the job was not run: job {job_id}, which it waited for, {what}"
        return cls(reason=Reason.ERROR, type=qualified_name(known), message=message, mro=_names_of(known))

    @classmethod
    def _without_exception(cls, reason: Reason, message: str, **fields: Any) -> Self:
        known = CLASS_OF_REASON[reason]
        return cls(reason=reason, type=qualified_name(known), message=message, mro=_names_of(known), **fields)

    def matches(self, classes: ExceptionClasses) -> bool:
        """Return whether an `except` clause with these classes, or names of classes, would catch it."""
        names = {entry if isinstance(entry, str) else qualified_name(entry) for entry in classes}
        return not names.isdisjoint((self.type, *self.mro))

    def to_data(self) -> list[Any]:
        """Return the failure as a list of plain values, the opposite of `from_data`."""
        args = None if self.args is None else list(self.args)
        head = [self.reason.value, self.type, self.message, self.traceback]
        return [*head, list(self.mro), self.exitcode, self.crashes, args]

    @classmethod
    def from_data(cls, data: object) -> Self:
        """Build a failure from what `to_data` gave; further entries, from a newer taskq, are passed over.

        Raises:
            DecodeError: `data` has another shape.
        """
        if not isinstance(data, (list, tuple)) or len(data) < len(FIELD_CHECKS):
            raise DecodeError(f"a failure is a list of at least {len(FIELD_CHECKS)} entries, not {_brief(data)}")
        for (name, fits), entry in zip(FIELD_CHECKS.items(), data, strict=False):
            if not fits(entry):
                raise DecodeError(f"a failure's {name} cannot be {_brief(entry)}")
        reason, kind, message, traceback, mro, exitcode, crashes, args = data[: len(FIELD_CHECKS)]
        return cls(
            reason=Reason(reason),
            type=kind,
            message=message,
            traceback=traceback,
            mro=tuple(mro),
            exitcode=exitcode,
            crashes=crashes,
            args=None if args is None else tuple(args),
        )

    def to_exception(self, job_id: str | None = None) -> BaseException:
        """Build the exception to raise for this failure.

        It is of the original class when that is a builtin exception or a class of a module imported
        already, and the class can be rebuilt with the same text; `JobFailed` otherwise. What the pool
        ended is a `JobCrashed`, `JobTimeout` or `JobLost`. The remote traceback, if any, is the cause.
        """
        exc = self._pool_error() or self._original() or self._as_job_failed()
        if isinstance(exc, JobError):
            exc.job_id = job_id
        if self.traceback:
            exc.__cause__ = RemoteError(self.traceback)
        return exc

    def _pool_error(self) -> JobError | None:
        if self.reason is Reason.CRASHED:
            return JobCrashed(self.message, crashes=self.crashes, exitcode=self.exitcode)
        if self.reason is Reason.TIMEOUT:
            return JobTimeout(self.message)
        if self.reason is Reason.EXPIRED:
            return JobExpired(self.message)
        return JobLost(self.message) if self.reason is Reason.LOST else None

    def _as_job_failed(self) -> JobFailed:
        return JobFailed(self.message, type=self.type, traceback=self.traceback)

    def _original(self) -> BaseException | None:
        """Rebuild the exception itself, or return None when that cannot be done truly."""
        found = _imported_class(self.type)
        if found is None:
            return None
        try:
            exc = found(self.message) if self.args is None else found(*self.args)
            return exc if _text_of(exc) == self.message and type(exc) is found else None
        except Exception:  # noqa: BLE001 - a stranger's constructor may raise anything; JobFailed serves then
            return None


def qualified_name(cls: type) -> str:
    """Return a class's name as "module.Qualname", builtins without their module."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def describe_exit(exitcode: int | None) -> str:
    """Say in words how a process ended: "was killed by SIGKILL (signal 9)", "exited with code 3"."""
    if exitcode is None:
        return "ended, nobody knows how"
    if exitcode >= 0:
        return f"exited with code {exitcode}"
    try:
        return f"was killed by {signal.Signals(-exitcode).name} (signal {-exitcode})"
    except ValueError:
        return f"was killed by signal {-exitcode}"


def _names_of(cls: type) -> tuple[str, ...]:
    return tuple(qualified_name(entry) for entry in cls.__mro__ if issubclass(entry, BaseException))


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as broken:  # noqa: BLE001 - the user's __str__ may raise anything
        return f"<no text: its __str__ raised {type(broken).__name__}>"


def _traceback_of(exc: BaseException) -> str:
    try:
        return "".join(tracebacks.format_exception(exc))
    except Exception as broken:  # noqa: BLE001 - formatting calls the user's __str__ and __repr__
        return f"<no traceback: formatting it raised {type(broken).__name__}>"


def _clean(text: str, limit: int) -> str:
    """Return text that UTF-8 can carry, with its middle cut out where it is over the limit."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain_args(exc: BaseException) -> tuple[Scalar, ...] | None:
    """Return the exception's arguments if they can travel as they are: then the original can be rebuilt."""
    args = _full_args(exc)
    if not all(type(arg) in SCALARS and _travels(arg) for arg in args):
        return None
    return args if sum(len(arg) for arg in args if isinstance(arg, (str, bytes))) <= ARGS_LIMIT else None


def _full_args(exc: BaseException) -> tuple[Any, ...]:
    """Return what the exception was built from; OSError takes file names out of its `args`."""
    if isinstance(exc, OSError) and exc.filename is not None and len(exc.args) == len(("errno", "strerror")):
        second = () if exc.filename2 is None else (None, exc.filename2)
        return (*exc.args, exc.filename, *second)
    return exc.args


def _travels(arg: Scalar) -> bool:
    if isinstance(arg, str):
        return arg.isascii() or arg == _clean(arg, len(arg))
    return not isinstance(arg, int) or arg.bit_length() < 64  # noqa: PLR2004 - bits of msgpack's integers


def _imported_class(name: str) -> type[BaseException] | None:
    """Find an exception class by its name among the modules imported already, without running any code."""
    if name in ENDINGS:
        return ENDINGS[name]
    parts = name.split(".")
    candidates = [("builtins", parts)] if len(parts) == 1 else []
    candidates += [(".".join(parts[:cut]), parts[cut:]) for cut in range(len(parts) - 1, 0, -1)]
    for module, path in candidates:
        found: object = sys.modules.get(module)
        for part in path:
            found = getattr(found, "__dict__", {}).get(part)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return None


def _brief(value: object) -> str:
    return f"{type(value).__name__} {repr(value)[:60]}"


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_reason(value: object) -> bool:
    return type(value) is str and value in REASONS


def _is_names(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_text, value))


def _is_exitcode(value: object) -> bool:
    return value is None or type(value) is int


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_args(value: object) -> bool:
    return value is None or (isinstance(value, (list, tuple)) and all(type(arg) in SCALARS for arg in value))


#: The entries of a failure on the wire, in their order, each with the check that it must pass.
FIELD_CHECKS = {
    "reason": _is_reason,
    "type": _is_text,
    "message": _is_text,
    "traceback": _is_text,
    "mro": _is_names,
    "exitcode": _is_exitcode,
    "crashes": _is_count,
    "args": _is_args,
}
