"""No expression that reads what a job or a user wrote takes more than time in proportion to it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from taskq import allowlist
from taskq.cli import job_builder
from taskq.cli.instants import parse_at
from taskq.cli.jsontext import to_text
from taskq.cli.screen import harmless, printable
from taskq.codec.extensions import PLAIN_DTYPE
from taskq.durations import parse_duration
from taskq.errors import ConfigError
from taskq.redact import is_secret, redacted, safe_text, safe_url, safe_words
from taskq.shell import fill

if TYPE_CHECKING:
    from collections.abc import Callable

#: What is repeated; each was slow somewhere, or is half of what an expression looks for.
UNITS = (
    *("?password", "?a", "a", "a://", "@", "a@", "a:b@", "a=", "password=", '"', "'", "password='", 'password="', "\\"),
    *(
        'password\\"',
        "&x",
        "a+.-",
        " x",
        "token: bearer ",
        "é",
        "_",
        "a.",
        "1h",
        "1 ",
        "1.",
        "cookie: ",
        "/",
        "\\a",
        "{",
    ),
    *("{a", "}", "\x1b[", "\x1b[3;", "A", "aA", "0", "\r", "\x9b", "\u202e", "-p", "T08:00", "2026-"),
)

#: Characters of the shorter text; the longer one is so many times as long, and may take so many times as long.
LENGTH, LONGER, SLOWER = 2_000, 16, 80

READERS: dict[str, Callable[[str], Any]] = {
    "safe_url": safe_url,
    "safe_text": safe_text,
    "safe_words": lambda text: safe_words(["mysql", text]),
    "redacted": lambda text: redacted({"event": text, text[:300]: 1}),
    "is_secret": is_secret.__wrapped__,
    "parse_duration": parse_duration,
    "parse_at": parse_at,
    "to_text": to_text,
    "printable": printable,
    "harmless": lambda text: list(harmless([text.encode()])),
    "allowlist.NAME": allowlist.NAME.fullmatch,
    "job_builder.NAME": job_builder.NAME.fullmatch,
    "PLAIN_DTYPE": PLAIN_DTYPE.fullmatch,
    "fill": lambda text: fill(["echo", text], {"a": 1}),
}


def seconds(read: Callable[[str], Any], text: str) -> float:
    """Return the least of three measurements of the CPU that reading a text takes."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        with contextlib.suppress(ConfigError, ValueError):
            read(text)
        times.append(time.thread_time() - began)
    return min(times)


@pytest.mark.parametrize("name", READERS)
def test_time_grows_with_the_length(name: str) -> None:
    """16 times the text takes about 16 times the CPU; what is quadratic would take 256 times."""
    read = READERS[name]
    for unit in UNITS:
        for frame in ("{}", "x://h/{}", "{}://"):
            short, long = (frame.replace("{}", unit * (size // len(unit))) for size in (LENGTH, LENGTH * LONGER))
            allowed = max(seconds(read, short), 0.000_5) * SLOWER
            assert any(seconds(read, long) < allowed for _ in range(3)), (unit, frame)
