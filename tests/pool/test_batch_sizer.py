"""How many jobs go into a frame, and how the values of short jobs come out of the journal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.executors.pool import payloads
from taskq.executors.pool.functions import SHORT_NS, TARGET_NS, BatchSizer
from taskq.executors.pool.protocol import RECORD
from taskq.executors.pool.reports import _records
from tests.sample_values import same

PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=300)
ENDS = st.lists(st.lists(PLAIN | st.binary(max_size=300), min_size=1, max_size=3) | st.just("failed"), max_size=40)


def measured(each_ns: float, jobs: int) -> BatchSizer:
    """Return the sizer of a function of which batches of so many jobs have come back."""
    sizer = BatchSizer()
    for _ in range(20):
        sizer.observe(jobs, int(each_ns * jobs))
    return sizer


@given(each_ns=st.floats(10, 1e10), jobs=st.integers(1, 8192), left=st.integers(0, 100_000), batches=st.integers(1, 64))
def test_share(each_ns: float, jobs: int, left: int, batches: int) -> None:
    """A batch holds at least one job, no more work than is aimed at, and near the end no more than a share of it."""
    sizer = measured(each_ns, jobs)
    share = sizer.share(left, batches)
    assert 1 <= share <= sizer.next_size() <= max(1.0, 1.01 * TARGET_NS / each_ns)
    assert share <= max(1, left // batches, int(1.01 * SHORT_NS / each_ns) + 1)


@given(ENDS)
def test_records_that_are_joined(ends: list[Any]) -> None:
    """Whatever is in the journal comes out in order: plain values joined or not, others and failures as they are."""
    journal, expected = b"", []
    for end in ends:
        encoding, payload = (
            (payloads.FAILURE, b"why") if end == "failed" else payloads.pack(end, strict=False, root="result")
        )
        journal += RECORD.pack(1 if end == "failed" else len(end), encoding, len(payload)) + payload
        expected += [end] if end == "failed" else end
    found: list[Any] = []
    for jobs, encoding, payload in _records(memoryview(b"before" + journal), len(b"before"), len(b"before" + journal)):
        one = ["failed"] if encoding == payloads.FAILURE else list(payloads.unpack(encoding, payload))
        assert len(one) == jobs
        found += one
    assert same(found, expected)


@pytest.mark.parametrize("sizes", [(1, 1), (15, 16), (16, 1, 15), (65_535, 2), (65_536, 16), (1, 65_536, 65_535)])
def test_arrays_of_any_size_are_joined(sizes: tuple[int, ...]) -> None:
    """The records of a map's runs become one, whichever header each array of values has."""
    runs = [list(range(start, start + size)) for start, size in enumerate(sizes)]
    parts = [payloads.pack(run, strict=False, root="result")[1] for run in runs]
    assert payloads.unpack_scalars(payloads.join(parts, sum(sizes))) == [value for run in runs for value in run]
