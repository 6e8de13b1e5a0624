"""The serializer for a stock `rq worker -S taskq.serializer.MsgpackSerializer`: RQ's functions, taskq's codec."""

from __future__ import annotations

import json
from typing import Any

from taskq.codec import decode, encode
from taskq.codec.decoding import PICKLES
from taskq.codec.wire import SEAL_SIZE, SEALED
from taskq.errors import DecodeError

__all__ = ["MsgpackSerializer"]

#: What JSON may begin with, as RQ writes it.
JSON = tuple(bytes((code,)) for code in b'[{"tfn-0123456789')


class MsgpackSerializer:
    """RQ's data in Redis as msgpack; nothing is pickled, and nothing imported by reading.

    It also reads what RQ's JSONSerializer wrote, in a queue with jobs of every kind. Of a pickle it gives a text that
    says so: to read it can run any code. A viewer shows that; a job with such data fails in a worker. Of what is signed
    it gives the value, without a look at the signature.
    """

    @staticmethod
    def dumps(value: Any) -> bytes:
        """Return a value as bytes.

        Raises:
            EncodeError: a part of it cannot travel.
        """
        return encode(value)

    @staticmethod
    def loads(data: bytes) -> Any:
        """Return the value of bytes that `dumps` made, or RQ's JSONSerializer; of a pickle, what stands in its place.

        Raises:
            DecodeError: these are none.
        """
        if data.startswith(SEALED):
            data = data[SEAL_SIZE:]
        if data[:2] in PICKLES:
            return f"<pickled, {len(data):,} bytes>"
        try:
            return decode(data)
        except DecodeError:
            if data[:1] not in JSON:
                raise
            return _from_json(data)


def _from_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise DecodeError(f"this is neither msgpack nor JSON: {exc}") from None
