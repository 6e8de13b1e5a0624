"""Garbage for everything that taskq reads: random bytes, and texts that are nearly what is expected there.

A run is repeated with TASKQ_FUZZ_SEED=N, the number that it has printed.
"""

from __future__ import annotations

import os
import random
import secrets
import zlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from taskq.codec import encode
from taskq.envelope import CALL, Template
from taskq.options import JobOptions

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Garbage"]

DIGITS = b"9" * 5_000

#: Values that have once been trouble somewhere, whichever field they stand in.
KNOWN: tuple[bytes, ...] = (
    *(b"", b" ", b"\0", b"\n", b"0", b"-0", b"-1", b"1", b"1e999", b"nan", b"inf", b"-inf", b"1e308", b"1_0", b"+5"),
    *(b"\xff\xfe", b"\x1b]0;t\x07", b"\xc2\x9b2J", b"\xed\xa0\x80", "\u202eab".encode(), "٣".encode(), b"\xb2"),
    *(DIGITS, b"-" + DIGITS, b"1." + DIGITS, b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809"),
    *(b"[" * 100_000, b'{"a":' * 20_000, b"[" * 500, b"[]", b"{}", b"null", b"[null]", b'["a", 1, {}]', b'"a"'),
    *(b"\x91" * 3_000 + b"\x01", b"\x81" * 3_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff"),
    *(b"\xc1", b"\x80", b"\x90", b"\xc0", b"\x93\x01", b"\xd4\x00\x00", b"\xc7\x04\x01abcd", b"\x82\xa1a\x01"),
    *(b"cos\nsystem\n(S'false'\ntR.", b"\x80\x04N.", b"x", b"x\x9c", b"x\x9c" + b"\xff" * 20),
    *(zlib.compress(b"[]"), zlib.compress(bytes(300_000)), zlib.compress(b"x")[:-1], b"X\x85" + b"\0" * 20),
    *(b"C" + DIGITS, b"C", b"Cx", b"E1e999", b"Enan", b"E", b"D", b"Da", b"Da f", b"Da fKind", b"Q", b"\xffQ"),
    *(b"0001-01-01T00:00:00.000000Z", b"9999-99-99T00:00:00.000000Z", b"9999-12-31T23:59:59.999999Z", b"2026"),
    *(b"1/", b"/", b"/1", b"1/2/3", DIGITS + b"/" + DIGITS, b"-1/-2", b"ask", b"kill", b"1,2", b"a:b", b"a:b:c:d"),
    *(b64encode(b"\xc1"), b"!!!", b"YQ", b"YQ=", b64encode(zlib.compress(b"Error: no\n"))),
    *(b"queued", b"started", b"finished", b"failed", b"canceled", b"deferred", b"scheduled", b"stopped", b"created"),
    *(b"os.system", b"os:system", b"builtins:eval", b"operator:add", b"operator.add", b"../x", b"*", b"%s%n", b"\\"),
)

#: Things of SQLite that are neither text nor bytes.
VALUES: tuple[Any, ...] = (None, 0, -1, 1, 2**31, 2**62, 2**63 - 1, -(2**63), 0.5, -1.5, 1e308, float("inf"), "", "x")


class Garbage:
    """One run's garbage, out of one seed."""

    def __init__(self) -> None:
        self.seed = int(os.environ.get("TASKQ_FUZZ_SEED") or secrets.randbits(32))
        self.random = random.Random(self.seed)
        self.count = 0
        print(f"TASKQ_FUZZ_SEED={self.seed}")
        packed = Template(CALL, "operator:add", JobOptions()).pack(encode([1, 2]), encode({}))
        self._samples = [packed, encode({"a": [1, "b", None]}), *KNOWN]
        self._makers: tuple[Callable[[], bytes], ...] = (
            self._known,
            self._known,
            self._bytes,
            self._bent,
            self._number,
        )

    def text(self) -> bytes:
        """Return the next value for a field of Redis, a message or a file."""
        self.count += 1
        return self.random.choice(self._makers)()

    def value(self) -> Any:
        """Return the next value for a column of SQLite: of any kind that it knows, bad UTF-8 too."""
        kind = self.random.randrange(4)
        if kind == 0:
            self.count += 1
            return self.random.choice(VALUES)
        text = self.text()
        return text if kind == 1 else text.decode("utf-8", "replace")

    def _known(self) -> bytes:
        return self.random.choice(KNOWN)

    def _bytes(self) -> bytes:
        return self.random.randbytes(self.random.choice((1, 2, 5, 20, 100, 400)))

    def _number(self) -> bytes:
        digits = self.random.choice((1, 5, 10, 19, 20, 300, 4_000, 5_000))
        sign, point = self.random.choice((b"", b"-", b"+")), self.random.choice((b"", b".5", b"e5", b"e400", b"x"))
        return sign + str(self.random.randrange(1, 10)).encode() * digits + point

    def _bent(self) -> bytes:
        """Return something sound with some bytes of it changed, cut off or put in."""
        bent = bytearray(self.random.choice(self._samples)[:2_000])
        for _ in range(self.random.randrange(1, 4)):
            at = self.random.randrange(len(bent) + 1)
            cut = self.random.randrange(3)
            bent[at : at + cut] = self.random.randbytes(self.random.randrange(3))
        return bytes(bent)
