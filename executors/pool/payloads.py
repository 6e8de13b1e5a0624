"""The encodings of arguments and results between a program and its own children. The only file that pickles.

Plain scalars go as msgpack. Everything else goes as one pickle, because both ends are the same trusted program and
users of a process pool expect any picklable object to work; under `strict=True` it goes through taskq's codec instead,
which proves that the code is ready for a queue on which nothing is ever pickled.
"""

from __future__ import annotations

import pickle
from importlib import import_module
from io import BytesIO
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.errors import DecodeError, EncodeError, SoftTimeout, UnknownTask
from taskq.failure import Failure
from taskq.locks import pass_on
from taskq.rebuild import find_class, obstacle, parts_of
from taskq.states import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType

# Encodings of a record or payload. BARE_BYTES is one bytes object as it is, and LARGE_CALL the arguments of one call
# without its number, so that megabytes are not copied to be wrapped; FAILURE is one Failure instead of values.
MSGPACK, PICKLE, CODEC, BARE_BYTES, FAILURE, LARGE_CALL = range(6)

#: Types that msgpack carries exactly: equal and of the same type at the other end.
SCALARS: Final = frozenset({int, float, str, bytes, bool, type(None)})
are_scalars = SCALARS.issuperset
#: Those of which none is large, and those of which msgpack carries every value besides.
are_short = frozenset({int, float, bool, type(None)}).issuperset
_SHORT: Final = frozenset({float, bool, type(None)})
#: One packer for all threads: packing lists and tuples of exact scalars runs no Python, so it is never entered twice.
pack_scalars: Callable[[Any], bytes] = msgpack.Packer().pack
#: Decodes what `pack` has encoded as MSGPACK, and nothing else.
unpack_scalars: Callable[[bytes], list[Any]] = msgpack.unpackb
#: Bytes of a value from which it is pickled: msgpack copies it more often, and the packer keeps the memory for ever.
LARGE: Final = 256 * 1024
#: Values up to which each is looked at for its size: a batch of more is a batch of small ones.
_FEW: Final = 8
#: Characters of a text that is not looked at any further, and the numbers that msgpack carries.
_FEW_BYTES: Final = 1024
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1

_PROTOCOL = 5
#: Why a job failed that could not be begun.
_OWN_REASONS: Final[dict[type[BaseException], Reason]] = {
    UnknownTask: Reason.UNKNOWN_TASK,
    DecodeError: Reason.UNDECODABLE,
}


class JobInside(Exception):  # a signal from the pickler to submit, not an error
    """A Job stood among the values: its result is wanted in its place."""


def pack(values: Sequence[Any], *, strict: bool, root: str) -> tuple[int, bytes]:
    """Encode a list or tuple of values; return its encoding and the bytes.

    Raises:
        EncodeError: a value can be neither encoded nor pickled (`strict`: not encoded); names its path below `root`.
        JobInside: a value is or holds a Job.
    """
    if len(values) == 1 and type(values[0]) is bytes:
        return BARE_BYTES, values[0]
    if are_scalars(map(type, values)) and (len(values) > _FEW or not has_large(values)):
        try:
            return MSGPACK, pack_scalars(values)
        except (OverflowError, ValueError):  # beyond 64 bits, lone surrogates
            pass
    if strict:
        return CODEC, _codec().encode(list(values), max_depth=_codec().MAX_DEPTH + 1, root=root)
    try:
        return PICKLE, pickle.dumps(values, _PROTOCOL)
    except JobInside:
        raise
    except SoftTimeout:
        raise
    except Exception as error:
        pass_on(error)
        raise _refusal(values, root, error) from error


#: Bytes of the header of a msgpack array by its first byte; those of less than sixteen values have one byte.
_HEADER_BYTES: Final = {0xDC: 3, 0xDD: 5}


def join(parts: list[bytes], values: int) -> bytes:
    """Return MSGPACK bytes of so many values, of the bytes of some of them each, in order."""
    if len(parts) == 1:
        return parts[0]
    header = _HEADER_BYTES.get
    return b"".join((b"\xdd", values.to_bytes(4, "big"), *[part[header(part[0], 1) :] for part in parts]))


def pack_one(value: Any, *, strict: bool, root: str) -> tuple[int, bytes]:
    """Encode one value as a list of one, naming the path below the value itself when it cannot travel."""
    kind = type(value)
    if kind in _SHORT or (kind is int and _INT_MIN <= value <= _INT_MAX) or (kind is str and len(value) < _FEW_BYTES):
        try:
            return MSGPACK, pack_scalars((value,))
        except ValueError:  # lone surrogates
            pass
    try:
        return pack([value], strict=strict, root=root)
    except EncodeError as error:
        raise EncodeError(error.problem, error.path.replace(f"{root}[0]", root, 1)) from error.__cause__


def has_large(values: Iterable[Any]) -> bool:
    """Tell whether one of these scalars takes so much memory that it must not be copied more often than needed."""
    return max(map(getsizeof, values), default=0) > LARGE


def pack_call(number: int | str, args: Sequence[Any], kwargs: Mapping[str, Any], *, strict: bool) -> bytes | LargeCall:
    """Encode one call: `[number, args, kwargs]` when all is plain, `[number, bytes of both]` when not.

    A large one comes as the bytes of both alone, unless it has a text for its number.

    Raises:
        EncodeError, JobInside: as `pack`.
    """
    if are_short(map(type, args)) and not kwargs:
        try:
            return pack_scalars((number, args, None))
        except OverflowError:  # beyond 64 bits
            pass
    elif _are_small_scalars(args, kwargs):
        try:
            if kwargs:  # to walk a dict may run the garbage collector, and in it any finalizer
                return bytes(msgpack.packb((number, args, kwargs)))
            return pack_scalars((number, args, None))
        except (OverflowError, ValueError):  # beyond 64 bits, lone surrogates
            pass
    blob = _pack_both(args, kwargs, strict=strict)
    if len(blob) < LARGE:
        return pack_scalars((number, blob))
    return LargeCall(blob) if type(number) is int else bytes(msgpack.packb((number, blob)))


def _are_small_scalars(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    named = kwargs.values()
    return are_scalars(map(type, args)) and are_scalars(map(type, named)) and not (has_large(args) or has_large(named))


class LargeCall:
    """The arguments of a call that goes to a child by itself."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def _pack_both(args: Sequence[Any], kwargs: Mapping[str, Any], *, strict: bool) -> bytes:
    if strict:
        return _joined(_codec().encode(list(args), root="args"), _codec().encode(dict(kwargs), root="kwargs"))
    try:
        return pickle.dumps((args, kwargs), _PROTOCOL)
    except JobInside:
        raise
    except SoftTimeout:
        raise
    except Exception as error:
        pass_on(error)
        bad_args = not _picklable(args)
        raise _refusal(args if bad_args else kwargs, "args" if bad_args else "kwargs", error) from error


def unpack_call(blob: bytes | memoryview, *, strict: bool) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Decode the bytes of both that `pack_call` made."""
    if not strict:
        args, kwargs = unpack(PICKLE, blob)
        return args, kwargs
    size = int.from_bytes(blob[:_SIZE], "little")
    return unpack(CODEC, blob[_SIZE : _SIZE + size]), unpack(CODEC, blob[_SIZE + size :])


def arguments_of(payload: bytes, bare_encoding: int | None, *, strict: bool) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Decode the payload of a job: what `pack_call` made, or what goes to a child by itself.

    Raises:
        DecodeError: as `unpack`.
    """
    if bare_encoding == BARE_BYTES:
        return [payload], {}
    if bare_encoding == LARGE_CALL:
        return unpack_call(payload, strict=strict)
    call = unpack(MSGPACK, payload)
    return (call[1], call[2] or {}) if len(call) > 2 else unpack_call(call[1], strict=strict)  # noqa: PLR2004  # see pack_call


#: Bytes of the length that stands before the first of two encoded values.
_SIZE: Final = 8


def _joined(first: bytes, second: bytes) -> bytes:
    return len(first).to_bytes(_SIZE, "little") + first + second


def _picklable(value: Any) -> bool:
    try:
        pickle.dumps(value, _PROTOCOL)
    except SoftTimeout:
        raise
    except Exception as error:  # noqa: BLE001  # whatever the class raises means no
        pass_on(error)
        return False
    return True


def unpack(encoding: int, data: bytes | memoryview) -> Any:
    """Decode what `pack` made: the values as a list or tuple.

    Raises:
        DecodeError: the bytes cannot be turned back into values, with the original error as cause.
    """
    try:
        if encoding == MSGPACK:
            return msgpack.unpackb(data)
        if encoding == BARE_BYTES:
            return [bytes(data)]
        if encoding == PICKLE:
            return pickle.loads(data)  # noqa: S301  # from our own child or parent, over a private socket
        return _codec().decode(data, max_depth=None)
    except SoftTimeout:
        raise
    except Exception as error:
        pass_on(error)
        message = f"the value arrived but could not be rebuilt: {type(error).__name__}: {error}"
        raise DecodeError(message) from error


def pack_failure(failure: Failure, error: BaseException | None = None, *, strict: bool = False) -> bytes:
    """Encode a failure, with what it cannot say of the exception pickled (never under `strict`)."""
    pickled = None if error is None or strict else _pickled(failure, error)
    return bytes(msgpack.packb([failure.to_data(), pickled], unicode_errors="surrogatepass"))


def pack_error(error: BaseException, reason: Reason = Reason.ERROR, *, strict: bool) -> bytes:
    """Encode what a job raised, as a failure."""
    if reason is Reason.ERROR and getattr(error, "__before_start__", False) is True:
        reason = _OWN_REASONS.get(type(error), reason)
    return pack_failure(Failure.from_exception(error, reason), error, strict=strict)


def _pickled(failure: Failure, error: BaseException) -> bytes | None:
    """Return the parts of an exception that its failure leaves out, or where parts do not make one, itself."""
    kind = type(error)
    cannot = obstacle(kind)
    if not cannot and failure.is_whole:
        return None
    whole = cannot or isinstance(error, BaseExceptionGroup)
    try:
        return pickle.dumps(error if whole else _picklable_parts(error), _PROTOCOL)
    except Exception:  # noqa: BLE001  # any class may refuse in any way; its description still travels
        return None


def _picklable_parts(error: BaseException) -> dict[str, Any]:
    parts = parts_of(error)
    attributes = {name: value for name, value in parts.attributes.items() if _picklable(value)}
    return {"attributes": attributes, **({"args": parts.args} if _picklable(parts.args) else {})}


def unpack_failure(data: bytes | memoryview) -> tuple[Failure, bytes | None]:
    """Decode what `pack_failure` made, leaving the exception pickled."""
    described, pickled = msgpack.unpackb(data, unicode_errors="surrogatepass")
    return Failure.from_data(described), pickled


def rebuild(failure: Failure, pickled: bytes | None, job_id: str | None) -> BaseException:
    """Return the exception that `Job.result` raises: the task's own one where possible, with the remote traceback."""
    _import_classes(failure)
    loaded = None if pickled is None else _loaded(pickled)
    described = failure.to_exception(job_id, home=True, extra=loaded if type(loaded) is dict else None)
    if not isinstance(loaded, BaseException):
        return described
    loaded.__cause__ = described.__cause__
    return loaded


def _import_classes(failure: Failure, depth: int = 5) -> None:
    """Import the modules of an exception's class and of those inside it, as unpickling them would."""
    module = failure.type
    while "." in module and find_class(failure.type) is None:
        module = module.rpartition(".")[0]
        try:
            import_module(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # then it is described
            pass_on(error)
    for inner in failure.inner() if depth else ():
        _import_classes(inner, depth - 1)


def _loaded(pickled: bytes) -> Any:
    """Unpickle an exception, or parts of one; None where that fails, or would end this process."""
    try:
        return _Careful(BytesIO(pickled)).load()
    except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001  # its __init__ wants other than its args
        pass_on(error)
        return None


class _Careful(pickle.Unpickler):
    """Load an exception, but nothing that ends the process that awaits it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ENDINGS:
            raise pickle.UnpicklingError(f"{module}.{name} would end this process")
        return super().find_class(module, name)


#: What ends a process at once, or any process: nothing that an exception is made of.
_ENDINGS: Final = frozenset(
    (module, name)
    for module in ("os", "posix", "nt", "sys", "builtins", "_sitebuiltins", "signal", "_signal")
    for name in ("_exit", "abort", "kill", "killpg", "exit", "quit", "raise_signal")
)


def _refusal(value: Any, root: str, error: Exception) -> EncodeError:
    """Name the innermost part of `value` that cannot be pickled."""
    path, culprit, why = _blame(value, root, error, depth=0)
    kind = type(culprit).__qualname__
    problem = f"object of type {kind} cannot be pickled ({why}): pass plain data, or what the task can open itself"
    return EncodeError(problem, path)


def _codec() -> ModuleType:
    """Return taskq's codec, imported when the first strict queue needs it: 10 ms that others keep."""
    from taskq import codec  # noqa: PLC0415

    return codec


#: Levels of containers searched for the bad value: enough for real arguments, no deeper than recursion allows.
_BLAME_DEPTH = 50


def _blame(value: Any, path: str, error: Exception, depth: int) -> tuple[str, Any, str]:
    if depth < _BLAME_DEPTH:
        for step, part in _parts(value):
            try:
                pickle.dumps(part, _PROTOCOL)
            except SoftTimeout:
                raise
            except Exception as inner:  # noqa: BLE001  # whatever the class raises is the reason we report
                pass_on(inner)
                return _blame(part, path + step, inner, depth + 1)
    return path, value, f"{type(error).__name__}: {error}"


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", part) for key, part in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    return [(f".{name}", part) for name, part in getattr(value, "__dict__", {}).items()]
