"""The extension types of taskq's messages: their numbers, stable for ever, version 3.

A message is msgpack. What msgpack has no type for travels as one of these extension types:

    code  payload                                             value
    ----  --------------------------------------------------  ----------------------------------------------
    96    empty; first element of an array: [ext, item, ...]  tuple of the other elements
    97    empty; first element of an array                    set
    98    empty; first element of an array                    frozenset
    99    name, UTF-8; first of two elements: [ext, packed]   object of a type registered under that name
    100   the bytes                                           bytearray
    101   two's complement, with room for a sign bit          int beyond 64 bits
    102   two float64, big endian                             complex
    103   ASCII text, as str() writes it                      Decimal
    104   16 bytes, big endian                                UUID
    105   kind byte (0 Path, 1 PurePosixPath,                 path
          2 PureWindowsPath), then UTF-8 (surrogateescape)
    106   year u16, month, day, hour, minute, second u8,      datetime
          microsecond u32, then zone
    107   days since 1 January of year 1 (being 1), u32       date
    108   hour, minute, second u8, microsecond u32, zone      time
    109   days i32, seconds u32, microseconds u32             timedelta
    110   empty; [ext, dtype text, [length, ...], bytes]      numpy array, C order
    111   empty; [ext, dtype text, bytes]                     numpy scalar
    112   the job's id, ASCII                                 the result of another job (version 2)
    113   UTF-8, surrogates as three bytes                    text that is not valid Unicode (version 3)

    zone: one byte, fold + 2 * kind. Kind 0: naive. Kind 1: a fixed offset in microseconds, i64; kind 2:
    the same, then its name in UTF-8. Kind 3: the key of a ZoneInfo in UTF-8.

All numbers are big endian. Codes 96 to 127 are taskq's: a code is never given a second meaning, a new
type gets a new code, and a reader refuses those that it does not know. Codes below 96 are left to users,
whose `msgpack.ExtType` values pass through as they are; so does msgpack's own Timestamp (-1).

Containers are arrays with a head, not payloads within payloads, so that one pass over the bytes sees
the whole message: its depth, its size, its every length. That is also three times as fast to write.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["FIRST_RESERVED", "MAX_DEPTH", "SEALED", "SEAL_SIZE", "WIRE_VERSION", "Code"]

#: Version of the table above; grows when a code is added.
WIRE_VERSION = 3

#: Lowest extension code that belongs to taskq.
FIRST_RESERVED = 96

#: Containers within containers that a message may have to be read anywhere; deeper ones are refused, as
#: they can only be a mistake or an attack on the reader's stack.
MAX_DEPTH = 32


#: What signed bytes begin with, and how many bytes their signature takes, see `taskq.signing`: no value begins so.
SEALED = b"\xc1\x01"
SEAL_SIZE = 46


class Code(IntEnum):
    """The numbers of the extension types."""

    TUPLE = 96
    SET = 97
    FROZENSET = 98
    REGISTERED = 99
    BYTEARRAY = 100
    BIG_INT = 101
    COMPLEX = 102
    DECIMAL = 103
    UUID = 104
    PATH = 105
    DATETIME = 106
    DATE = 107
    TIME = 108
    TIMEDELTA = 109
    ARRAY = 110
    ARRAY_SCALAR = 111
    JOB_REF = 112
    ODD_TEXT = 113
