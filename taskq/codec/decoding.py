"""Decoding: the quick pass over the bytes, and the readers of what it leaves.

    quick pass      plain values and extensions that are leaves; a head raises NeedsHooks, and the bytes are
                    read again with
    Reader          arrays with heads too, for bytes that this program wrote itself, or with
    StrictReader    the same with a count of the work and a watch on hash collisions, for bytes of others

Before foreign bytes are read at all, msgpack walks over them once and builds nothing: that proves every
length in them.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from msgpack import (  # type: ignore[import-untyped]
    ExtraData,
    ExtType,
    FormatError,
    OutOfData,
    StackError,
    Unpacker,
    unpackb,
)

from taskq.codec.extensions import LEAVES, PLAIN_HEADS, Head, head_of_registered
from taskq.codec.wire import FIRST_RESERVED, MAX_DEPTH, SEALED, Code
from taskq.errors import DecodeError, SoftTimeout
from taskq.locks import pass_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CONTAINERS", "FREE_STEPS", "Resolve", "TooDeep", "decode", "scan_types"]

#: Returns the result of the job with an id.
Resolve: TypeAlias = "Callable[[str], Any]"

#: Types whose hashes cannot be steered: seeded (str, bytes), or so narrow that few values share one. Integers
#: are not among them: of those beyond 64 bits, as many as one likes share one.
SAFE_KEYS = frozenset({str, bytes, float, bool, type(None)})

#: Keys of one table that may share a hash. True ones hardly ever do; a table of n that all do takes n * n
#: steps to build.
MAX_SAME_HASH = 16

#: Steps of work, each some quarter of a microsecond, that any message may ask of its reader; and the bytes
#: that allow for one more. Data of any use takes more bytes a step; a flood of empty lists does not.
FREE_STEPS = 131_072
BYTES_PER_STEP = 8

#: Steps that an extension counts for where it is not one. A tuple's head comes with its array, which counts;
#: the codes of others become `ExtType` objects, which Python builds slowly.
STEPS: dict[int, int] = {
    **dict.fromkeys(range(FIRST_RESERVED), 3),
    Code.TUPLE: 0,
    Code.DECIMAL: 2,
    Code.UUID: 2,
    Code.PATH: 4,
    Code.ARRAY: 10,
    Code.ARRAY_SCALAR: 5,
}

#: Heads that can wait for the ends of their arrays: msgpack reads no deeper.
MAX_OPEN = 1024

#: Why a message that asks for more is refused.
CROWDED = "it holds too many containers and extensions for its size"

#: Bytes that begin containers: maps and arrays.
CONTAINER_BYTES = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))

#: What a pickle begins with, protocols 2 to 5; no value of msgpack that `encode` writes does.
PICKLES = frozenset(b"\x80" + bytes((protocol,)) for protocol in range(2, 6))

#: Why msgpack gave up, where its own words say nothing.
PLAIN_WORDS = {
    FormatError: "they hold a byte that begins no value",
    StackError: "they are nested too deeply",
    OutOfData: "they are cut short",
    ExtraData: "more bytes follow the end of the value",
}


def decode(
    data: bytes | bytearray | memoryview,
    *,
    limit: int | None = None,
    max_depth: int | None = MAX_DEPTH,
    resolve: Resolve | None = None,
) -> Any:
    """Return the value that `encode` made the bytes from.

    Any bytes may come: time and memory are bounded by their number (1 MiB of the worst: 50 to 100
    ms, 25 MiB), nothing is imported and no class is built but those registered here. `limit` is in bytes.
    `max_depth` None is for bytes that this very program wrote: faster, and none of these bounds hold.
    `resolve` gives the values of other jobs that stand in it by their ids; without it they are refused.

    Raises:
        DecodeError: these are no bytes of `encode`, or they go beyond the bounds.
    """
    if limit is not None and len(data) > limit:
        raise DecodeError(f"a message of {len(data):,} bytes is above the limit of {limit:,}")
    try:
        return _read(data, resolve) if max_depth is None else _read_foreign(data, max_depth, resolve)
    except SoftTimeout:
        raise
    except Exception as exc:
        pass_on(exc)
        if max_depth is None and isinstance(exc, MemoryError):
            raise  # the bytes are this program's own: it is the machine that has too little
        reason = PLAIN_WORDS.get(type(exc)) or f"{exc}" or type(exc).__name__
        if bytes(data[:2]) in PICKLES:
            reason = "it is a pickle, which taskq never reads"
        if bytes(data[:2]) == SEALED:
            reason = "it is signed: set TASKQ_SIGNING_KEYS to read it"
        cause = None if type(exc) in PLAIN_WORDS else exc
        raise DecodeError(f"{len(data):,} bytes are no message of taskq: {reason}") from cause


def _read(data: bytes | bytearray | memoryview, resolve: Resolve | None) -> Any:
    try:
        return unpackb(data, ext_hook=leaf, strict_map_key=False)
    except NeedsHooks:
        pass
    reader = Reader(resolve)
    value = unpackb(data, ext_hook=reader.extension, list_hook=reader.array, strict_map_key=False)
    reader.finish()
    return value


def _read_foreign(data: bytes | bytearray | memoryview, max_depth: int, resolve: Resolve | None) -> Any:
    _check_lengths(data)
    value = _read_within_bounds(data, resolve)
    if len(data) > max_depth:
        scan_types(value, max_depth)
    return value


def _read_within_bounds(data: bytes | bytearray | memoryview, resolve: Resolve | None) -> Any:
    if not _is_crowded(data):
        try:
            # Keys that are not text or bytes are left to the watch on hashes, and so is all that fails here.
            return unpackb(data, ext_hook=refuse, strict_map_key=True)
        except (NeedsHooks, ValueError):
            pass
    reader = StrictReader(len(data), resolve)
    value = unpackb(
        data,
        ext_hook=reader.extension,
        list_hook=reader.array,
        object_pairs_hook=reader.map,
        strict_map_key=False,
    )
    reader.finish()
    return value


def _check_lengths(data: bytes | bytearray | memoryview) -> None:
    """Walk over the message and build nothing: from here on every length in it is known to be true.

    Otherwise an array of five bytes could ask for memory for four billion items.
    """
    unpacker = Unpacker(read_size=len(data) or 1, max_buffer_size=len(data) or 1)
    unpacker.feed(data)
    unpacker.skip()
    if unpacker.tell() != len(data):
        raise ValueError(PLAIN_WORDS[ExtraData])


def _is_crowded(data: bytes | bytearray | memoryview) -> bool:
    """Return whether a message could hold so many containers that they are to be counted."""
    if len(data) <= FREE_STEPS:
        return False
    return len(data) - len(bytes(data).translate(None, CONTAINER_BYTES)) > FREE_STEPS


class NeedsHooks(Exception):
    """A message holds a head."""


def leaf(code: int, data: bytes) -> Any:
    """Read a leaf; the hook of the quick pass over own bytes."""
    unpack = LEAVES.get(code)
    if unpack is None:
        raise NeedsHooks
    return unpack(data)


def refuse(code: int, data: bytes) -> Any:  # noqa: ARG001  # the signature that unpackb calls
    """Read no extension at all; the hook of the quick pass over foreign bytes."""
    raise NeedsHooks


class Reader:
    """The reader of one message with heads in it. A new one is made for each message."""

    __slots__ = ("open", "resolve")

    def __init__(self, resolve: Resolve | None) -> None:
        self.resolve = resolve
        #: Heads read whose array has not ended yet. One that is left was no array's first element.
        self.open = 0

    def extension(self, code: int, data: bytes) -> Any:
        """Read a leaf, or the head of an array."""
        head = PLAIN_HEADS.get(code)
        if head is None or data:
            if code in LEAVES:
                return LEAVES[code](data)
            if 0 <= code < FIRST_RESERVED:
                return ExtType(code, data)
            if code == Code.JOB_REF:
                return self.result_of(data.decode("ascii"))
            head = head_of_registered(code, data)
        self.open += 1
        return head

    def result_of(self, job_id: str) -> Any:
        """Return what another job came to."""
        if self.resolve is None:
            raise ValueError(f"it refers to the result of job {job_id!r}, which is not at hand here")
        return self.resolve(job_id)

    def array(self, items: list[Any]) -> Any:
        """Return the list, or what its head makes of it."""
        if not items or type(items[0]) is not Head:
            return items
        self.open -= 1
        return items.pop(0).build(items)

    def finish(self) -> None:
        """Raise ValueError if a head was not the first element of an array."""
        if self.open:
            raise ValueError("a head of a tuple, set or object stands outside of its array")


class StrictReader(Reader):
    """The reader of one message of foreign origin, of `size` bytes, within bounds of work and memory."""

    __slots__ = ("steps_left",)

    def __init__(self, size: int, resolve: Resolve | None) -> None:
        super().__init__(resolve)
        self.steps_left = max(FREE_STEPS, size // BYTES_PER_STEP)

    def extension(self, code: int, data: bytes) -> Any:
        """Read and count an extension."""
        self.steps_left -= STEPS.get(code, 1)
        if self.steps_left < 0 or self.open > MAX_OPEN:
            raise ValueError(CROWDED)
        return Reader.extension(self, code, data)

    def array(self, items: list[Any]) -> Any:
        """Count an array; refuse a set of items that share their hashes."""
        self.steps_left -= 1
        if self.steps_left < 0:
            raise ValueError(CROWDED)
        if not items or type(items[0]) is not Head:
            return items
        if items[0].hashes:
            check_hashes(items)
        return Reader.array(self, items)

    def map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        """Count a map and build its dict; refuse keys that share their hashes."""
        self.steps_left -= 1
        if self.steps_left < 0:
            raise ValueError(CROWDED)
        if len(pairs) > MAX_SAME_HASH:
            check_hashes([key for key, _ in pairs])
        return dict(pairs)


def check_hashes(keys: list[Any]) -> None:
    """Refuse keys that were chosen to share their hashes.

    Raises:
        ValueError: more than `MAX_SAME_HASH` keys have the same hash.
        TypeError: a key has no hash.
    """
    if len(keys) <= MAX_SAME_HASH or SAFE_KEYS.issuperset(map(type, keys)):
        return
    ((_, most),) = Counter(map(hash, keys)).most_common(1)
    if most > MAX_SAME_HASH:
        raise ValueError(f"{most} of its keys have the same hash")


# --- the types that occur in a value, and how deep it is

#: The types whose items are looked at.
CONTAINERS = frozenset({list, dict, tuple, set, frozenset})


class TooDeep(ValueError):
    """A value holds more containers within containers than allowed."""


def scan_types(value: Any, max_depth: int | None = None) -> set[type]:
    """Return the exact types of a value and of everything in it, at the speed of C.

    The value is taken level by level; each level is one pass of `set(map(type, ...))` over the items of all its
    containers, some 15 ns an item. Objects of other types are taken as leaves.

    Raises:
        TooDeep: it is nested deeper than `max_depth` levels; a list of plain items has one.
    """
    kinds = {type(value)}
    found = set(kinds)
    level = [value]
    depth = 0
    while not kinds.isdisjoint(CONTAINERS):
        depth += 1
        if max_depth is not None and depth > max_depth:
            raise TooDeep(f"it is nested deeper than {max_depth} levels")
        containers = level if kinds <= CONTAINERS else [item for item in level if type(item) in CONTAINERS]
        holds_dicts = dict in kinds
        kinds = set(map(type, _items(containers, holds_dicts=holds_dicts)))
        found |= kinds
        level = [] if kinds.isdisjoint(CONTAINERS) else list(_items(containers, holds_dicts=holds_dicts))
    return found


def _items(containers: list[Any], *, holds_dicts: bool) -> Iterator[Any]:
    """Yield the items of all containers, of dicts their keys and values."""
    items = chain.from_iterable(containers)
    if not holds_dicts:
        return items
    dicts = [container for container in containers if type(container) is dict]
    return chain(items, chain.from_iterable(map(dict.values, dicts)))
