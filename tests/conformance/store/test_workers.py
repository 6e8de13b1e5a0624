"""What workers take from a store and tell it, and what happens to their jobs when they die."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import ConfigError
from taskq.failure import Failure
from taskq.serving import Serving
from taskq.states import Reason, State
from taskq.store import JobOutcome, ProgressUpdate
from tests.store_steps import job, said, see, state_of, take, tell, worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.store import Claim, Store, WorkerSession


#: Bytes that are kept of what a job prints.
LOG_LIMIT = 1_048_576


def wait(member: WorkerSession, seconds: float = 20.0, wake_fd: int = -1) -> float:
    """Let a worker wait; return for how long it did."""
    begin = time.monotonic()
    member.wait(seconds, wake_fd)
    return time.monotonic() - begin


def test_order(store: Store, join: Callable[..., WorkerSession]) -> None:
    """Jobs come by the worker's order of queues, then by priority, then by submit; other queues are not its."""
    member = join(queues=("high", "low"))
    store.put([job("l1", queue="low", priority=9), job("x", queue="other"), job("h1", queue="high")])
    store.put([job("h2", queue="high", priority=1), job("h3", queue="high"), job("h4", queue="high", priority=-1)])
    assert [one.id for one in take(member, 2)] == ["h2", "h1"]
    assert [one.id for one in take(member)] == ["h3", "h4", "l1"]
    assert [one.id for one in take(join("another", queues=("other",)))] == ["x"]


def put_in_queues(store: Store, names: str, each: int) -> None:
    """Put jobs into queues of one letter, those of one queue after those of another."""
    store.put([job(f"{name}{n}", queue=name) for name in names for n in range(each)])


@pytest.mark.parametrize("at_once", [1, 2, 20])
def test_order_by_turns(store: Store, join: Callable[..., WorkerSession], at_once: int) -> None:
    """By turns each queue gives one job after the other, an empty one is passed over, however many come at once."""
    member = join(queues=("a", "b", "c"), serving=Serving(strategy="round_robin"))
    put_in_queues(store, "abc", 2)
    store.put([job("b2", queue="b", priority=-1), job("b3", queue="b", priority=-1)])
    found: list[str] = []
    while claims := take(member, at_once):
        found += [one.id for one in claims]
    assert found == ["a0", "b0", "c0", "a1", "b1", "c1", "b2", "b3"]


def test_turns_of_what_goes_back(store: Store, join: Callable[..., WorkerSession]) -> None:
    """What goes back unstarted has its turn again: it is not behind the second job of another queue."""
    member = join(queues=("a", "b", "c"), serving=Serving(strategy="round_robin"))
    put_in_queues(store, "abc", 2)
    first, *ahead = take(member, 3)
    tell(member, *(said(one, State.QUEUED, started=False) for one in ahead))
    tell(member, said(first))
    assert [one.id for one in take(member)] == ["b0", "c0", "a1", "b1", "c1"]


def test_order_by_turns_without_a_paused_queue(store: Store, join: Callable[..., WorkerSession]) -> None:
    """A paused queue has no turn; when it goes on, it has."""
    member = join(queues=("a", "b"), serving=Serving(strategy="round_robin"))
    put_in_queues(store, "ab", 2)
    store.pause("a")
    assert [one.id for one in take(member)] == ["b0", "b1"]
    store.resume("a")
    assert [one.id for one in take(member)] == ["a0", "a1"]


def test_order_that_is_drawn(store: Store, join: Callable[..., WorkerSession]) -> None:
    """A drawn order takes each job once, those of one queue in their order, and not those of the first queue first."""
    member = join(queues=tuple("abcd"), serving=Serving(strategy="random"))
    put_in_queues(store, "abcd", 12)
    found = [one.id for half in (24, 24) for one in take(member, half)]
    by_queue = [[one for one in found if one[0] == name] for name in "abcd"]
    assert by_queue == [[f"{name}{n}" for n in range(12)] for name in "abcd"]
    assert {one[0] for one in found[:24]} == set("abcd")
    assert found != [f"{name}{n}" for n in range(12) for name in "abcd"]


@pytest.mark.parametrize("strategy", ["round_robin", "random"])
def test_one_that_has_crashed_is_taken_alone_in_any_order(
    store: Store,
    join: Callable[..., WorkerSession],
    die: Callable[[WorkerSession, str], None],
    maintain: Callable[[WorkerSession], int],
    strategy: str,
) -> None:
    """A job whose next crash is its last is taken by itself by turns too."""
    first = join(queues=("a",))
    store.put([job("a0", queue="a", max_crashes=2)])
    (claim,) = take(first)
    assert first.begin([(claim.id, claim.token)]) == []
    die(first, "w")
    member = join("second", queues=("a", "b"), serving=Serving(strategy=strategy))
    assert maintain(member) == 1
    put_in_queues(store, "b", 3)
    found = []
    while claims := take(member):
        found.append({one.id for one in claims})
        tell(member, *(said(one) for one in claims))
    assert {"a0"} in found
    assert set().union(*found) == {"a0", "b0", "b1", "b2"}


def test_claim(store: Store, member: WorkerSession) -> None:
    """A claimed job runs: its attempt is counted and its worker named."""
    store.put([job("a", queue="default")])
    (claim,) = take(member)
    assert (claim.id, claim.attempt, claim.crashes, claim.retries, claim.queue) == ("a", 1, 0, 0, "default")
    record = see(store, "a")
    assert (record.state, record.attempts, record.worker) == (State.RUNNING, 1, "w")
    assert record.started_at is not None


def test_claim_one(store: Store, member: WorkerSession) -> None:
    """One job can be taken out of turn, while it waits."""
    store.put([job("a"), job("b", queue="elsewhere"), job("c", delay=60.0)])
    found = member.claim_one("b")
    assert found is not None
    assert found.id == "b"
    assert [member.claim_one(one) for one in ("b", "c", "nobody")] == [None, None, None]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_ends(store: Store, member: WorkerSession, state: State) -> None:
    """A job ends as its worker says, with what that says besides, and once only."""
    store.put([job("a")])
    (claim,) = take(member)
    failure = Failure.from_exception(ValueError("no")) if state is State.FAILED else None
    result = b"r" if state is State.SUCCEEDED else None
    more: dict[str, Any] = {"attempts": 3, "crashes": 2, "progress": (4, None), "meta": b"m", "log": b"text"}
    outcome = said(claim, state, failure=failure, result=result, **more)
    assert tell(member, outcome) == []
    tell(member, outcome)
    record = see(store, "a")
    assert (record.state, record.result, record.failure) == (state, result, failure)
    assert (record.attempts, record.crashes, record.progress, record.meta) == (3, 2, (4, None), b"m")
    assert store.log("a") == b"text"
    assert record.ended_at is not None


def test_handed_back(store: Store, member: WorkerSession) -> None:
    """A job that never began goes to the front, its attempt not counted."""
    store.put([job("a"), job("b")])
    claims = take(member, 1)
    tell(member, said(claims[0], State.QUEUED, started=False))
    assert see(store, "a").attempts == 0
    assert [one.id for one in take(member)] == ["a", "b"]


def test_token_of_another(store: Store, member: WorkerSession, join: Callable[..., WorkerSession]) -> None:
    """Only who holds the newest token can say how a job ended, or what it says."""
    store.put([job("a")])
    (old,) = take(member)
    member.leave()
    other = join("other")
    (new,) = take(other)
    late = ProgressUpdate(id="a", token=old.token, log=b"late")
    assert {*other.poll([said(old)], [late], 0).fenced} == {"a"}
    for token in ("", "x.y", "1", "999.1", f"{new.token}0"):
        assert list(other.poll([JobOutcome(id="a", token=token, state=State.SUCCEEDED)], [], 0).fenced) == ["a"]
    assert tell(other, said(new, result=b"new")) == []
    assert see(store, "a").result == b"new"
    assert store.log("a") == b""


def test_updates(store: Store, member: WorkerSession) -> None:
    """What a running job says is seen at once, in pieces and from any byte on."""
    store.put([job("a")])
    (claim,) = take(member)
    for number in range(3):
        member.poll(
            [], [ProgressUpdate(id="a", token=claim.token, progress=(number, 3), meta=b"%d" % number, log=b"abc")], 0
        )
    record = see(store, "a")
    assert (record.progress, record.meta) == ((2, 3), b"2")
    assert (store.log("a"), store.log("a", 4), store.log("a", 99)) == (b"abcabcabc", b"bcabc", b"")


def test_log_limit(store: Store, member: WorkerSession) -> None:
    """The first MiB of a log is kept; an ended job's log says at its end how much was left out."""
    store.put([job("a")])
    (claim,) = take(member)
    for letter in (b"a", b"b", b"c"):
        member.poll([], [ProgressUpdate(id="a", token=claim.token, log=letter * 500_000)], 0)
    kept = b"a" * 500_000 + b"b" * 500_000 + b"c" * (LOG_LIMIT - 1_000_000)
    assert store.log("a") == kept
    tell(member, said(claim))
    assert store.log("a").startswith(kept)
    assert store.log("a", LOG_LIMIT - 5).startswith(b"ccccc")


def test_workers(store: Store, join: Callable[..., WorkerSession]) -> None:
    """Workers are listed while they live, with what they last said of themselves."""
    member = join("a", queues=("q", "default"))
    join("b")
    (first, second) = store.workers()
    assert (first.name, first.queues, first.processes, first.pid) == ("a", ("q", "default"), 2, os.getpid())
    assert second.name == "b"
    busy = worker("a")
    member.heartbeat(type(busy)(**{**_fields(busy), "running": 2, "succeeded": 5, "stopping": True}), [])
    seen = store.workers()[0]
    assert seen.stopping
    member.leave()
    assert [one.name for one in store.workers()] == ["b"]


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def test_same_name(store: Store, join: Callable[..., WorkerSession]) -> None:
    """Two living workers cannot have one name."""
    join("a")
    with pytest.raises(ConfigError, match="a worker named 'a' is"):
        store.join(worker("a"))


def test_heartbeat(store: Store, member: WorkerSession) -> None:
    """Renewing tells which jobs are held no longer."""
    store.put([job("a"), job("b")])
    held = [(one.id, one.token) for one in take(member)]
    assert member.heartbeat(worker(), held) == []
    tell(member, *(said(one) for one in _claims(held[:1])))
    assert member.heartbeat(worker(), [*held, ("c", "1.1")]) == ["a", "c"]


def _claims(held: list[tuple[str, str]]) -> list[Claim]:
    from taskq.store import Claim as Made  # noqa: PLC0415 - only here

    return [Made(id=job_id, token=token, envelope=b"", queue="", attempt=1) for job_id, token in held]


def test_dead_worker(store: Store, join: Callable[..., Any], die: Any, maintain: Any) -> None:
    """A dead worker's jobs wait again at once; its late word is fenced; it is listed no more."""
    dead, other = join("dead"), join("other")
    store.put([job("a"), job("b")])
    (first, _) = take(dead)
    assert dead.begin([("a", first.token)]) == []
    die(dead, "dead")
    assert maintain(other) == 2
    assert maintain(other) == 0
    assert [one.name for one in store.workers()] == ["other"]
    assert see(store, "a").crashes == 1
    claims = take(other)
    assert [(one.id, one.crashes, one.suspect, one.attempt) for one in claims] == [
        ("a", 1, False, 2),
        ("b", 0, True, 2),
    ]
    assert tell(other, said(first)) == ["a"]


def test_only_what_has_begun_counts_a_crash(store: Store, join: Callable[..., Any], die: Any, maintain: Any) -> None:
    """However often its workers die, a job that has not begun counts no crash; its attempts count while it may have."""
    keeper = join("keeper", queues=("none",))
    store.put([job("a"), job("b")])
    for number in range(5):
        dead = join(f"dead{number}")
        claims = take(dead)
        assert [(one.id, one.suspect, one.attempt) for one in claims] == [
            (name, number > 0, 2 if number else 1) for name in ("a", "b")
        ]
        if number == 4:
            dead.begin([(one.id, one.token) for one in claims if one.id == "a"])
        die(dead, f"dead{number}")
        assert maintain(keeper) == 2
    records = [see(store, name) for name in ("a", "b")]
    assert [(one.state, one.crashes, one.attempts) for one in records] == [(State.QUEUED, 1, 2), (State.QUEUED, 0, 1)]


def test_suspects_that_have_begun(store: Store, join: Callable[..., Any], die: Any, maintain: Any) -> None:
    """A suspect that began and was given back is none; one that was cancelled unbegun counts no second attempt."""
    dead, other, third = join("dead"), join("other"), join("third")
    store.put([job("a"), job("b")])
    take(dead)
    die(dead, "dead")
    maintain(other)
    claims = {claim.id: claim for claim in take(other)}
    assert all(claim.suspect for claim in claims.values())
    assert other.begin([("a", claims["a"].token)]) == []
    tell(other, said(claims["a"], State.QUEUED, started=False))
    assert [(one.id, one.suspect) for one in take(third)] == [("a", False)]
    store.cancel(["b"])
    die(other, "other")
    maintain(third)
    assert (see(store, "b").state, see(store, "b").attempts) == (State.CANCELLED, 1)


def test_suspicion_ends_with_the_job(store: Store, join: Callable[..., Any], die: Any, maintain: Any) -> None:
    """A suspect that was given back is one; a job that is retried after its end is none."""
    dead, other = join("dead"), join("other")
    store.put([job("a")])
    take(dead)
    die(dead, "dead")
    maintain(other)
    (claim,) = take(other)
    tell(other, said(claim, State.QUEUED, started=False))
    (claim,) = take(other)
    assert claim.suspect
    assert other.begin([("a", claim.token)]) == []
    tell(other, said(claim, State.FAILED, failure=Failure.from_exception(ValueError("no"))))
    assert store.retry(["a"]) == [True]
    assert [(one.suspect, one.crashes, one.attempt) for one in take(other)] == [(False, 0, 1)]


def test_poison(store: Store, join: Callable[..., Any], die: Any, maintain: Any) -> None:
    """A job that had begun when its workers died `max_crashes` times fails as crashed."""
    keeper = join("keeper", queues=("none",))
    store.put([job("a", max_crashes=2)])
    for number in range(4):
        dead = join(f"dead{number}")
        (claim,) = take(dead)
        assert claim.crashes == number // 2
        if number % 2:
            assert dead.begin([("a", claim.token), ("b", "0.0")]) == ["b"]
        die(dead, f"dead{number}")
        maintain(keeper)
    record = see(store, "a")
    assert (record.state, record.reason, record.crashes) == (State.FAILED, Reason.CRASHED, 2)


def test_the_last_crash_is_nobody_elses(
    store: Store, join: Callable[..., WorkerSession], die: Any, maintain: Any
) -> None:
    """A job whose next crash is its last is taken alone, by a worker that holds nothing, and before what is behind."""
    first, keeper = join("first"), join("keeper", queues=("none",))
    store.put([job("a", max_crashes=2), job("b", max_crashes=2)])
    assert first.begin([(one.id, one.token) for one in take(first)]) == []
    die(first, "first")
    assert maintain(keeper) == 2
    second, third = join("second"), join("third")
    store.put([job("c"), job("d", priority=1)])
    (urgent,) = take(second)
    assert (urgent.id, take(second)) == ("d", [])
    (alone,) = take(third)
    assert (alone.id, take(third)) == ("a", [])
    tell(second, said(urgent))
    tell(third, said(alone))
    assert [one.id for one in take(second)] == ["b"]
    assert [one.id for one in take(third)] == ["c"]


def test_dead_worker_of_a_cancelled_job(
    store: Store, join: Callable[..., WorkerSession], die: Any, maintain: Any
) -> None:
    """A job that was wished cancelled is so when its worker dies."""
    dead, other = join("dead"), join("other")
    store.put([job("a")])
    take(dead)
    store.cancel(["a"])
    die(dead, "dead")
    maintain(other)
    assert state_of(store, "a") is State.CANCELLED


def test_name_of_a_dead_worker(store: Store, join: Callable[..., Any], die: Any, maintain: Any) -> None:
    """A worker that starts anew under its old name does not inherit the jobs of the dead one: they count a crash."""
    old = join("a")
    store.put([job("x")])
    old.begin([(one.id, one.token) for one in take(old)])
    die(old, "a")
    new = join("a")
    early = take(new)
    maintain(new)
    assert [one.crashes for one in early + take(new)] == [1]


def test_leave(store: Store, join: Callable[..., WorkerSession]) -> None:
    """Who signs off gives back what it holds, as if it had not been taken."""
    member = join("a")
    store.put([job("x"), job("y")])
    take(member, 1)
    member.leave()
    member.leave()
    assert [(one.id, one.attempt, one.crashes) for one in take(join("b"))] == [("x", 1, 0), ("y", 1, 0)]


def test_work_that_came_before(store: Store, member: WorkerSession) -> None:
    """A worker that goes to sleep after a submit does not sleep."""
    take(member)
    store.put([job("a")])
    assert wait(member) < 10
