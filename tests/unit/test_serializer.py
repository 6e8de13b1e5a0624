"""The serializer that RQ is told to use: what it stores comes back equal and of the same type."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from taskq.errors import DecodeError, EncodeError
from taskq.serializer import MsgpackSerializer
from tests.sample_values import same
from tests.strategies import portable


@given(portable)
def test_round_trip(value: Any) -> None:
    """Whatever can travel comes back as it was."""
    assert same(MsgpackSerializer.loads(MsgpackSerializer.dumps(value)), value)


def test_what_rq_stores_of_a_job() -> None:
    """RQ's four parts of a call come back as the tuple that it takes apart."""
    call = ("taskq.rq.run", None, (b"envelope",), {})
    assert MsgpackSerializer.loads(MsgpackSerializer.dumps(call)) == call


def test_no_pickle() -> None:
    """A pickle is refused when read, and an object that only pickle could write when written."""
    with pytest.raises(DecodeError):
        MsgpackSerializer.loads(b"\x80\x04K\x01.")
    with pytest.raises(EncodeError):
        MsgpackSerializer.dumps(object())
