"""Envelopes: one job as bytes, the same in every store, and the label by which lists show it.

    Template(kind, task, options).pack(args, kwargs)  ──▶  [1, kind, task, options, args, kwargs], msgpack
                                                              │
    head(bytes)      task and options, for stores and workers: the arguments stay bytes
    parts(bytes)     all of it

`options` are the msgpack bytes of a map, only what is not the default and matters to the process that runs the job.
`args` and `kwargs` are codec bytes of a list and of a dict; of a chunk, of the list of items and of how they become
arguments: whether each is spread over them, or a list of that, the arguments bound in front, and the keywords. Another
job among the arguments stands there as its id, and its result comes in its place.

A label is a short text, the job's call or command:

    on one's own queue file    the values, without what is long or tells a secret    thumbnail('a.jpg', size=128)
    where others read them     their types; of a command its first word              thumbnail(str, size=int)
    where one is given         that: the option `label`
"""

from __future__ import annotations

import shlex
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.codec.wire import SEALED
from taskq.errors import DecodeError, EncodeError, SoftTimeout, UnknownTask
from taskq.locks import pass_on
from taskq.names import portable_name
from taskq.options import JobOptions
from taskq.redact import MASK, is_secret, safe_text, safe_words
from taskq.retry import MAX_RETRIES, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "CALL",
    "CHUNK",
    "MAX_BYTES",
    "Head",
    "Parts",
    "Template",
    "command_label",
    "head",
    "label_of",
    "pack_results",
    "parameters_of",
    "parts",
]

#: The version that this code writes, and the newest that it reads.
VERSION: Final = 1

#: What an envelope holds: one call, or items of a map.
CALL: Final = 0
CHUNK: Final = 1

#: Bytes that an envelope, or a result, may measure on a durable executor unless the URL says otherwise.
MAX_BYTES: Final = 1_048_576

#: The options that the process that runs a job needs; the store keeps the others beside the envelope.
CARRIED: Final = ("timeout", "soft_timeout", "retry", "max_crashes", "expires", "result_ttl")

#: Entries of any list or map in an envelope's frame: bounds what reading hostile bytes can ask for.
FRAME_LIMIT: Final = 32

_DEFAULTS: Final = JobOptions()
_NO_OPTIONS: Final = bytes(msgpack.packb({}))


class Head(NamedTuple):
    """The part of an envelope before its arguments. `options` have only what was carried, see `CARRIED`."""

    kind: int
    task: str
    options: JobOptions


class Parts(NamedTuple):
    """All of an envelope, the arguments still encoded."""

    head: Head
    args: bytes
    kwargs: bytes


# --- writing


class Template:
    """The maker of envelopes for many jobs of one task with the same options."""

    __slots__ = ("_start",)

    def __init__(self, kind: int, task: str, options: JobOptions) -> None:
        packed = [VERSION, kind, task, pack_options(options)]
        self._start = b"\x96" + b"".join(map(msgpack.packb, packed))

    def pack(self, args: bytes, kwargs: bytes, *, limit: int | None = None) -> bytes:
        """Return the envelope with these encoded arguments.

        Raises:
            EncodeError: it takes more than `limit` bytes.
        """
        envelope = b"".join((self._start, _bin_header(args), args, _bin_header(kwargs), kwargs))
        if limit is not None and len(envelope) > limit:
            cure = "pass a path or a key to the data instead, or raise max_bytes in the URL"
            raise EncodeError(f"the job takes {len(envelope):,} bytes, above the limit of {limit:,}: {cure}", "args")
        return envelope


def _bin_header(data: bytes) -> bytes:
    size = len(data)
    if size < 1 << 8:
        return bytes((0xC4, size))
    return b"\xc5" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xc6" + size.to_bytes(4, "big")


def pack_options(options: JobOptions) -> bytes:
    carried = {name: getattr(options, name) for name in CARRIED if getattr(options, name) != getattr(_DEFAULTS, name)}
    if "retry" in carried:
        carried["retry"] = _retry_to_data(carried["retry"])
    return bytes(msgpack.packb(carried))


def _retry_to_data(retry: Retry) -> list[Any]:
    on = [entry if isinstance(entry, str) else portable_name(entry) for entry in retry.on]
    data = [retry.max_retries, retry.delay, retry.backoff, retry.max_delay, retry.jitter, on]
    return [*data, list(retry.limits)] if retry.limits else data


def pack_results(results: Mapping[str, bytes]) -> bytes:
    """Return the results of the jobs that a job needed as one bytes object, for `perform_call`."""
    return bytes(msgpack.packb(dict(results))) if results else b""


# --- reading


def head(envelope: bytes) -> Head:
    """Return the task and options of an envelope; the arguments are not decoded. Costs a microsecond or two.

    Raises:
        DecodeError: these bytes are no envelope.
        UnknownTask: it was made by a newer taskq, or is signed; another worker may run it.
    """
    return parts(envelope).head


def parts(envelope: bytes) -> Parts:
    """Return the parts of an envelope, the arguments still as bytes.

    Raises:
        DecodeError, UnknownTask: as `head`.
    """
    try:
        version, *rest = msgpack.unpackb(
            envelope, max_array_len=FRAME_LIMIT, max_map_len=FRAME_LIMIT, max_ext_len=0, strict_map_key=True
        )
    except SoftTimeout:
        raise
    except Exception as error:
        pass_on(error)
        if envelope[: len(SEALED)] == SEALED:
            raise UnknownTask("the job is signed, and only a `taskq worker` with TASKQ_SIGNING_KEYS runs it") from None
        raise DecodeError(f"{len(envelope):,} bytes are no envelope of a job: {error}") from error
    if type(version) is int and version > VERSION:
        raise UnknownTask(f"the job's envelope is of version {version}, this taskq reads {VERSION}: update the worker")
    if version != VERSION or len(rest) != len(("kind", "task", "options", "args", "kwargs")):
        raise DecodeError(f"{len(envelope):,} bytes are no envelope of a job")
    kind, task, options, args, kwargs = rest
    if not (type(options) is type(args) is type(kwargs) is bytes and type(task) is str and kind in (CALL, CHUNK)):
        raise DecodeError("an envelope has a part of the wrong type")
    return Parts(_head(kind, task, options), args, kwargs)


@lru_cache(maxsize=1024)
def _head(kind: int, task: str, options: bytes) -> Head:
    return Head(kind, task, _DEFAULTS if options == _NO_OPTIONS else read_options(options))


def read_options(packed: bytes) -> JobOptions:
    """Return the options; those that this version does not know do not matter to it."""
    try:
        found: dict[str, Any] = msgpack.unpackb(packed, max_array_len=1024, max_map_len=FRAME_LIMIT, max_ext_len=0)
        carried = {name: value for name, value in found.items() if name in CARRIED}
        if "retry" in carried:
            carried["retry"] = _retry_from_data(carried["retry"])
        return JobOptions(**carried)
    except Exception as error:
        pass_on(error)
        raise DecodeError(f"an envelope's options cannot be read: {error}") from error


def _retry_from_data(data: list[Any]) -> Retry:
    max_retries, delay, backoff, max_delay, jitter, on, *more = data
    limits = tuple(more[0]) if more and type(more[0]) is list else ()
    if type(max_retries) is int:
        max_retries = min(max_retries, MAX_RETRIES)  # jobs from before there was a limit stay readable
    times = {"delay": delay, "backoff": backoff, "max_delay": max_delay}
    return Retry(max_retries, **times, jitter=bool(jitter), on=tuple(on), limits=limits)


# --- labels

#: Characters of a text that is shown; a longer one is left out, as it may be anything: a document, a key.
_TEXT: Final = 40
#: Characters of a whole label.
_LABEL: Final = 120
#: Arguments shown.
_SHOWN: Final = 6
#: Bits of an integer that is shown.
_BITS: Final = 64
#: Characters of each word of a command that are looked at.
_WORD: Final = 1000


def parameters_of(fn: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's positional parameters, as far as it has code that tells."""
    code = getattr(fn, "__code__", None)
    return () if code is None else code.co_varnames[: code.co_argcount]


def label_of(
    task: str, parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any], *, full: bool = True
) -> str:
    """Return a call as text, as "thumbnail('a.jpg', size=128)"; not `full`: as "thumbnail(str, size=int)"."""
    brief = _brief if full else _kind
    shown = [
        MASK if full and index < len(parameters) and is_secret(parameters[index]) else brief(value)
        for index, value in enumerate(args[:_SHOWN])
    ]
    for name, value in kwargs.items():
        shown.append(f"{name}={MASK}" if full and is_secret(name) else f"{name}={brief(value)}")
    if len(args) > _SHOWN:
        shown.append("...")
    return _cut(f"{task.partition(':')[2]}({', '.join(shown)})")


def command_label(argv: Sequence[str], *, full: bool) -> str:
    """Return a command as one would type it, without what tells a secret; not `full`: as "curl + 4 words"."""
    if full:
        return _cut(shlex.join(safe_words([word[:_WORD] for word in argv[: _LABEL // 2]])))
    more = len(argv) - 1
    first = safe_text(argv[0][:_WORD])
    return _cut(f"{first} + {more} word{'s' if more > 1 else ''}" if more else first)


def _cut(text: str) -> str:
    if not text.isascii():  # names of keyword arguments, and files' names in commands, may be no valid Unicode
        text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 3]}..."


def _kind(value: Any) -> str:
    return type(value).__name__


def _brief(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return str(value) if value.bit_length() <= _BITS else "<int>"
    if kind is str:
        return repr(safe_text(value)) if len(value) <= _TEXT and value.isprintable() else f"<{len(value)} characters>"
    if value is None or kind is bool or kind is float:
        return repr(value)
    return f"<{len(value)} bytes>" if kind is bytes else f"<{kind.__name__}>"
