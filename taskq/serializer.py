"""What a stock `rq worker` is told by `-S taskq.serializer.MsgpackSerializer`: RQ's two functions, by taskq's codec."""

from __future__ import annotations

from typing import Any

from taskq.codec import decode, encode

__all__ = ["MsgpackSerializer"]


class MsgpackSerializer:
    """Read and write what RQ keeps in Redis as msgpack; nothing is pickled, and nothing imported by reading."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        """Return a value as bytes.

        Raises:
            EncodeError: a part of it cannot travel.
        """
        return encode(value)

    @staticmethod
    def loads(data: bytes) -> Any:
        """Return the value of bytes that `dumps` made.

        Raises:
            DecodeError: these are none.
        """
        return decode(data)
