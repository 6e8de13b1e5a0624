"""The layout of envelopes: one job as bytes, the same in every store.

    Template(kind, task, options).pack(args, kwargs)  ──▶  [1, kind, task, options, args, kwargs], msgpack
                                                              │
    head(bytes)      task and options, for those who pass it on: the arguments stay bytes
    parts(bytes)     all of it

`options` are the msgpack bytes of a map, only what is not the default and matters to whoever runs the job. `args` and
`kwargs` are codec bytes of a list and of a dict; of a chunk, of the list of items and of how they become arguments:
whether each is spread over them, or a list of that, the arguments bound in front, and the keywords. Another job among
the arguments stands there as its id, and its result comes in its place.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.errors import ConfigError, DecodeError, SoftTimeout, UnknownTask
from taskq.names import portable_name
from taskq.options import JobOptions
from taskq.retry import MAX_RETRIES, Retry

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CALL", "CHUNK", "MAX_BYTES", "Head", "Parts", "Template", "head", "pack_results", "parts"]

#: The version that this code writes, and the newest that it reads.
VERSION: Final = 1

#: What an envelope holds: one call, or items of a map.
CALL: Final = 0
CHUNK: Final = 1

#: Bytes that an envelope, or a result, may measure on a durable executor unless the URL says otherwise.
MAX_BYTES: Final = 1_048_576

#: The options that whoever runs a job needs; what else there is, the store keeps beside the envelope.
CARRIED: Final = ("timeout", "soft_timeout", "retry", "max_crashes", "expires", "result_ttl")

#: Entries of any list or map in an envelope's frame: bounds what reading hostile bytes can ask for.
FRAME_LIMIT: Final = 32

_DEFAULTS: Final = JobOptions()
_NO_OPTIONS: Final = bytes(msgpack.packb({}))


class Head(NamedTuple):
    """What an envelope says before its arguments. `options` have only what was carried, see `CARRIED`."""

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
    """Make the envelopes of many jobs of one task with the same options."""

    __slots__ = ("_start",)

    def __init__(self, kind: int, task: str, options: JobOptions) -> None:
        packed = [VERSION, kind, task, _pack_options(options)]
        self._start = b"\x96" + b"".join(map(msgpack.packb, packed))

    def pack(self, args: bytes, kwargs: bytes) -> bytes:
        """Return the envelope with these encoded arguments."""
        return b"".join((self._start, _bin_header(args), args, _bin_header(kwargs), kwargs))


def _bin_header(data: bytes) -> bytes:
    size = len(data)
    if size < 1 << 8:
        return bytes((0xC4, size))
    return b"\xc5" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xc6" + size.to_bytes(4, "big")


def _pack_options(options: JobOptions) -> bytes:
    carried = {name: getattr(options, name) for name in CARRIED if getattr(options, name) != getattr(_DEFAULTS, name)}
    if "retry" in carried:
        carried["retry"] = _retry_to_data(carried["retry"])
    return bytes(msgpack.packb(carried))


def _retry_to_data(retry: Retry) -> list[Any]:
    on = [entry if isinstance(entry, str) else portable_name(entry) for entry in retry.on]
    return [retry.max_retries, retry.delay, retry.backoff, retry.max_delay, retry.jitter, on]


def pack_results(results: Mapping[str, bytes]) -> bytes:
    """Return the results of the jobs that a job needed as one bytes object, for `perform_call`."""
    return bytes(msgpack.packb(dict(results))) if results else b""


# --- reading


def head(envelope: bytes) -> Head:
    """Return the task and options of an envelope; the arguments are not decoded. Costs a microsecond or two.

    Raises:
        DecodeError: these bytes are no envelope.
        UnknownTask: it was made by a newer taskq; a newer worker may run it.
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
    return Head(kind, task, _DEFAULTS if options == _NO_OPTIONS else _read_options(options))


def _read_options(packed: bytes) -> JobOptions:
    """Return the options; those that this version does not know do not matter to it."""
    try:
        found: dict[str, Any] = msgpack.unpackb(packed, max_array_len=1024, max_map_len=FRAME_LIMIT, max_ext_len=0)
        carried = {name: value for name, value in found.items() if name in CARRIED}
        if "retry" in carried:
            carried["retry"] = _retry_from_data(carried["retry"])
        return JobOptions(**carried)
    except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DecodeError(f"an envelope's options cannot be read: {error}") from error


def _retry_from_data(data: list[Any]) -> Retry:
    max_retries, delay, backoff, max_delay, jitter, on, *_newer = data
    if type(max_retries) is int:
        max_retries = min(max_retries, MAX_RETRIES)  # jobs from before there was a limit stay readable
    return Retry(max_retries, delay=delay, backoff=backoff, max_delay=max_delay, jitter=bool(jitter), on=tuple(on))
