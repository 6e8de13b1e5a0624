"""A worker that finds its queues empty parks at them: the next job that is put alone is handed to it.

    claim, finish ──▶ parked under a base ──put──▶ started in this worker's name, and told on its channel
                                     │
                                     └── told too late, or never: the next claim brings what was handed over

So a job on an idle fleet is in a worker's hands after one script, with no further question. A worker parks only while
it has a process with nothing to do. Whether a job was handed over is known to Redis alone until the worker hears of it:
until then every claim names the base, and the script answers for it.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no types

__all__ = ["Parking"]


class Parking:
    """What a worker knows of its own parking. `seconds`: how long it holds unless it is renewed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._nonce = os.urandom(8).hex()
        self._numbers = count()
        #: What the token begins with of a job that may be handed over, or may have been; empty: none was nor will be.
        self.base = ""

    def ask(self, free: int) -> list[Any] | int:
        """Return what a script takes, to park or stay parked with so many free processes; 0: nothing to ask.

        With none free it ends the parking.
        """
        known = bool(self.base)
        if free <= 0 and not known:
            return 0
        if not known:
            self.base = f"{self._nonce}{next(self._numbers):08x}"
        return [self.base, self._seconds, free, int(known)]

    def answered(self, *, parked: bool) -> None:
        """Take in whether the script has parked the worker."""
        if not parked:
            self.base = ""

    def take(self, message: bytes) -> tuple[str, list[Any]] | None:
        """Return the moment and the entry of a job that was handed over; None: it came by a claim already.

        Raises:
            Exception: it is no such message; anybody may publish anything.
        """
        base, stamp, entry = msgpack.unpackb(message, raw=True)
        if base != self.base.encode():
            return None
        self.base = ""
        return stamp.decode(), entry
