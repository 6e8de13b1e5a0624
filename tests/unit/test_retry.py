"""When a job runs again: waits, jitter, which failures, how many times."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.errors import ConfigError
from taskq.failure import Again, Failure
from taskq.retry import Retry, RetryLater, after_crash, after_error
from taskq.states import Reason

MISSING = Failure.from_exception(FileNotFoundError(2, "No such file"))


def half() -> float:
    """Stand for a random source that always says 0.5."""
    return 0.5


def test_waits_double_up_to_the_limit() -> None:
    """Without jitter the waits are delay * backoff ** n, cut at max_delay."""
    policy = Retry(9, delay=2.0, backoff=3.0, max_delay=50.0, jitter=False)
    assert [policy.delay_before(retry, half) for retry in range(1, 6)] == [2.0, 6.0, 18.0, 50.0, 50.0]


def test_jitter_draws_from_the_whole_wait() -> None:
    """With jitter the wait is the random number times the full wait."""
    policy = Retry(9, delay=2.0, backoff=3.0)
    assert policy.delay_before(2, half) == 3.0
    assert policy.delay_before(2, lambda: 0.0) == 0.0


@given(
    retry=st.integers(1, 10**6),
    delay=st.floats(0, 1e10),
    backoff=st.floats(1, 1e10),
    max_delay=st.floats(0, 1e10),
    jitter=st.booleans(),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_waits_are_never_out_of_bounds(
    *, retry: int, delay: float, backoff: float, max_delay: float, jitter: bool, drawn: float
) -> None:
    """Whatever the policy and however many retries, the wait is a finite number from 0 to max_delay."""
    policy = Retry(5, delay=delay, backoff=backoff, max_delay=max_delay, jitter=jitter)
    assert 0 <= policy.delay_before(retry, lambda: drawn) <= max_delay


def test_ten_thousand_retries_spread_out() -> None:
    """Jobs that failed together come back spread over the wait: no second sees more than 5 % of them."""
    source = random.Random(20)
    policy = Retry(5, delay=30.0)
    seconds = Counter(math.floor(policy.delay_before(1, source.random)) for _ in range(10_000))
    assert max(seconds.values()) <= 500


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_retries": -1}, "max_retries=-1"),
        ({"max_retries": 1.5}, "max_retries=1.5"),
        ({"max_retries": True}, "max_retries=True"),
        ({"max_retries": 1, "delay": -1}, "delay=-1"),
        ({"max_retries": 1, "delay": math.nan}, "delay=nan"),
        ({"max_retries": 1, "delay": "1x"}, "delay='1x'"),
        ({"max_retries": 1, "backoff": 0.5}, "backoff=0.5"),
        ({"max_retries": 1, "max_delay": math.inf}, "max_delay=inf"),
        ({"max_retries": 1, "on": ()}, "on=()"),
        ({"max_retries": 1, "on": (5,)}, "5 is not an exception class"),
        ({"max_retries": 1, "on": (int,)}, "is not an exception class"),
        ({"max_retries": 1, "on": {}}, "on=()"),
        ({"max_retries": 1, "on": {int: 1}}, "is not an exception class"),
        ({"max_retries": 3, "on": {OSError: 4}}, "limit 4 of OSError is no whole number from 0 to max_retries=3"),
        ({"max_retries": 3, "on": {OSError: -1}}, "limit -1 of OSError"),
        ({"max_retries": 3, "on": {"shop.Sold": True}}, "limit True of shop.Sold"),
        ({"max_retries": 3, "on": (OSError, ValueError), "limits": (1,)}, "limits=(1,)"),
    ],
)
def test_policies_that_make_no_sense(arguments: dict[str, Any], named: str) -> None:
    """A bad number or class is refused by name."""
    with pytest.raises(ConfigError) as refusal:
        Retry(**arguments)
    assert named in str(refusal.value)


def test_on_takes_one_class_too() -> None:
    """A single class, or a name, need not be wrapped in a tuple."""
    assert Retry(1, on=OSError).on == (OSError,)
    assert Retry(1, on="shop.Sold").on == ("shop.Sold",)


def test_without_a_policy_an_error_is_final() -> None:
    """A job without a policy is not run again."""
    assert after_error(None, 0, MISSING, half) is None


def test_retries_are_counted() -> None:
    """A job is run again until its retries are used up."""
    policy = Retry(2, delay=4.0)
    assert [after_error(policy, done, MISSING, half) for done in range(4)] == [(2.0, True), (4.0, True), None, None]
    assert after_error(Retry(0), 0, MISSING, half) is None


@pytest.mark.parametrize(
    ("on", "again"),
    [
        ((FileNotFoundError,), True),
        ((OSError,), True),
        (("OSError",), True),
        ((ValueError, OSError), True),
        ((ValueError,), False),
        (("shop.Sold",), False),
        ((PermissionError,), False),
    ],
)
def test_only_named_errors_are_retried(on: tuple[type[BaseException] | str, ...], again: bool) -> None:
    """An error is retried when an `except` clause with the same classes would catch it."""
    assert (after_error(Retry(1, on=on), 0, MISSING, half) is not None) is again


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (OSError("no"), 3),
        (BrokenPipeError("no"), 3),
        (FileNotFoundError(2, "no"), 0),
        (TimeoutError("no"), 5),
        (LookupError("no"), 0),
    ],
)
def test_limits_by_class(error: Exception, limit: int) -> None:
    """An error is retried while there were fewer retries, for whatever, than the limit of the closest class says."""
    policy = Retry(6, on={OSError: 3, "TimeoutError": 5, FileNotFoundError: 0})
    failure = Failure.from_exception(error)
    assert [after_error(policy, done, failure, half) is not None for done in range(7)] == [
        done < limit for done in range(7)
    ]
    assert policy == policy.changed() == pickle.loads(pickle.dumps(policy))  # noqa: S301 - our own bytes
    assert hash(policy) == hash(policy.changed())


def test_timeouts_are_retried_as_timeouts() -> None:
    """A job killed at its timeout is retried by default, and for TimeoutError, but not for other errors."""
    killed = Failure.timed_out(5.0)
    assert after_error(Retry(1), 0, killed, half) is not None
    assert after_error(Retry(1, on=(TimeoutError,)), 0, killed, half) is not None
    assert after_error(Retry(1, on=(ValueError,)), 0, killed, half) is None


@pytest.mark.parametrize("reason", [Reason.CRASHED, Reason.LOST, Reason.UNDECODABLE, Reason.UNKNOWN_TASK])
def test_other_failures_are_no_matter_of_retry(reason: Reason) -> None:
    """Crashes are counted apart, and what cannot be read or found will not be the next time either."""
    failure = Failure(reason=reason, type="ValueError", message="", mro=("ValueError", "Exception"))
    assert after_error(Retry(5), 0, failure, half) is None


def test_crashes_are_counted_apart() -> None:
    """A job whose process died is run again until it did so `max_crashes` times."""
    assert [after_crash(crashes, 3) for crashes in (1, 2, 3, 4)] == [True, True, False, False]
    assert after_crash(1, 1) is False


# --- RetryLater


@pytest.mark.parametrize("delay", [600, 600.0, "10m", timedelta(minutes=10)])
@pytest.mark.parametrize("counted", [True, False])
def test_wish(*, delay: Any, counted: bool) -> None:
    """A wish says its delay in seconds, whether it is counted, and what it means; it can be pickled."""
    wish = RetryLater(delay, counted=counted)
    copy = pickle.loads(pickle.dumps(wish))  # noqa: S301 - our own bytes
    for one in (wish, copy):
        assert (one.delay, one.counted) == (600.0, counted)
        assert str(one).startswith("run this job again in 600 s, ")
        assert "outside a job nothing is run again" in str(one)
    assert RetryLater(1).counted


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, "soon", None, True, 1e11, timedelta(seconds=-1)])
def test_wishes_that_make_no_sense(delay: Any) -> None:
    """A delay that is no length of time is refused by name."""
    with pytest.raises(ConfigError, match="RetryLater delay="):
        RetryLater(delay)


@pytest.mark.parametrize("policy", [None, Retry(0), Retry(2, on=(OSError,))])
def test_uncounted_wishes_are_granted(policy: Retry | None) -> None:
    """A wish that is not counted is granted whatever the policy, and however many retries there were."""
    failure = Failure.from_exception(RetryLater(7, counted=False))
    assert [after_error(policy, done, failure, half) for done in (0, 2, 9)] == [(7.0, False)] * 3


def test_counted_wishes_use_up_retries() -> None:
    """A wish that is counted is granted as long as there are retries, whatever errors these are for."""
    failure = Failure.from_exception(RetryLater(7))
    policy = Retry(2, delay=100.0, on=(OSError,))
    assert [after_error(policy, done, failure, half) for done in range(4)] == [(7.0, True), (7.0, True), None, None]
    assert after_error(None, 0, failure, half) is None


def test_wish_travels_once() -> None:
    """A wish travels with its failure; the exception that is made of it has none, and older readers pass over it."""
    failure = Failure.from_exception(RetryLater("1h", counted=False))
    data = failure.to_data()
    assert Failure.from_data(data) == failure
    assert Failure.from_data(data[:10]) == failure.changed(again=None)
    again = Failure.from_exception(failure.to_exception())
    assert (again.type, again.args, again.again) == (failure.type, failure.args, None)


@pytest.mark.parametrize("wish", [[], [1.0], [1, True], [1.0, 1], [-1.0, True], [math.nan, True], [math.inf, True], 7])
def test_broken_wishes(wish: object) -> None:
    """What is no wish is passed over, as anything that is not known."""
    failure = Failure.from_exception(RetryLater(1))
    assert failure.again == Again(1.0)
    assert Failure.from_data([*failure.to_data()[:10], wish]).again is None
