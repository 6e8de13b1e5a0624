"""Envelopes: what goes in comes out, of every version that is known, and hostile bytes are refused."""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import envelope
from taskq.codec import encode
from taskq.envelope import CALL, Template
from taskq.errors import DecodeError, UnknownTask
from taskq.options import JobOptions
from taskq.retry import Retry

PLAIN = JobOptions()


def call(task: str, *args: Any, options: JobOptions = PLAIN, **kwargs: Any) -> bytes:
    """Return the envelope of a call."""
    return Template(CALL, task, options).pack(encode(list(args)), encode(kwargs))


def test_golden_bytes() -> None:
    """The bytes of version 1 are pinned: a store may hold them for years."""
    assert call("m:f", 3).hex() == "960100" + "a36d3a66" + "c40180" + "c4029103" + "c40180"
    options = JobOptions(timeout=5, retry=Retry(2, on=(OSError,)))
    assert msgpack.unpackb(call("m:f", options=options))[3] == msgpack.packb(
        {"timeout": 5, "retry": [2, 1.0, 2.0, 300.0, True, ["OSError"]]}
    )


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        JobOptions(timeout=60, soft_timeout=5.5),
        JobOptions(retry=Retry(5, delay=0.5, backoff=3, max_delay=60, jitter=False, on=("shop.Sold",))),
        JobOptions(retry=Retry(5, on={"shop.Sold": 0, "OSError": 5})),
        JobOptions(max_crashes=1, expires=3.5, result_ttl=0),
    ],
)
def test_options_come_back(options: JobOptions) -> None:
    """The options that whoever runs the job needs are read as they were written."""
    assert envelope.head(call("m:f", options=options)) == (CALL, "m:f", options)


def test_options_of_the_store_are_left_to_it() -> None:
    """Queue, priority, times and key stand in the store, not in the envelope; classes are named."""
    options = JobOptions(queue="high", priority=3, delay=5, key="k", job_id="j", retry=Retry(1, on=(OSError,)))
    assert envelope.head(call("m:f", options=options)).options == JobOptions(retry=Retry(1, on=("OSError",)))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 100_000])
def test_arguments_of_any_size(size: int) -> None:
    """Arguments pass through as the bytes that they are."""
    found = envelope.parts(Template(CALL, "m:f", PLAIN).pack(b"x" * size, b"y" * size))
    assert (found.args, found.kwargs) == (b"x" * size, b"y" * size)


def test_newer_version() -> None:
    """An envelope of a newer taskq is not known here, which is not the same as broken: another worker may run it."""
    newer = bytes(msgpack.packb([2, "whatever", {"new": 1}]))
    with pytest.raises(UnknownTask, match=r"version 2.*update the worker"):
        envelope.head(newer)


def test_newer_options_are_passed_over() -> None:
    """An option that this version does not know does not keep the job from running."""
    packed = msgpack.packb({"timeout": 5, "colour": "red", "retry": [1, 1.0, 2.0, 300.0, True, ["OSError"], "new"]})
    data = msgpack.packb([1, CALL, "m:f", packed, b"\x90", b"\x80"])
    assert envelope.head(data).options == JobOptions(timeout=5, retry=Retry(1, on=("OSError",)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\x80",
        b"\x91" * 5_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x80\x04K\x01.",
        msgpack.packb([1, 0, "m:f"]),
        msgpack.packb([1, 0, "m:f", {}, b"", b""]),
        msgpack.packb([1, 2, "m:f", b"\x80", b"", b""]),
        msgpack.packb([1, True, "m:f", b"\x80", b"", b"", 1]),
        msgpack.packb([0, 0, "m:f", b"\x80", b"", b""]),
        msgpack.packb([1, 0, b"m:f", b"\x80", b"", b""]),
        msgpack.packb([1, 0, "m:f", b"\x81", b"", b""]),
        msgpack.packb([1, 0, "m:f", msgpack.packb({"timeout": -1}), b"", b""]),
        msgpack.packb([1, 0, "m:f", msgpack.packb({"retry": 5}), b"", b""]),
        msgpack.packb([1, 0, "m:f", msgpack.packb({"retry": [1, 1, 2, 3, True, [5]]}), b"", b""]),
        msgpack.packb([1, 0, "m:f", msgpack.packb({"retry": [1, 1, 2, 3, True, ["OSError"], [2]]}), b"", b""]),
        msgpack.packb([1, 0, "m:f", msgpack.packb({"retry": [1, 1, 2, 3, True, ["OSError"], [[]]]}), b"", b""]),
        msgpack.packb([1, 0, "m:f", msgpack.packb([1]), b"", b""]),
        msgpack.packb([1, 0, "m:f", b"\x80", b"", b""]) + b"x",
    ],
)
def test_broken_envelopes(data: bytes) -> None:
    """Whatever is no envelope is a DecodeError, never anything else."""
    with pytest.raises(DecodeError):
        envelope.head(data)


@given(st.binary(max_size=200), st.integers(0, 40))
def test_junk_never_crashes(junk: bytes, cut: int) -> None:
    """Random bytes, also in the place of a part of an envelope, are refused or read, never anything else."""
    good = call("tests.sample_tasks:square", 3)
    for data in (junk, good[:cut] + junk + good[cut:], good[:cut] + junk):
        try:
            found = envelope.parts(data)
        except (DecodeError, UnknownTask):
            continue
        assert isinstance(found.head.options, JobOptions)
