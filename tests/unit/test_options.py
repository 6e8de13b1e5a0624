"""The states of a job and the options of a job."""

from __future__ import annotations

import ast
import inspect
import math
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq import options as options_module
from taskq.errors import ConfigError
from taskq.options import JobOptions
from taskq.retry import Retry
from taskq.states import TERMINAL, TRANSITIONS, Reason, State

SOON = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


def test_transitions_are_total() -> None:
    """Every state has its entry in the table, and every state but those that begin a job can be reached."""
    assert set(TRANSITIONS) == set(State)
    reached = frozenset().union(*TRANSITIONS.values())
    assert set(State) - reached == {State.BLOCKED}


def test_terminal_states_are_those_without_a_way_out() -> None:
    """A state is final exactly when the table has no step from it."""
    assert {state for state, following in TRANSITIONS.items() if not following} == TERMINAL


def test_every_state_can_come_to_an_end() -> None:
    """From each state there is a way to a final one, and each that is not final can be cancelled."""
    for state in set(State) - TERMINAL:
        assert State.CANCELLED in TRANSITIONS[state]
        assert State.FAILED in TRANSITIONS[state]


def test_only_running_jobs_succeed() -> None:
    """A job has to run to succeed, and to be queued to run."""
    assert [state for state in State if State.SUCCEEDED in TRANSITIONS[state]] == [State.RUNNING]
    assert [state for state in State if State.RUNNING in TRANSITIONS[state]] == [State.QUEUED]


def test_states_and_reasons_are_plain_words() -> None:
    """States and reasons are strings, so that they read well in logs, JSON and stores."""
    assert [str(state) for state in State] == [
        "scheduled", "blocked", "queued", "running", "succeeded", "failed", "cancelled",
    ]  # fmt: skip
    assert [str(reason) for reason in Reason] == [
        "error", "timeout", "crashed", "lost", "undecodable", "unknown_task", "expired", "unsigned",
    ]  # fmt: skip


def test_defaults() -> None:
    """Options that nobody set have the documented defaults."""
    assert JobOptions() == JobOptions(
        queue="default",
        timeout=None,
        soft_timeout=None,
        retry=None,
        max_crashes=3,
        priority=0,
        delay=None,
        at=None,
        expires=None,
        key=None,
        job_id=None,
        if_exists="return",
        result_ttl=None,
    )


def test_typed_keywords_are_the_options() -> None:
    """The keywords that type checkers know are exactly the options."""
    tree = ast.parse(inspect.getsource(options_module))
    (fields,) = (node for node in ast.walk(tree) if getattr(node, "name", "") == "JobOptionFields")
    assert isinstance(fields, ast.ClassDef)
    typed = {
        node.target.id for node in fields.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert typed == set(JobOptions.field_names())


@pytest.mark.parametrize(
    "options",
    [
        {"queue": "mail-2.high_prio"},
        {"timeout": 1},
        {"timeout": 0.05},
        {"timeout": 2, "soft_timeout": 1.5},
        {"retry": Retry(2)},
        {"max_crashes": 1},
        {"priority": -5},
        {"delay": 0},
        {"at": SOON},
        {"key": "thumb of b.jpg, large"},
        {"expires": 0.5},
        {"expires": 1, "delay": 5},
        {"job_id": "01J8-order_4711"},
        {"job_id": "x" * 128, "if_exists": "reject"},
        {"result_ttl": 0},
        {"result_ttl": 86_400.0},
    ],
)
def test_good_options(options: dict[str, Any]) -> None:
    """Sensible values are taken as they are."""
    made = JobOptions(**options)
    assert {name: getattr(made, name) for name in options} == options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue", ""), ("queue", "a,b"), ("queue", "a b"), ("queue", "a\n"), ("queue", None),
        ("queue", "x" * 129),
        ("timeout", 0), ("timeout", -1), ("timeout", math.nan), ("timeout", math.inf), ("timeout", "5 apes"),
        ("timeout", True), ("timeout", timedelta(0)), ("timeout", 10**400),
        ("soft_timeout", 0), ("soft_timeout", ""),
        ("retry", -1), ("retry", "3"), ("retry", True), ("retry", 1.5),
        ("max_crashes", 0), ("max_crashes", 1.0), ("max_crashes", None), ("max_crashes", True),
        ("priority", 0.5), ("priority", 2**31), ("priority", None),
        ("delay", -0.1), ("delay", math.nan), ("delay", "1x"),
        ("at", datetime(2030, 1, 1)), ("at", "2030-01-01"), ("at", 0),  # noqa: DTZ001 - naive on purpose
        ("key", ""), ("key", b"x"), ("key", "a\0"), ("key", "x" * 513),
        ("expires", 0), ("expires", -1), ("expires", math.inf), ("expires", "0s"),
        ("job_id", ""), ("job_id", "a b"), ("job_id", "a/b"), ("job_id", "ä"), ("job_id", "x" * 129), ("job_id", 7),
        ("if_exists", ""), ("if_exists", "ignore"), ("if_exists", None), ("if_exists", True),
        ("result_ttl", -1), ("result_ttl", math.inf), ("result_ttl", 1e10), ("result_ttl", [1]),
    ],
)  # fmt: skip
def test_bad_values_are_named(name: str, value: Any) -> None:
    """A value that makes no sense is refused with the option's name and the value."""
    with pytest.raises(ConfigError) as refusal:
        JobOptions().merged(**{name: value})
    assert name in str(refusal.value) or name == "retry"
    assert repr(value)[:20] in str(refusal.value)


def test_number_of_retries_becomes_a_policy() -> None:
    """`retry=5` means `Retry(5)`, and `retry=0` no retries."""
    assert JobOptions().merged(retry=5).retry == Retry(5)
    assert JobOptions().merged(retry=0).retry == Retry(0)


def test_soft_timeout_comes_first() -> None:
    """A soft timeout that could never come before the hard one is refused."""
    with pytest.raises(ConfigError, match="soft_timeout=5 would never come before timeout=5"):
        JobOptions(timeout=5, soft_timeout=5)


def test_delay_and_at_exclude_each_other() -> None:
    """Two times for one start are refused."""
    with pytest.raises(ConfigError, match="give one of them"):
        JobOptions(delay=5, at=SOON)


def test_merged_changes_only_what_it_is_told() -> None:
    """Merging leaves the other options, and the original, as they were."""
    first = JobOptions(queue="mail", timeout=5)
    second = first.merged(timeout=None, priority=2)
    assert second == JobOptions(queue="mail", priority=2)
    assert first == JobOptions(queue="mail", timeout=5)
    assert first.merged() is first


def test_a_new_start_replaces_the_old_one() -> None:
    """`delay` over `at`, and `at` over `delay`: the later word counts."""
    assert JobOptions(at=SOON).merged(delay=5) == JobOptions(delay=5)
    assert JobOptions(delay=5).merged(at=SOON) == JobOptions(at=SOON)
    assert JobOptions(delay=5).merged(at=None) == JobOptions(delay=5)


def test_unknown_options_are_refused_with_the_known_ones() -> None:
    """A mistyped option is refused with a guess and the list of options."""
    with pytest.raises(ConfigError) as refusal:
        JobOptions().merged(time_out=5)  # type: ignore[call-arg]
    assert "'time_out'; did you mean timeout" in str(refusal.value)
    assert "max_crashes" in str(refusal.value)


def test_options_cannot_be_changed_and_pickle() -> None:
    """Options are values: frozen, equal by content, and able to travel to a child."""
    options = JobOptions(retry=Retry(2, on=(OSError,)), at=SOON)
    with pytest.raises(AttributeError, match="cannot be changed"):
        options.timeout = 5  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(options)) == options  # noqa: S301 - our own bytes


def test_lengths_of_time_are_kept_as_seconds() -> None:
    """A text and a timedelta mean the same seconds, so that options are equal and stores see numbers alone."""
    words = JobOptions().merged(timeout="1h30m", delay="0", expires=timedelta(days=1), result_ttl="250ms")
    assert words == JobOptions(timeout=5400.0, delay=0.0, expires=86_400.0, result_ttl=0.25)
    assert Retry(1, delay="2m", max_delay=timedelta(hours=1)) == Retry(1, delay=120.0, max_delay=3600.0)
