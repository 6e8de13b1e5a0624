"""What clients put into a store, read from it and change in it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import JobExists
from taskq.states import Reason, State
from tests.store_steps import hear, job, said, see, state_of, take, tell
from tests.subscriber import Subscriber
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.store import Store, WorkerSession


def test_put_and_get(store: Store) -> None:
    """A job reads back as it was put; one that is not there is None."""
    new = job("a", envelope=b"\x00\xffbytes", queue="q", priority=7, key="k", expires=60.0, delay=30.0)
    before = time.time()
    assert store.put([new]) == ["a"]
    record, none = store.get(["a", "b"], payload=True)
    assert none is None
    assert record is not None
    assert (record.state, record.queue, record.priority, record.key) == (State.SCHEDULED, "q", 7, "k")
    assert (record.task, record.label, record.envelope) == ("tests:nothing", "x()", b"\x00\xffbytes")
    assert record.due_at is not None
    assert record.submitted_at is not None
    assert before <= record.submitted_at <= time.time()
    assert record.due_at - record.submitted_at == pytest.approx(30)
    assert store.get(["a"])[0] != record  # without its payload


def test_no_jobs(store: Store) -> None:
    """Putting nothing is nothing."""
    assert store.put([]) == []
    assert store.get([]) == []
    assert store.list() == []


def test_same_id_again(store: Store, member: WorkerSession) -> None:
    """A put that is repeated is no second job, and leaves an ended one as it is."""
    assert store.put([job("a"), job("b")]) == ["a", "b"]
    assert store.put([job("a", priority=3), job("c")]) == ["a", "c"]
    assert see(store, "a").priority == 0
    tell(member, *map(said, take(member)))
    assert store.put([job("a")]) == ["a"]
    assert state_of(store, "a") is State.SUCCEEDED


def test_key_until_the_job_ends(store: Store, member: WorkerSession) -> None:
    """A key stands for one job until that has ended."""
    assert store.put([job("a", key="k")]) == ["a"]
    assert store.put([job("b", key="k"), job("c", key="other")]) == ["a", "c"]
    assert store.get(["b"]) == [None]
    claims = take(member)
    assert store.put([job("d", key="k")]) == ["a"]
    tell(member, *map(said, claims))
    assert store.put([job("e", key="k")]) == ["e"]


def test_reject(store: Store) -> None:
    """With `if_exists="reject"` a taken key or id is an error, which names the job, and nothing of the call is kept."""
    store.put([job("a", key="k")])
    with pytest.raises(JobExists, match="key") as caught:
        store.put([job("new"), job("b", key="k", if_exists="reject")])
    assert caught.value.job_id == "a"
    with pytest.raises(JobExists, match=r"there"):
        store.put([job("a", job_id="a", if_exists="reject")])
    assert store.get(["new", "b"]) == [None, None]


def test_delay_and_at(store: Store, join: Callable[..., WorkerSession]) -> None:
    """A job is not given before its time, and is given then without anybody promoting it."""
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    store.put([job("at", at=soon), job("past", at=soon - timedelta(days=1)), job("later", delay=60.0)])
    member = join()
    claimed: list[str] = []
    eventually(lambda: claimed.extend(one.id for one in take(member)) or "at" in claimed, "the job to become due")
    assert claimed == ["past", "at"]
    assert state_of(store, "later") is State.SCHEDULED


def test_expires(store: Store, member: WorkerSession) -> None:
    """A job that nobody starts in time fails as expired, by a claim or by a sweep, and is never given."""
    store.put([job("a", expires=0.05), job("b", expires=60.0), job("c", expires=0.05, queue="other")])
    eventually(lambda: time.time() > (see(store, "c").expires_at or 0), "the time to pass")
    assert [one.id for one in take(member)] == ["b"]
    member.run_maintenance()
    for one in ("a", "c"):
        assert see(store, one).reason is Reason.EXPIRED
        assert "0.05 s" in str(see(store, one).failure)


def test_expires_says_when_it_must_have_started(store: Store, member: WorkerSession) -> None:
    """A job that was started in time does not expire while it waits for a retry; one that was given back does."""
    names = ("retried", "queued", "given back")
    store.put([job(name.replace(" ", "-"), expires=0.3) for name in names])
    first, second, third = take(member)
    tell(member, said(first, State.SCHEDULED, delay=0.4), said(second, State.QUEUED))
    tell(member, said(third, State.QUEUED, started=False))
    eventually(lambda: time.time() > (see(store, third.id).expires_at or 0), "the time to pass")
    member.run_maintenance()
    assert see(store, third.id).reason is Reason.EXPIRED
    claimed: set[str] = set()
    eventually(
        lambda: claimed.update(one.id for one in take(member)) or claimed == {first.id, second.id}, "both to come"
    )


def test_uncounted_retry(store: Store, member: WorkerSession) -> None:
    """A job that runs again later counts an attempt, and a retry only where its worker says so."""
    store.put([job("a")])
    for counted, retries in ((False, 0), (True, 1), (False, 1)):
        (claim,) = take(member)
        tell(member, said(claim, State.SCHEDULED, counted=counted))
        assert see(store, "a").retries == retries
    (claim,) = take(member)
    assert (claim.attempt, claim.retries, claim.crashes) == (4, 1, 0)


def test_list(store: Store, member: WorkerSession) -> None:
    """Jobs are listed newest first, by state, queue and task, in pages, without payloads."""
    store.put([job(f"a{number}") for number in range(5)] + [job("b", queue="other")])
    tell(member, *map(said, take(member, 2)))
    assert [one.id for one in store.list()] == ["b", "a4", "a3", "a2", "a1", "a0"]
    assert [one.id for one in store.list(limit=2, offset=1)] == ["a4", "a3"]
    assert [one.id for one in store.list(states={State.SUCCEEDED})] == ["a1", "a0"]
    assert [one.id for one in store.list(states={State.QUEUED}, queue="other")] == ["b"]
    assert store.list(task="tests:another") == []
    assert {one.envelope for one in store.list()} == {b""}
    assert {one.result for one in store.list()} == {None}


def test_cancel_what_waits(store: Store, member: WorkerSession) -> None:
    """Waiting, scheduled and blocked jobs are cancelled at once, ended ones stay, unknown ones are None."""
    store.put([job("a"), job("b", delay=60.0), job("done", priority=1)])
    store.put([job("c", depends_on=["a"])])
    tell(member, *map(said, take(member, 1)))
    states = store.cancel(["b", "c", "a", "done", "nobody"])
    assert states == [State.CANCELLED, State.CANCELLED, State.CANCELLED, State.SUCCEEDED, None]
    assert take(member) == []


@pytest.mark.parametrize("state", [State.SCHEDULED, State.QUEUED])
def test_cancelled_job_does_not_run_again(store: Store, member: WorkerSession, state: State) -> None:
    """A job that is wished cancelled and fails, or is handed back, is cancelled instead of being run again."""
    store.put([job("a")])
    (claim,) = take(member)
    store.cancel(["a"])
    tell(member, said(claim, state))
    assert state_of(store, "a") is State.CANCELLED


def test_retry(store: Store, member: WorkerSession) -> None:
    """A failed or cancelled job is queued as if new, behind the others; others are not."""
    store.put([job("a", expires=100.0), job("b"), job("c"), job("d")])
    for claim in take(member, 2):
        tell(member, said(claim, State.FAILED, log=b"text", crashes=2, progress=(1, 2), meta=b"m"))
    store.cancel(["c"])
    assert store.retry(["a", "c", "d", "nobody"]) == [True, True, False, False]
    record = see(store, "a")
    assert (record.state, record.attempts, record.crashes, record.failure) == (State.QUEUED, 0, 0, None)
    assert (record.progress, record.worker, record.started_at, record.ended_at) == (None, None, None, None)
    assert store.log("a") == b""
    claims = take(member)
    assert [one.id for one in claims] == ["d", "a", "c"]
    assert [one.attempt for one in claims] == [1, 1, 1]


def test_retry_against_a_taken_key(store: Store) -> None:
    """A job is not queued again while another one has its key."""
    store.put([job("a", key="k")])
    store.cancel(["a"])
    store.put([job("b", key="k")])
    assert store.retry(["a"]) == [False]


def test_old_outcome_after_retry(store: Store, member: WorkerSession) -> None:
    """What a worker says of a job's earlier life does not count for its next one."""
    store.put([job("a")])
    (old,) = take(member)
    tell(member, said(old, State.FAILED))
    store.retry(["a"])
    (new,) = take(member)
    assert tell(member, said(old)) == ["a"]
    assert tell(member, said(new)) == []


def test_remove(store: Store, member: WorkerSession) -> None:
    """All but running jobs can be removed, with all that belongs to them; who needs one fails."""
    store.put([job("a"), job("b"), job("c", priority=-1)])
    store.put([job("d", depends_on=["c"])])
    claims = take(member, 2)
    tell(member, said(claims[0], log=b"text"))
    assert store.remove(["a", "b", "c", "nobody"]) == [True, False, True, False]
    assert store.get(["a", "c"]) == [None, None]
    assert store.log("a") == b""
    assert see(store, "d").failure is not None


def test_needs(store: Store, member: WorkerSession) -> None:
    """A job waits until all that it needs have succeeded, and is given their results."""
    store.put([job("a"), job("b")])
    store.put([job("c", depends_on=["a", "b", "a"], priority=9)])
    assert state_of(store, "c") is State.BLOCKED
    first, second = take(member)
    tell(member, said(first))
    assert state_of(store, "c") is State.BLOCKED
    tell(member, said(second))
    (claim,) = take(member)
    assert claim.results == {"a": b"a", "b": b"b"}
    assert see(store, "c").depends_on == ("a", "b", "a")


def test_needs_that_are_there_already(store: Store, member: WorkerSession) -> None:
    """A job that needs only ended jobs waits for nothing; in one put it may need an earlier one."""
    store.put([job("a")])
    tell(member, *map(said, take(member)))
    store.put([job("b", depends_on=["a"]), job("c", depends_on=["b"])])
    assert (state_of(store, "b"), state_of(store, "c")) == (State.QUEUED, State.BLOCKED)


def test_needs_that_fail(store: Store, member: WorkerSession) -> None:
    """A failed job fails those that need it, and those that need these, with the reason; a scheduled one too."""
    store.put([job("a")])
    store.put([job("b", depends_on=["a"], delay=60.0), job("c", depends_on=["b"]), job("lost", depends_on=["nobody"])])
    tell(member, *(said(one, State.FAILED) for one in take(member)))
    store.put([job("late", depends_on=["a"])])
    for one, needed in (("b", "a"), ("c", "b"), ("late", "a"), ("lost", "nobody")):
        failure = see(store, one).failure
        assert failure is not None
        assert failure.type.endswith("DependencyFailed")
        assert f"job {needed}," in failure.message


@pytest.mark.parametrize("how", ["cancel", "remove"])
def test_what_goes_takes_the_chain_along(store: Store, how: str) -> None:
    """When a job is cancelled or removed, all that waits for it, and for that, fails."""
    store.put([job("a"), job("b", depends_on=["a"]), job("c", depends_on=["b"])])
    if how == "cancel":
        assert store.cancel(["a"]) == [State.CANCELLED]
    else:
        assert store.remove(["a"]) == [True]
    assert {state_of(store, "b"), state_of(store, "c")} == {State.FAILED}


def test_retry_checks_needs(store: Store, member: WorkerSession) -> None:
    """A retried job whose need has not succeeded fails again; after the need it runs."""
    store.put([job("a"), job("b", depends_on=["a"])])
    tell(member, *(said(one, State.FAILED) for one in take(member)))
    store.retry(["b"])
    assert state_of(store, "b") is State.FAILED
    assert store.retry(["a", "b"]) == [True, True]
    for name in ("a", "b"):
        (claim,) = take(member)
        assert claim.id == name
        tell(member, said(claim))


def test_same_key_twice_in_one_put(store: Store) -> None:
    """Two jobs with one key in one put are one job."""
    assert store.put([job("a", key="k"), job("b", key="k")]) == ["a", "a"]


def test_retried_key_is_taken(store: Store) -> None:
    """A job that is queued again has its key again."""
    store.put([job("a", key="k")])
    store.cancel(["a"])
    assert store.retry(["a"]) == [True]
    assert store.put([job("b", key="k")]) == ["a"]


def test_needs_with_a_delay(store: Store, member: WorkerSession) -> None:
    """A job with both waits for both."""
    store.put([job("a")])
    store.put([job("b", depends_on=["a"], delay=0.3)])
    tell(member, *map(said, take(member)))
    assert state_of(store, "b") in {State.SCHEDULED, State.QUEUED}
    eventually(lambda: [one.id for one in take(member)] == ["b"], "the job to become due")


def test_result_ttl_of_nothing(store: Store, member: WorkerSession) -> None:
    """With `result_ttl=0` nobody finds the ended job, but the client that waits for it hears its result."""
    subscription = Subscriber(store.subscribe())
    store.put([job("a", result_ttl=0)], reply_to=subscription.reply_to)
    store.put([job("b", result_ttl=0)])
    tell(member, *map(said, take(member)))
    assert store.get(["a", "b"]) == [None, None]
    assert store.list() == []
    subscription.expect(["a"])
    assert hear(subscription, 1)["a"].result == b"a"
    subscription.close()


def test_queues(store: Store, member: WorkerSession, join: Callable[..., Any]) -> None:
    """Queues with jobs, workers or a pause are listed with their counts and the age of their oldest waiting job."""
    join("other", queues=("served",))
    store.put([job("a", queue="q"), job("b", queue="q"), job("c", delay=60.0)])
    store.pause("held")
    found = {queue.name: queue for queue in store.queues()}
    assert sorted(found) == ["default", "held", "q", "served"]
    assert {state: count for state, count in found["q"].counts.items() if count} == {State.QUEUED: 2}
    assert found["q"].oldest_at == see(store, "a").submitted_at
    assert {state: count for state, count in found["default"].counts.items() if count} == {State.SCHEDULED: 1}
    assert (found["held"].paused, found["q"].paused) == (True, False)


def test_pause(store: Store, join: Callable[..., WorkerSession]) -> None:
    """A paused queue gives no jobs until it is resumed; pausing twice is pausing."""
    member = join(queues=("a", "b"))
    store.put([job("1", queue="a"), job("2", queue="b")])
    store.pause("a")
    store.pause("a")
    assert [one.id for one in take(member)] == ["2"]
    store.resume("a")
    store.resume("a")
    assert [one.id for one in take(member)] == ["1"]
