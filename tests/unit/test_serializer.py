"""The serializer that RQ is told to use: what it stores comes back equal and of the same type."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from rq.serializers import DefaultSerializer, JSONSerializer

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


def test_jobs_of_every_kind_in_one_queue() -> None:
    """What RQ's JSON serializer wrote is read; of a pickle it is said that it is one, and nothing of it is run."""
    call = ["shop.sell", None, [1, "two"], {"three": [3.5]}]
    assert MsgpackSerializer.loads(JSONSerializer.dumps(call)) == call
    assert MsgpackSerializer.loads(DefaultSerializer.dumps(Explosive())) == "<pickled, 48 bytes>"
    for junk in (b"[1, ", b"{1", b"[" * 100_000, b"\xc1", b""):
        with pytest.raises(DecodeError):
            MsgpackSerializer.loads(junk)


class Explosive:
    """Be unpickled by an error."""

    def __reduce__(self) -> tuple[type[Exception], tuple[()]]:
        return ZeroDivisionError, ()


def test_no_pickle() -> None:
    """An object that only pickle could write is refused."""
    with pytest.raises(EncodeError):
        MsgpackSerializer.dumps(object())
