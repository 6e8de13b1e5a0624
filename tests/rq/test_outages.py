"""What Redis itself can do to us: restarts, limits, replicas, silence."""

from __future__ import annotations

from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from taskq import TaskQueue
from taskq.errors import BackendUnavailable, ConfigError, QueueFull
from taskq.executors.rq.guest import _Reporter
from taskq.executors.rq.keys import Keys
from taskq.executors.rq.store import RQStore
from taskq.retry import Retry
from taskq.states import Reason, State
from taskq.store import ProgressUpdate
from tests.proxy import Proxy
from tests.redis_server import RedisServer, free_port
from tests.rq.hands import Hands, new_job, succeeded
from tests.sample_tasks import add
from tests.sample_trust import note_all
from tests.subscriber import Subscriber
from tests.waiting import PATIENCE, eventually
from tests.worker_process import IMPORTS, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Give a server of this test's own, without persistence."""
    with RedisServer(tmp_path / "redis") as made:
        yield made


@pytest.fixture
def place(server: RedisServer) -> Iterator[RQStore]:
    """Give a store on it."""
    made = RQStore(server.url())
    yield made
    made.close()


def test_nobody_there() -> None:
    """A Redis that is not there is said at once, with its URL, without the password, and what to do."""
    store = RQStore(f"redis://ann:s3cret@127.0.0.1:{free_port()}/0")
    start = monotonic()
    with pytest.raises(BackendUnavailable) as caught:
        store.put([new_job()])
    assert monotonic() - start < 5
    assert "ann:***@127.0.0.1" in str(caught.value)
    assert "is redis-server running" in str(caught.value)
    assert "s3cret" not in repr(caught.value) + repr(store) + repr(store.address)


def test_what_stands_in_the_way_is_said(server: RedisServer) -> None:
    """A Redis that is there is not told to be missing: what the URL has wrong is named."""
    here = f"127.0.0.1:{server.port}"
    for url, cure in (
        (f"redis://:needless@{here}/0", "it has no password"),
        (f"redis://somebody:wrong@{here}/0", "refuses the user or the password"),
        (f"redis://{here}/99999999", "no database of that number"),
        (f"unix:///no/such/socket{server.port}", "unixsocket"),
        ("redis://no-such-host.invalid/0", "host"),
    ):
        with pytest.raises(BackendUnavailable, match=cure) as caught:
            RQStore(url).queues()
        assert "is redis-server running" not in str(caught.value) or "unixsocket" in str(caught.value)


@pytest.mark.parametrize("place", ["/staging", "/1/2", "/-1", "/1x", "?db=x", "/1?db=2", "/%31a"])
def test_a_database_is_a_number(place: str) -> None:
    """A database that is no number, or two, are refused: redis-py would take another one."""
    with pytest.raises(ConfigError, match="database"):
        RQStore(f"redis://127.0.0.1:1{place}")


@pytest.mark.parametrize("place", ["", "/", "/0", "/15/", "/3?db=3", "?db=7"])
def test_databases_by_number(place: str) -> None:
    """All ways to name one by its number are taken."""
    RQStore(f"redis://127.0.0.1:1{place}").close()


def test_wrong_password(server: RedisServer, place: RQStore) -> None:
    """A password that is missing or wrong is said as such, never shown."""
    server.command("CONFIG", "SET", "requirepass", "right")
    wrong = RQStore(f"redis://:wr0ng@127.0.0.1:{server.port}/0")
    for store in (place, wrong):
        with pytest.raises(BackendUnavailable, match=r"password|WRONGPASS|invalid username") as caught:
            store.queues()
        assert "wr0ng" not in str(caught.value)
    right = RQStore(f"redis://:right@127.0.0.1:{server.port}/0")
    assert right.queues() == []
    right.close()


def test_restart_with_data(tmp_path: Path) -> None:
    """After a restart with AOF everything goes on: idle connections, workers, subscriptions, what runs."""
    with RedisServer(tmp_path / "redis", appendonly=True) as server:
        store = RQStore(server.url())
        subscription, hands = Subscriber(store.subscribe()), Hands(store, "w1", ("default",))
        jobs = [new_job(), new_job()]
        store.put(jobs, reply_to=subscription.reply_to)
        subscription.expect([job.id for job in jobs])
        (claim,) = hands.take(1)
        assert subscription.wait(0.05) == []
        hands.session.wait(0.01, -1)
        server.restart()
        assert hands.session.heartbeat(hands.record, [(claim.id, claim.token)]) == []
        assert not hands.tell(succeeded(claim)).fenced
        assert len(hands.run()) == 1
        found: list[str] = []

        def all_heard() -> bool:
            found.extend(ended.id for ended in subscription.wait(0.5))
            return len(found) == 2

        eventually(all_heard, "both ends to be heard")
        assert set(found) == {job.id for job in jobs}
        assert hands.session.run_maintenance() == 0
        subscription.close()
        hands.close()
        store.close()


def test_restart_without_data(server: RedisServer, place: RQStore) -> None:
    """After a restart that lost everything the worker is one again, and clients are told that their jobs are lost."""
    subscription, hands = Subscriber(place.subscribe()), Hands(place, "w1", ("default",))
    job = new_job()
    place.put([job], reply_to=subscription.reply_to)
    subscription.expect([job.id])
    (claim,) = hands.take()
    assert subscription.wait(0.05) == []
    server.restart()
    assert hands.session.heartbeat(hands.record, [(claim.id, claim.token)]) == [job.id]
    assert list(hands.tell(succeeded(claim)).fenced) == [job.id]
    (ended,) = eventually(lambda: subscription.wait(0.5), "the loss to be told", within=5)
    assert ended.failure is not None
    assert ended.failure.reason is Reason.LOST
    assert [worker.name for worker in place.workers()] == ["w1"]
    place.put([new_job()])
    assert len(hands.run()) == 1
    subscription.close()
    hands.close()


def test_nothing_is_lost_while_redis_is_away(server: RedisServer, place: RQStore) -> None:
    """A subscription tells nothing of its jobs while Redis is away, however long it asks."""
    subscription = Subscriber(place.subscribe())
    job = new_job()
    place.put([job], reply_to=subscription.reply_to)
    subscription.expect([job.id])
    server.stop()
    start = monotonic()
    assert subscription.wait(1.5) == []
    assert monotonic() - start >= 1.4
    subscription.close()


def test_silent_redis(server: RedisServer, place: RQStore) -> None:
    """A Redis that stops answering is noticed within 5 s by a call, and by a subscription and a worker that wait."""
    hands, subscription = Hands(place, "w1", ("default",)), Subscriber(place.subscribe())
    assert hands.take() == []
    assert subscription.wait(0.05) == []
    hands.session.wait(0.01, -1)
    server.freeze()
    start = monotonic()
    with pytest.raises(BackendUnavailable, match="no answer"):
        hands.session.poll([], [], 1)
    assert monotonic() - start < 6
    server.thaw()
    job = new_job()
    place.put([job], reply_to=subscription.reply_to)
    subscription.expect([job.id])
    assert eventually(hands.run, "the worker to go on") == [job.id]
    assert [ended.id for ended in eventually(lambda: subscription.wait(0.5), "the subscription to go on")] == [job.id]
    subscription.close()
    hands.close()


def test_memory_limit(server: RedisServer, place: RQStore) -> None:
    """At maxmemory a put is refused, claims and ends go on, and whoever waits hears of them."""
    hands = Hands(place, "w1", ("default",))
    place.put([new_job() for _ in range(5)])
    claims = hands.take(2)
    server.command("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(QueueFull, match="maxmemory"):
        place.put([new_job()])
    with pytest.raises(QueueFull, match="maxmemory"):
        place.put([new_job(priority=3)])
    subscription = Subscriber(place.subscribe())
    subscription.expect([claim.id for claim in claims])
    update = ProgressUpdate(id=claims[0].id, token=claims[0].token, log=b"x")
    found = hands.session.poll([succeeded(claim) for claim in claims], [update], 1)
    assert (len(found.claims), list(found.fenced)) == (1, [])
    assert hands.session.begin([(one.id, one.token) for one in found.claims]) == []
    assert {ended.id for ended in subscription.wait(5)} == {claim.id for claim in claims}
    subscription.close()
    assert not hands.tell(*(succeeded(claim) for claim in found.claims)).fenced
    records = place.get([claim.id for claim in claims], payload=True)
    assert [record and record.state for record in records] == [State.SUCCEEDED, State.SUCCEEDED]
    assert hands.session.heartbeat(hands.record, []) == []
    assert hands.session.run_maintenance() == 0
    waiting = place.list(states={State.QUEUED})
    assert place.cancel([waiting[0].id]) == [State.CANCELLED]
    assert place.remove([waiting[0].id]) == [True]
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert len(hands.run()) == 1
    hands.close()


def test_burst_at_the_memory_limit(server: RedisServer, tmp_path: Path) -> None:
    """At maxmemory a burst works off what is kept, with dependents, retries and notes, and stays on its connections."""
    with TaskQueue(server.url()) as queue:
        jobs = [queue.submit(add, 1, 2)]
        jobs += [queue.options(retry=Retry(2, delay=0)).submit(note_all) for _ in range(3)]
        for _ in range(20):
            jobs.append(queue.submit(add, jobs[-1 if jobs[4:] else 0], 1))
        server.command("CONFIG", "SET", "maxmemory", "1")
        before = server.command("INFO", "stats")["total_connections_received"]
        worker = WorkerProcess(server.url(), tmp_path, imports=(*IMPORTS, "tests.sample_trust"), arguments=("--burst",))
        try:
            worker.start()
            assert worker.wait() == 0, worker.log()
        finally:
            worker.close()
        assert [job.state for job in jobs] == [State.SUCCEEDED] * len(jobs)
        assert jobs[-1].result(PATIENCE) == 23
        assert server.command("INFO", "stats")["total_connections_received"] - before < len(jobs)


def test_notes_in_a_stock_worker_at_the_memory_limit(server: RedisServer) -> None:
    """What a job of ours says of itself in a stock worker is lost at maxmemory, and does not fail the job."""
    with server.client() as client:
        reporter = _Reporter(client, Keys("rq"), SimpleNamespace(key="rq:job:x", id="x"))
        server.command("CONFIG", "SET", "maxmemory", "1")
        reporter.progress(0, 1, 3)
        reporter.log(0, "text")
        reporter.tell_meta(0, {"page": 1})
        assert client.keys() == []


def test_replica(server: RedisServer, place: RQStore) -> None:
    """A server that became a replica is said as such, and what was told then is told again when it is a master."""
    hands = Hands(place, "w1", ("default",))
    place.put([new_job()])
    (claim,) = hands.take()
    server.command("CONFIG", "SET", "replica-serve-stale-data", "yes")
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    with pytest.raises(BackendUnavailable, match="replica"):
        place.put([new_job()])
    with pytest.raises(BackendUnavailable, match="replica"):
        hands.tell(succeeded(claim))
    assert {finding.topic: finding.level for finding in place.doctor()}["role"] == "problem"
    server.command("REPLICAOF", "NO", "ONE")
    assert not hands.tell(succeeded(claim)).fenced
    (record,) = place.get([claim.id])
    assert record is not None
    assert record.state is State.SUCCEEDED
    hands.close()


def test_scripts_are_loaded_again(server: RedisServer, place: RQStore) -> None:
    """A server that forgot the scripts gets them again."""
    place.put([new_job()])
    server.command("SCRIPT", "FLUSH")
    hands = Hands(place, "w1", ("default",))
    assert len(hands.run()) == 1
    server.command("SCRIPT", "FLUSH")
    place.put([new_job()])
    assert len(hands.run()) == 1
    hands.close()


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_lost_replies_in_a_long_put(server: RedisServer, lost: int) -> None:
    """A put of many steps whose replies are lost on the way keeps each job once, in their order."""
    with Proxy(("127.0.0.1", server.port)) as proxy:
        store = RQStore(f"redis://127.0.0.1:{proxy.port}/0")
        jobs = [new_job() for _ in range(2000)]
        store.put([new_job(queue="other")])
        proxy.drop_replies(lost, b"EVALSHA")
        try:
            kept = store.put(jobs)
        except BackendUnavailable:
            kept = store.put(jobs)  # as its docstring says
        assert proxy.drops_left == 0
        assert kept == [job.id for job in jobs]
        assert store.client.command("LRANGE", "rq:queue:default", 0, -1) == [job.id.encode() for job in jobs]
        store.close()


def test_fork(server: RedisServer, place: RQStore) -> None:
    """A forked process uses connections of its own; the parent's go on."""
    import os  # noqa: PLC0415  # only this test forks

    place.put([new_job()])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            place.put([new_job()])
            code = 0
        finally:
            os._exit(code)
    for _ in range(50):
        place.put([new_job()])
    assert os.waitpid(child, 0)[1] == 0
    (queue,) = place.queues()
    assert queue.counts[State.QUEUED] == 52


def test_eviction_is_a_problem(server: RedisServer, place: RQStore) -> None:
    """The doctor says when Redis may throw jobs away, or has no room left."""
    server.command("CONFIG", "SET", "maxmemory", "1mb")
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    levels: dict[str, Any] = {finding.topic: finding.level for finding in place.doctor()}
    assert (levels["eviction"], levels["memory"]) == ("problem", "problem")
