"""What a worker tells systemd: that it is ready, that it lives, that it stops. Source: sd_notify(3).

Under anything else NOTIFY_SOCKET is not set, and nothing is told.
"""

from __future__ import annotations

import contextlib
import os
import socket
from time import monotonic
from typing import Final

__all__ = ["Notifier"]

#: Signs of life in each watchdog interval.
_BEATS: Final = 3


class Notifier:
    """Tell the service manager that started this process, if one did."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._every = _watchdog_seconds() / _BEATS
        self._next = 0.0

    def ready(self, text: str) -> None:
        """Tell that the service has begun."""
        self._tell(f"READY=1\nSTATUS={text}")

    def stopping(self) -> None:
        """Tell that the service is about to end."""
        self._tell("STOPPING=1")

    def beat(self) -> None:
        """Give a sign of life when one is due."""
        if self._every and monotonic() >= self._next:
            self._next = monotonic() + self._every
            self._tell("WATCHDOG=1")

    @property
    def next_beat(self) -> float:
        """When the next sign of life is due, by the monotonic clock."""
        return self._next if self._every else float("inf")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), self._address)


def _watchdog_seconds() -> float:
    """Return the interval in which a sign of life is wanted; 0: none is, or not of this process."""
    told, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(told) / 1e6 if told.isdecimal() and pid == str(os.getpid()) else 0.0
