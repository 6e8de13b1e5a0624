"""A job's failure as plain data, and the exception that the client raises from it.

    exception in the child ──from_exception──▶ Failure ──to_data──▶ bytes ──from_data──▶ Failure
                                                                                            │
    the original class (builtin or already imported here), or JobFailed  ◀──to_exception────┘

Nothing is imported because a failure names it, and no code of the class runs to rebuild its exception (`rebuild`). What
its plain fields cannot hold of one (attributes, the members of a group, ...) stands in its `details`.
"""

from __future__ import annotations

import math
import signal
import traceback as tracebacks
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

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
    TaskqError,
)
from taskq.frozen import Frozen
from taskq.names import qualified_name
from taskq.rebuild import Parts, build, find_class, has_own_text, is_exception, parts_of
from taskq.states import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from taskq.details import Details

__all__ = ["Again", "Failure", "Scalar", "describe_exit"]

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

#: Exceptions within exceptions that are described: members of groups, causes.
NESTED_MAX: Final = 4

#: Bytes of details that are looked at.
DETAILS_MAX: Final = 131_072

#: Bytes of a signature at the most, see `signing`.
SEAL_MAX: Final = 256

#: Bytes or characters that all the `args` of an exception may take together to travel with it.
ARGS_LIMIT = 4096

#: Classes that a failure counts as where no exception object told (a killed process leaves none).
CLASS_OF_REASON: dict[Reason, type[Exception]] = {
    Reason.TIMEOUT: JobTimeout,
    Reason.CRASHED: JobCrashed,
    Reason.LOST: JobLost,
    Reason.EXPIRED: JobExpired,
}


class Again(NamedTuple):
    """The wish to run a job again after `delay` seconds; `counted`: that is one of its retries."""

    delay: float
    counted: bool = True


class Failure(Frozen):
    """The reason why a job failed, in plain data that any process can read.

    `type` and the names in `mro` read "module.Qualname", builtins without their module. `mro` holds the
    classes that an `except` clause could catch the exception by. `args` are the exception's own where
    all are plain and short, else None. `exitcode` is negative for a signal, as in multiprocessing. `seal`: the
    signature over the rest, where failures are signed. `again`: what the job has asked for and nobody has decided yet.
    """

    reason: Reason
    type: str
    message: str
    traceback: str = ""
    mro: tuple[str, ...] = ()
    exitcode: int | None = None
    crashes: int = 0
    args: tuple[Scalar, ...] | None = None
    details: bytes = b""
    seal: bytes = b""
    again: Again | None = None

    @classmethod
    def from_exception(cls, exc: BaseException, reason: Reason = Reason.ERROR) -> Self:
        """Describe an exception; one whose own `__str__` fails is described all the same."""
        found = cls._described(exc, reason, _clean(_traceback_of(exc), TRACEBACK_LIMIT), 0)
        again = exc.__again__ if isinstance(exc, TaskqError) and reason is Reason.ERROR else None
        return found if again is None else found.changed(again=Again(*again))

    @classmethod
    def _described(cls, exc: BaseException, reason: Reason, traceback: str, depth: int) -> Self:
        parts = parts_of(exc)
        text = _text_of(exc)
        message = _clean(text, MESSAGE_LIMIT)
        args = None if parts.members else _plain_args(parts.args)
        return cls(
            reason=reason,
            type=qualified_name(type(exc)),
            message=message,
            traceback=traceback,
            mro=_names_of(type(exc)),
            args=args,
            details=_details_of(exc, parts, args is not None, (text, message), partial(cls._nested, depth=depth + 1)),
        )

    @classmethod
    def _nested(cls, exc: BaseException, *, depth: int) -> list[Any]:
        """Describe an exception inside another; its traceback is in that one's."""
        if depth > NESTED_MAX:
            bare = cls(reason=Reason.ERROR, type=qualified_name(type(exc)), message=_clean(_text_of(exc), BRIEF_LIMIT))
            return bare.to_data()
        return cls._described(exc, Reason.ERROR, "", depth).to_data()

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
        more = [self.details, self.seal, list(self.again or ())]
        while more and not more[-1]:
            more.pop()
        return [*head, list(self.mro), self.exitcode, self.crashes, args, *more]

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
        more: list[Any] = list(data)[len(FIELD_CHECKS) :]
        details, seal, again = [*more, None, None, None][:3]
        return cls(
            reason=Reason(reason),
            type=kind,
            message=message,
            traceback=traceback,
            mro=tuple(mro),
            exitcode=exitcode,
            crashes=crashes,
            args=None if args is None else tuple(args),
            details=details if type(details) is bytes and len(details) <= DETAILS_MAX else b"",
            seal=seal if type(seal) is bytes and len(seal) <= SEAL_MAX else b"",
            again=_again_of(again),
        )

    def to_exception(
        self, job_id: str | None = None, *, home: bool = False, extra: Mapping[str, Any] | None = None
    ) -> BaseException:
        """Build the exception to raise for this failure.

        It is of the original class when that is a builtin exception or a class of a module imported
        already, and can be rebuilt with the same text; else it is `JobFailed`, with a note that says why.
        What the pool ended is a `JobCrashed`, `JobTimeout` or `JobLost`. The remote traceback, if any, is the cause.

        `home`: it comes from a child of this very program, so it may be a SystemExit. `extra`: attributes, and `args`,
        that came by another way than the details.
        """
        exc = self._pool_error() or self.original(0, home=home, extra=extra or {})
        if isinstance(exc, JobError):
            exc.job_id = job_id
        if self.traceback:
            cause, exc.__cause__ = exc.__cause__, RemoteError(self.traceback)
            exc.__cause__.__cause__ = cause
        return exc

    @property
    def is_whole(self) -> bool:
        """Whether all of the exception is in it."""
        try:
            details = self._read_details()
        except DecodeError:
            return False
        if details is None:
            return self.args is not None
        return not (details.lost or details.why) and all(inner.is_whole for inner in self.inner())

    def inner(self) -> Iterator[Failure]:
        """Yield the failures of the exceptions inside: the members of a group, the cause."""
        details = self._read_details()
        if details is not None:
            for data in (
                *details.members,
                *details.errors.values(),
                *([] if details.cause is None else [details.cause]),
            ):
                if data:  # else there was no room for it
                    yield Failure.from_data(data)

    def _pool_error(self) -> JobError | None:
        if self.reason is Reason.CRASHED:
            return JobCrashed(self.message, crashes=self.crashes, exitcode=self.exitcode)
        if self.reason is Reason.TIMEOUT:
            return JobTimeout(self.message)
        if self.reason is Reason.EXPIRED:
            return JobExpired(self.message)
        return JobLost(self.message) if self.reason is Reason.LOST else None

    def _read_details(self) -> Details | None:
        """Return what the details say.

        Raises:
            DecodeError: they are not what taskq writes.
        """
        if not self.details:
            return None
        from taskq.details import unpack  # noqa: PLC0415  # 10 ms that only exceptions with such parts pay

        return unpack(self.details)

    def original(self, depth: int, *, home: bool, extra: Mapping[str, Any]) -> BaseException:
        """Rebuild the exception itself, or say in a JobFailed why that cannot be done truly."""
        try:
            return self._rebuilt(depth, home=home, extra=extra)
        except (DecodeError, ValueError) as error:
            failed = JobFailed(self.message, type=self.type, traceback=self.traceback)
            failed.add_note(f"taskq: it is no {self.type} here because {error}")
            return failed

    def _rebuilt(self, depth: int, *, home: bool, extra: Mapping[str, Any]) -> BaseException:
        found = find_class(self.type)
        if found is None:
            raise ValueError("this program has imported no exception class of that name")
        if not (home or is_exception(found)):
            raise ValueError("what is no Exception would end the program that waits for it")
        details = self._read_details()
        if details is None:
            return self._from_plain(found)
        if details.why and not extra:
            raise ValueError(details.why)
        attributes = {**details.attributes, **extra.get("attributes", {})}
        args = extra.get("args", self.args if details.args is None else details.args)
        parts = Parts(args or (), attributes, details.fields, details.notes)
        parts.message = details.message
        if depth < NESTED_MAX:
            inner = partial(_inner, depth=depth + 1, home=home)
            parts.members = [inner(data) for data in details.members]
            parts.attributes = attributes | {name: inner(data) for name, data in details.errors.items()}
        exc = build(found, parts)
        if details.cause is not None and depth < NESTED_MAX:
            exc.__cause__ = inner(details.cause)
        _note_losses(exc, [name for name in details.lost if not _is_in(extra, name)], details.lost)
        return exc

    def _from_plain(self, found: Any) -> BaseException:
        """Rebuild it from its arguments, or of a failure that has none, from its text."""
        if self.args is not None:
            return build(found, Parts(self.args))
        exc = build(found, Parts((self.message,)))
        if has_own_text(found) or _text_of(exc) != self.message:
            raise ValueError("of its arguments only its text is known")
        return exc


def _inner(data: object, *, depth: int, home: bool) -> BaseException:
    """Rebuild an exception that stands in another."""
    return Failure.from_data(data).original(depth, home=home, extra={})


def _details_of(exc: BaseException, parts: Parts, plain: bool, texts: tuple[str, str], nested: Any) -> bytes:
    """Return what the plain fields leave out; empty: nothing."""
    cause = exc.__cause__
    if plain and cause is None and not (parts.attributes or parts.fields or parts.notes or parts.members):
        return b""
    from taskq.details import pack  # noqa: PLC0415  # see Failure._read_details

    return pack(exc, parts, plain=plain, texts=texts, nested=nested)


def _is_in(extra: Mapping[str, Any], name: str) -> bool:
    return name in extra.get("attributes", {}) or (name.startswith("args[") and "args" in extra)


def _note_losses(exc: BaseException, names: Sequence[str], reasons: Mapping[str, str]) -> None:
    if names:
        told = "; ".join(f"{name} ({reasons[name]})" for name in names)
        BaseException.add_note(exc, f"taskq: not carried from the job: {told}")


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
    except BaseException as broken:  # noqa: BLE001  # the user's __str__ may raise anything, also SystemExit
        return f"<no text: its __str__ raised {type(broken).__name__}>"


def _traceback_of(exc: BaseException) -> str:
    try:
        return "".join(tracebacks.format_exception(exc))
    except BaseException as broken:  # noqa: BLE001  # formatting calls the user's __str__ and __repr__
        return f"<no traceback: formatting it raised {type(broken).__name__}>"


def _clean(text: str, limit: int) -> str:
    """Return text that UTF-8 can carry, with its middle cut out where it is over the limit."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain_args(args: Sequence[Any]) -> tuple[Scalar, ...] | None:
    """Return the exception's arguments if they can travel as they are: then the original can be rebuilt."""
    if not all(type(arg) in SCALARS and _travels(arg) for arg in args):
        return None
    return tuple(args) if sum(len(arg) for arg in args if isinstance(arg, (str, bytes))) <= ARGS_LIMIT else None


def _travels(arg: Scalar) -> bool:
    if isinstance(arg, str):
        return arg.isascii() or arg == _clean(arg, len(arg))
    return not isinstance(arg, int) or arg.bit_length() < 64  # noqa: PLR2004  # bits of msgpack's integers


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


def _again_of(data: Any) -> Again | None:
    fits = isinstance(data, (list, tuple)) and [*map(type, data)] == [float, bool] and 0 <= data[0] < math.inf
    return Again(*data) if fits else None


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
