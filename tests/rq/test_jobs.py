"""What clients do with jobs in the store: put, get, cancel, retry, remove, list, pause."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import ConfigError, JobExists, JobExpired
from taskq.executors.rq.store import RQStore
from taskq.states import Reason, State
from tests.redis_server import bundled, installed
from tests.rq.hands import again, failed, given_back, new_job, succeeded
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rq.hands import Hands


def test_small_form(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """Redis keeps the record of a job of usual length in its small form, to its end."""
    small, large = new_job(12, 3, task="shop.orders.tasks:send_receipt"), new_job("x" * 64)
    store.put([small, large])
    hands = join()
    hands.tell(*map(succeeded, hands.take()))
    assert client.object("encoding", f"rq:job:{small.id}") in {b"listpack", b"ziplist"}
    assert client.object("encoding", f"rq:job:{large.id}") == b"hashtable"


@pytest.mark.parametrize("size", [0, 200, 300, 1500, 70_000, 300_000])
def test_envelopes_of_any_size(store: RQStore, size: int) -> None:
    """An envelope comes back byte for byte, whichever header and compression it needs."""
    job = new_job("x" * size, "y")
    store.put([job])
    (record,) = store.get([job.id], payload=True)
    assert record is not None
    assert record.envelope == job.envelope


def test_put_is_repeatable(store: RQStore, join: Callable[..., Hands]) -> None:
    """The same job put again, waiting or ended, is the same job, and is in its queue once."""
    job = new_job(job_id="same")
    assert store.put([job]) == store.put([job]) == ["same"]
    hands = join()
    assert hands.run() == ["same"]
    assert store.put([job, new_job(job_id="same")]) == ["same", "same"]
    assert hands.take() == []


def test_many_in_order(store: RQStore, join: Callable[..., Hands]) -> None:
    """5,000 jobs, more than one script writes, are taken in the order of their put."""
    jobs = [new_job() for _ in range(5000)]
    assert store.put(jobs) == [job.id for job in jobs]
    hands = join()
    taken: list[str] = []
    while ids := hands.run(500):
        taken += ids
    assert taken == [job.id for job in jobs]


def test_reject_takes_back_earlier_steps(store: RQStore) -> None:
    """A put of several scripts that is rejected in its last one leaves nothing."""
    store.put([new_job(job_id="mine")])
    jobs = [new_job() for _ in range(2500)]
    with pytest.raises(JobExists):
        store.put([*jobs, new_job(job_id="mine", if_exists="reject")])
    assert store.get([job.id for job in jobs]) == [None] * 2500


@pytest.mark.parametrize("end", ["fail", "cancel", "remove", "stock"])
def test_key_is_freed_by_every_end(store: RQStore, join: Callable[..., Hands], client: Any, end: str) -> None:
    """However a job ends, also in a stock worker's hands, its key can be had again."""
    first = new_job(key="k")
    store.put([first])
    if end == "fail":
        hands = join()
        hands.tell(failed(*hands.take()))
    elif end == "cancel":
        store.cancel([first.id])
    elif end == "remove":
        store.remove([first.id])
    else:
        client.hset(f"rq:job:{first.id}", "status", "finished")
    second = new_job(key="k")
    assert store.put([second]) == [second.id]


def test_expired_job_fails_at_the_claim(store: RQStore, join: Callable[..., Hands]) -> None:
    """A job that nothing started in its time is not handed out: it fails as expired."""
    job = new_job(expires=0.05)
    store.put([job])
    eventually(lambda: _is_past(store, job.id), "the time to pass")
    assert join().take() == []
    (record,) = store.get([job.id])
    assert record is not None
    assert record.failure is not None
    assert record.reason is Reason.EXPIRED
    assert isinstance(record.failure.to_exception(), JobExpired)
    assert "0.05" in record.failure.message


def test_expired_jobs_fail_at_maintenance(store: RQStore, join: Callable[..., Hands]) -> None:
    """Jobs that wait in a queue without a worker, or for another job, expire all the same."""
    parent = new_job(queue="nobody")
    jobs = [new_job(expires=0.05, queue="nobody"), new_job(expires=0.05, queue="nobody", depends_on=[parent.id])]
    store.put([parent, *jobs])
    hands = join()

    def ended() -> bool:
        hands.run_maintenance()
        return all(
            record is not None and record.reason is Reason.EXPIRED for record in store.get([job.id for job in jobs])
        )

    eventually(ended, "the jobs to expire")
    assert store.client.command("LRANGE", "rq:queue:nobody", 0, -1) == [parent.id.encode()]


def test_expiry_does_not_touch_a_started_job(store: RQStore, join: Callable[..., Hands]) -> None:
    """A job that was started in time may run for as long as it wants."""
    hands = join()
    job = new_job(expires=0.2)
    store.put([job])
    (claim,) = hands.take()
    eventually(lambda: _is_past(store, job.id), "the time to pass")
    assert hands.run_maintenance() == 0
    assert not hands.tell(succeeded(claim)).fenced


def test_expiry_does_not_touch_a_retry(store: RQStore, join: Callable[..., Hands]) -> None:
    """A job that was started in time and failed may be tried again after its time to start."""
    hands = join()
    job = new_job(expires=0.1, retry=1)
    store.put([job])
    (claim,) = hands.take()
    hands.tell(again(claim))
    eventually(lambda: _is_past(store, job.id), "the time to pass")
    hands.run_maintenance()
    (claim,) = hands.take()
    assert (claim.id, claim.attempt, claim.retries) == (job.id, 2, 1)


def _is_past(store: RQStore, job_id: str) -> bool:
    """Return whether a job's time to start is over, by the clock of Redis."""
    (record,) = store.get([job_id])
    assert record is not None
    assert record.expires_at is not None
    return float(store.client.command("TIME")[0]) > record.expires_at


def test_priorities(store: RQStore, join: Callable[..., Hands]) -> None:
    """Higher priorities come first, equals in the order of their submits, whatever came in between."""
    numbers = [0, 5, 0, -3, 9, 5, 0, -3, 2, 9, 0]
    jobs = [new_job(priority=number) for number in numbers]
    for job in jobs:
        store.put([job])
    hands = join()
    expected = [job.id for job in sorted(jobs, key=lambda job: -job.options.priority)]
    assert [claim.id for claim in hands.take(20)] == expected


def test_priority_of_what_comes_back(store: RQStore, join: Callable[..., Hands]) -> None:
    """A job that is given back stands before its equals, not before higher ones."""
    low, high, other = new_job(), new_job(priority=5), new_job()
    store.put([low])
    hands = join()
    (claim,) = hands.take()
    store.put([other, high])
    hands.tell(given_back(claim))
    assert [claim.id for claim in hands.take()] == [high.id, low.id, other.id]


def test_queue_without_priorities_pays_nothing(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """The list of priorities goes with the last job that has one."""
    store.put([new_job(priority=3)])
    assert client.exists("rq:tq:priorities:default")
    join().run()
    assert not client.exists("rq:tq:priorities:default")


def test_cancel_many_of_a_long_queue(store: RQStore, join: Callable[..., Hands]) -> None:
    """Cancelling most of a long queue leaves the others in their order."""
    jobs = [new_job() for _ in range(3000)]
    store.put(jobs)
    gone = [job.id for index, job in enumerate(jobs) if index % 10]
    assert store.cancel(gone) == [State.CANCELLED] * len(gone)
    assert [claim.id for claim in join().take(500)] == [job.id for job in jobs[::10]]


@pytest.mark.parametrize("kill", [False, True])
def test_cancel_what_runs(store: RQStore, join: Callable[..., Hands], kill: bool) -> None:
    """The worker of a running job hears of the request, and by `heartbeat` too where the message was lost."""
    job = new_job()
    store.put([job])
    hands = join()
    hands.session.wait(0.01, -1)
    (claim,) = hands.take()
    assert store.cancel([job.id], kill=kill) == [State.RUNNING]
    control_requests = eventually(lambda: hands.session.poll([], [], 0).control_requests, "the request to come")
    assert [(request.job_id, request.kill) for request in control_requests] == [(job.id, kill)]
    hands.session.heartbeat(hands.record, [(claim.id, claim.token)])
    assert [request.job_id for request in hands.session.poll([], [], 0).control_requests] == [job.id]
    hands.tell(replace(succeeded(claim), state=State.CANCELLED, result=None))
    (record,) = store.get([job.id])
    assert record is not None
    assert record.state is State.CANCELLED


def test_retry_begins_anew(store: RQStore, join: Callable[..., Hands]) -> None:
    """A failed or cancelled job that is retried is as new; one that waits or succeeded is not touched."""
    bad, gone, good = new_job(), new_job(), new_job()
    store.put([bad, gone, good])
    hands = join()
    store.cancel([gone.id])
    one, two = hands.take()
    hands.tell(failed(one), succeeded(two))
    assert store.retry([bad.id, gone.id, good.id, "nobody"]) == [True, True, False, False]
    records = [record for record in store.get([bad.id, gone.id]) if record]
    assert [(record.state, record.attempts, record.failure) for record in records] == [(State.QUEUED, 0, None)] * 2
    assert hands.run() == [bad.id, gone.id]
    assert store.client.command("TTL", f"rq:job:{bad.id}") > 80_000


def test_remove_leaves_nothing(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A removed job leaves no key; one that runs is not removed."""
    job, running = new_job(key="k", expires=60), new_job()
    store.put([job])
    hands = join()
    hands.run()
    store.put([running])
    hands.take()
    assert store.remove([job.id, running.id, "nobody"]) == [True, False, False]
    assert [key for key in client.keys("*") if job.id.encode() in key] == []
    assert store.get([job.id]) == [None]
    assert client.zscore("rq:finished:default", job.id) is None


def test_queues_and_workers(store: RQStore, join: Callable[..., Hands]) -> None:
    """Queues tell how many jobs stand where; workers tell what they are and have done."""
    store.put([new_job(), new_job(), new_job(delay=60)])
    hands = join(queues=("default", "empty"))
    (claim,) = hands.take(1)
    found = {queue.name: queue for queue in store.queues()}
    assert set(found) == {"default", "empty"}
    counts = found["default"].counts
    assert (counts[State.QUEUED], counts[State.RUNNING], counts[State.SCHEDULED]) == (1, 1, 1)
    assert found["default"].oldest_at is not None
    (worker,) = store.workers()
    assert (worker.name, worker.queues, worker.processes, worker.running) == ("w1", ("default", "empty"), 2, 1)
    hands.tell(succeeded(claim))
    (worker,) = store.workers()
    assert (worker.running, worker.succeeded, worker.failed, worker.version) == (0, 1, 0, "1.0")


def test_result_ttl(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """Ended jobs are kept as long as they say, and every key of theirs ends; with 0 they are forgotten at once."""
    kinds = {"none": new_job(), "short": new_job(result_ttl=60), "zero": new_job(result_ttl=0)}
    store.put(list(kinds.values()))
    join().run()
    assert client.ttl(f"rq:job:{kinds['none'].id}") == 86_400
    assert client.ttl(f"rq:results:{kinds['short'].id}") == 60
    assert store.get([kinds["zero"].id]) == [None]
    assert [key for key in client.keys("*") if kinds["zero"].id.encode() in key] == []
    assert all(client.ttl(key) > 0 for key in client.keys("rq:job:*") + client.keys("rq:results:*"))


def test_prefix(url: str) -> None:
    """Stores with different prefixes in one database know nothing of each other."""
    one, two = RQStore(f"{url}?prefix=one"), RQStore(f"{url}?prefix=two")
    try:
        job = new_job()
        one.put([job])
        assert two.get([job.id]) == [None]
        assert {key.decode().partition(":")[0] for key in one.client.command("KEYS", "*")} == {"one"}
    finally:
        one.close()
        two.close()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("prefx=x", "did you mean prefix"),
        ("prefix=a b", "letters, digits"),
        ("allow_pickle=perhaps", "allow_pickle"),
    ],
)
def test_bad_settings(query: str, words: str) -> None:
    """A setting that is unknown or senseless is refused, with the cure and without the password."""
    with pytest.raises(ConfigError, match=words) as caught:
        RQStore(f"redis://ann:s3cret@localhost/0?{query}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("server", ["redis", "valkey"])
def test_doctor_names_the_server(fresh_url: Callable[..., str], server: str) -> None:
    """The doctor calls Redis Redis and Valkey Valkey, each by its own version."""
    binary = installed() if server == "redis" else bundled()
    if binary is None:
        pytest.skip(f"there is no {server}-server here")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split("v=")[1]
    made = RQStore(fresh_url(server))
    try:
        (text,) = [finding.text for finding in made.doctor() if finding.topic == "version"]
    finally:
        made.close()
    assert text.startswith(f"{server.capitalize()} {version.split()[0]}")


def test_doctor(store: RQStore) -> None:
    """The doctor says what is wrong with a Redis without persistence and workers, and the cure."""
    found = {finding.topic: finding for finding in store.doctor()}
    assert found["version"].level == "ok"
    assert found["durability"].level == "warning"
    assert "appendonly" in found["durability"].cure
    assert found["workers"].level == "warning"
    assert found["eviction"].level == found["transport"].level == found["clock"].level == "ok"
