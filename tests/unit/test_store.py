"""What the death of a worker means for the jobs in its hands."""

from __future__ import annotations

import pytest

from taskq.store import Blame, blame


@pytest.mark.parametrize(
    ("begun", "suspect", "crashes", "expected"),
    [
        (True, False, 0, Blame.CRASH),
        (True, True, 2, Blame.CRASH),
        (False, True, 0, Blame.NONE),
        (False, False, 2, Blame.NONE),
        (None, False, 0, Blame.SUSPECT),
        (None, True, 0, Blame.CRASH),
        (None, True, 1, Blame.CRASH),
        (None, True, 2, Blame.NONE),
    ],
)
def test_blame(begun: bool | None, suspect: bool, crashes: int, expected: Blame) -> None:
    """What has begun counts a crash; what may have is a suspect once, and of an older worker crashes but not fails."""
    assert blame(crashes, 3, begun=begun, suspect=suspect) is expected


def test_blame_of_one_that_must_not_crash() -> None:
    """A job that must not crash once is told first by every worker: it had begun for certain, or not."""
    assert blame(0, 1, begun=None, suspect=False) is Blame.NONE
    assert blame(0, 1, begun=True, suspect=False) is Blame.CRASH
