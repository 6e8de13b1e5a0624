"""What `taskq result` prints of what is in a store, which anybody may have written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from taskq.cli.outcome import print_outcome
from taskq.errors import DecodeError
from taskq.states import State


@pytest.mark.parametrize("data", [b"\x91" * 900 + b"\x01", msgpack.packb([{}] * 1_000_000), b"\xc1"])
def test_a_result_beyond_the_library_s_bounds_is_refused(data: bytes) -> None:
    """As `Job.result` refuses it: depth, number of containers, what is no message at all."""
    record: Any = SimpleNamespace(id="x", task="a:b", state=State.SUCCEEDED, result=data, failure=None, attempts=1)
    with pytest.raises(DecodeError):
        print_outcome(record)
