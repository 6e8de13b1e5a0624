"""The result of a chunk: what became of each item of a map that one durable job ran.

    [elapsed ns, VALUES, codec bytes of the list of all values]      every item succeeded: one message, read at once
    [elapsed ns, OUTCOMES, [[True, codec bytes], [False, failure], ...]]      some failed, or cannot travel together

`elapsed` is what the items took, by which the client chooses the size of the next chunk.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.codec import MAX_DEPTH, decode, encode
from taskq.errors import DecodeError, EncodeError, SoftTimeout
from taskq.failure import Failure
from taskq.locks import pass_on

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ITEMS_MAX",
    "LIST_DEPTH",
    "OUTCOMES",
    "VALUES",
    "ItemOutcome",
    "Items",
    "count_items",
    "pack_outcomes",
    "pack_values",
    "read_chunk",
    "read_items",
    "read_outcomes",
]

#: How the payload of a chunk's result is laid out.
VALUES: Final = 0
OUTCOMES: Final = 1

#: Levels of containers that the list of all values may have: one more than each of them.
LIST_DEPTH: Final = MAX_DEPTH + 1

#: Items of a chunk at the most: a few bytes can stand for very many, each of which takes memory when it is run.
ITEMS_MAX: Final = 100_000

#: What became of one item: the codec bytes of its value, or its failure.
ItemOutcome: TypeAlias = "bytes | Failure"


def pack_values(elapsed_ns: int, values: list[Any], *, limit: int | None = None) -> bytes:
    """Return the result of a chunk of which every item gave a value; each may take `limit` bytes."""
    try:
        together = encode(values, limit=limit, max_depth=LIST_DEPTH)
    except EncodeError:
        return pack_outcomes(elapsed_ns, [outcome_of(value, limit) for value in values])
    return bytes(msgpack.packb([elapsed_ns, VALUES, together]))


def outcome_of(value: Any, limit: int | None = None) -> ItemOutcome:
    """Return the outcome of an item that gave a value, or the failure that it cannot travel."""
    try:
        return encode(value, limit=limit, root="result")
    except SoftTimeout:
        raise
    except Exception as error:  # noqa: BLE001  # a registered class may refuse in any way
        pass_on(error)
        return Failure.from_exception(error)


def pack_outcomes(elapsed_ns: int, outcomes: Sequence[ItemOutcome]) -> bytes:
    """Return the result of a chunk item by item."""
    rows = [[True, entry] if isinstance(entry, bytes) else [False, entry.to_data()] for entry in outcomes]
    return bytes(msgpack.packb([elapsed_ns, OUTCOMES, rows]))


def read_chunk(data: bytes, jobs: int) -> tuple[int, list[Any] | None, list[ItemOutcome] | None]:
    """Return the elapsed nanoseconds of a chunk of so many items, and its values or else its outcomes.

    Raises:
        DecodeError: these are no bytes of a chunk's result, or of one with another number of items.
    """
    elapsed, kind, payload = _parts(data)
    if kind == VALUES:
        values = decode(payload, max_depth=LIST_DEPTH)
        if type(values) is list and len(values) == jobs:
            return elapsed, values, None
    elif type(payload) is list and len(payload) == jobs:
        return elapsed, None, [_record(row) for row in payload]
    raise DecodeError(f"a chunk of {jobs} items has not one result for each")


def read_items(data: bytes) -> list[Any]:
    """Return the items of a chunk from its arguments.

    Raises:
        DecodeError: these are no items.
    """
    count_items(data)
    items = decode(data, max_depth=LIST_DEPTH)
    if type(items) is not list:
        raise DecodeError(f"the items of a chunk are a list, not a {type(items).__name__}")
    return items


def count_items(data: bytes) -> int:
    """Return how many items a chunk's arguments hold, without reading them.

    Raises:
        DecodeError: these are no items, or more than a chunk may have.
    """
    unpacker = msgpack.Unpacker()
    unpacker.feed(data[:5])
    try:
        count = int(unpacker.read_array_header())
    except Exception as error:
        raise DecodeError(f"the items of a chunk are not a list: {error}") from error
    if count > len(data):
        raise DecodeError(f"a chunk of {len(data):,} bytes cannot hold {count:,} items")
    if count > ITEMS_MAX:
        raise DecodeError(f"a chunk of {count:,} items is above the limit of {ITEMS_MAX:,}")
    return count


class Items:
    """The items of a chunk as bytes, each by itself, and how they become arguments."""

    def __init__(self, data: bytes, shape: bytes) -> None:
        """Find where each begins.

        Raises:
            DecodeError: these are no items, or more than a chunk may have.
        """
        self.shape = shape
        self._data = data
        count = count_items(data)
        unpacker = msgpack.Unpacker(max_buffer_size=0)
        unpacker.feed(data)
        try:
            unpacker.read_array_header()
            self._starts = array("Q", [unpacker.tell()])
            for _ in range(count):
                unpacker.skip()
                self._starts.append(unpacker.tell())
        except Exception as error:
            raise DecodeError(f"the items of a chunk cannot be told apart: {error}") from error
        if self._starts[-1] != len(data):
            raise DecodeError("there is more behind the items of a chunk")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def alone(self, index: int) -> bytes:
        """Return the arguments of a chunk that has only this item."""
        return b"\x91" + self._data[self._starts[index] : self._starts[index + 1]]


def read_outcomes(data: bytes) -> list[ItemOutcome]:
    """Return what became of each item of a chunk, encoded, from its result, for a caller that puts it together again.

    Raises:
        DecodeError: these are no bytes of a chunk's result.
    """
    _, kind, payload = _parts(data)
    if kind == OUTCOMES and type(payload) is list:
        return [_record(row) for row in payload]
    values = decode(payload, max_depth=LIST_DEPTH) if kind == VALUES else None
    if type(values) is not list:
        raise DecodeError("these bytes are not the result of a chunk")
    return [outcome_of(value) for value in values]


def _parts(data: bytes) -> tuple[int, int, Any]:
    try:
        elapsed, kind, payload = msgpack.unpackb(data, strict_map_key=True)
    except Exception as error:
        pass_on(error)
        raise DecodeError(f"{len(data):,} bytes are not the result of a chunk: {error}") from error
    if type(elapsed) is not int or kind not in (VALUES, OUTCOMES):
        raise DecodeError(f"{len(data):,} bytes are not the result of a chunk")
    return elapsed, kind, payload


def _record(row: object) -> ItemOutcome:
    if type(row) is list and len(row) == len((True, b"")):
        good, body = row
        if good is True and type(body) is bytes:
            return body
        if good is False:
            return Failure.from_data(body)
    raise DecodeError("the result of a chunk has an entry that is neither a value nor a failure")
