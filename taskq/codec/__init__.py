"""Values as bytes and back: msgpack, with extension types so that what goes in comes out, of the same type.

    encoding.py    encode   value ──Packer, C──▶ bytes ──maybe a bin in it?──▶ scan_types: a bytearray? ─┐
                              └─fails──▶ _lower: the path of the part to blame            _lower ◀──────┘
    decoding.py    decode   bytes ──unpackb, C──▶ value       (the quick pass: no tuples, sets, objects)
                              └─meets a head──▶ unpackb again, with the hooks of a Reader
    extensions.py  which types travel, and how; `register` for users' own
    wire.py        the codes and layouts: a stable format

Nothing here pickles, and nothing is imported because a message names it. The functions may be called from
any thread.
"""

from __future__ import annotations

from taskq.codec.decoding import decode
from taskq.codec.encoding import encode
from taskq.codec.extensions import register
from taskq.codec.wire import MAX_DEPTH, WIRE_VERSION

__all__ = ["MAX_DEPTH", "WIRE_VERSION", "decode", "encode", "register"]
