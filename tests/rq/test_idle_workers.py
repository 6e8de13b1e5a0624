"""A job that is put alone is handed to a worker that is registered at its queue, and to no other; none is lost."""

from __future__ import annotations

import random
import threading
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from taskq.errors import BackendUnavailable
from taskq.executors.rq.store import RQStore
from taskq.states import State
from tests.proxy import Proxy
from tests.rq.golden import state
from tests.rq.hands import Hands, again, given_back, new_job, succeeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq.store import Claim
    from tests.redis_server import RedisServer

#: Far above what any wait below takes.
LONG = 20.0


def registered(hands: Hands) -> Hands:
    """Have a worker find its queues empty, and listen."""
    assert hands.take() == []
    hands.session.wait(0.01, -1)
    return hands


def handed(hands: Hands) -> list[str]:
    """Return the jobs that come to a worker without its asking."""
    before = hands.session.claim_request
    hands.session.claim_request = lambda _: None  # type: ignore[method-assign]
    hands.session.wait(0.2, -1)
    try:
        return [claim.id for claim in hands.session.poll([], [], 2).claims]
    finally:
        hands.session.claim_request = before  # type: ignore[method-assign]


def states(store: RQStore, *ids: str) -> list[State | None]:
    """Return where jobs stand."""
    return [record and record.state for record in store.get(ids)]


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """Give a way to the server with faults."""
    with Proxy((redis_server.host, redis_server.port)) as found:
        yield found


def through(proxy: Proxy, redis_server: RedisServer) -> tuple[RQStore, RQStore]:
    """Return stores on one empty database: by way of the proxy, and straight."""
    database = redis_server.fresh_database()
    return (
        RQStore(f"redis://{proxy.host}:{proxy.port}/{database}"),
        RQStore(f"redis://{redis_server.host}:{redis_server.port}/{database}"),
    )


def test_it_is_handed_over(store: RQStore, join: Callable[..., Hands]) -> None:
    """The put starts the job in the worker's name; the worker hears of it, and need not ask."""
    hands = registered(join(queues=("a", "b")))
    (job_id,) = store.put([new_job(queue="b")])
    assert states(store, job_id) == [State.RUNNING]
    assert store.client.command("LLEN", "rq:queue:b") == 0
    hands.session.wait(LONG, -1)
    (claim,) = hands.session.poll([], [], 2).claims
    assert (claim.id, claim.queue, claim.attempt) == (job_id, "b", 1)
    assert hands.tell(succeeded(claim)).fenced == []
    (record,) = store.get([job_id])
    assert record is not None
    assert (record.state, record.attempts, record.crashes) == (State.SUCCEEDED, 1, 0)


def test_it_parks_with_what_it_tells(store: RQStore, join: Callable[..., Hands]) -> None:
    """A worker that tells how a job ended, and wants more, is handed the next one, again and again."""
    hands = registered(join())
    for _ in range(5):
        (job_id,) = store.put([new_job()])
        assert states(store, job_id) == [State.RUNNING]
        hands.session.wait(LONG, -1)
        (claim,) = hands.session.poll([], [], 2).claims
        assert hands.session.poll([succeeded(claim)], [], 2).claims == []


@pytest.mark.parametrize(
    "options",
    [{"delay": 60.0}, {"priority": 1}, {"priority": -1}, {"key": "k"}, {"expires": 60.0}, {"queue": "other"}],
    ids=lambda options: next(iter(options)),
)
def test_others_wait(store: RQStore, join: Callable[..., Hands], options: dict[str, Any]) -> None:
    """A job with options that few jobs have, or of a queue that is not the worker's, goes its usual way."""
    hands = registered(join())
    (job_id,) = store.put([new_job(**options)])
    assert states(store, job_id) in ([State.QUEUED], [State.SCHEDULED])
    assert handed(hands) == []


def test_many_wait(store: RQStore, join: Callable[..., Hands]) -> None:
    """Jobs that are put together wait in their queue: one worker must not get what others could run."""
    hands = registered(join())
    ids = store.put([new_job(), new_job()])
    assert states(store, *ids) == [State.QUEUED] * 2
    assert handed(hands) == []


def test_one_only(store: RQStore, join: Callable[..., Hands]) -> None:
    """Until a worker has registered anew it is handed one job; the next waits in the queue, as the one behind."""
    hands = registered(join())
    ids = [store.put([new_job()])[0] for _ in range(3)]
    assert states(store, *ids) == [State.RUNNING, State.QUEUED, State.QUEUED]
    assert handed(hands) == ids[:1]
    assert [claim.id for claim in hands.take()] == ids[1:]


def test_order(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """No job is handed over past one that waits already, whoever has put it there."""
    hands = registered(join())
    client.rpush("rq:queue:default", "somebody-elses")
    (job_id,) = store.put([new_job()])
    assert states(store, job_id) == [State.QUEUED]
    assert handed(hands) == []


def test_each_gets_one(store: RQStore, join: Callable[..., Hands]) -> None:
    """Several registered workers get one job each."""
    fleet = [registered(join(f"w{number}")) for number in range(4)]
    ids = {store.put([new_job()])[0] for _ in range(4)}
    found = [handed(hands) for hands in fleet]
    assert [len(some) for some in found] == [1] * 4
    assert {job_id for some in found for job_id in some} == ids


def test_nothing_free(store: RQStore, join: Callable[..., Hands]) -> None:
    """A worker whose processes all have work is handed nothing, though it would take more."""
    hands = join()
    first = store.put([new_job(), new_job()])
    assert len(hands.take(10)) == len(first)
    assert hands.take(10) == []
    hands.session.wait(0.01, -1)
    (job_id,) = store.put([new_job()])
    assert states(store, job_id) == [State.QUEUED]


def test_wants_nothing(store: RQStore, join: Callable[..., Hands]) -> None:
    """A registered worker that wants no more, as it is about to stop, is handed nothing; what it was handed it gets."""
    hands = registered(join())
    assert hands.take(0) == []
    (job_id,) = store.put([new_job()])
    assert states(store, job_id) == [State.QUEUED]
    assert [claim.id for claim in hands.take()] == [job_id]
    registered(hands)
    (late,) = store.put([new_job()])
    assert [claim.id for claim in hands.take(0)] == [late]


@pytest.mark.parametrize("how", ["pause", "suspend"])
def test_paused(store: RQStore, join: Callable[..., Hands], client: Any, how: str) -> None:
    """While its queue is paused, or RQ's workers are suspended, no job starts."""
    hands = registered(join())
    if how == "pause":
        store.pause("default")
    else:
        client.set("rq:suspended", 1)
    (job_id,) = store.put([new_job()])
    assert states(store, job_id) == [State.QUEUED]
    store.resume("default")
    client.delete("rq:suspended")
    assert [claim.id for claim in hands.take()] == [job_id]


def test_nobody_listens(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A worker that does not listen is handed nothing, even while somebody watches all channels."""
    hands = registered(join())
    hands.session.notifications.close()
    with client.pubsub() as monitor:
        monitor.psubscribe("*")
        monitor.get_message(timeout=LONG)
        (job_id,) = store.put([new_job()])
    assert states(store, job_id) == [State.QUEUED]
    assert [claim.id for claim in hands.take()] == [job_id]


def test_too_long_ago(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A worker that has not renewed its lease in time is handed nothing; a renewal keeps it registered."""
    hands = registered(join())
    base, _ = client.hget("rq:worker:w1", "tq_parked").split()
    client.hset("rq:worker:w1", "tq_parked", base + b" 1")
    (first,) = store.put([new_job()])
    assert states(store, first) == [State.QUEUED]
    assert hands.run() == [first]
    registered(hands)
    base, until = client.hget("rq:worker:w1", "tq_parked").split()
    client.hset("rq:worker:w1", "tq_parked", base + b" 1")
    assert hands.session.heartbeat(hands.record, []) == []
    assert float(client.hget("rq:worker:w1", "tq_parked").split()[1]) >= float(until)
    (second,) = store.put([new_job()])
    assert states(store, second) == [State.RUNNING]


def test_dead(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """What a worker was handed that died goes on elsewhere; nothing more is handed to it, nor kept of it."""
    hands = registered(join())
    (job_id,) = store.put([new_job()])
    hands.die()
    other = join("w2")
    assert other.run_maintenance() == 1
    assert other.run() == [job_id]
    assert client.smembers("rq:tq:parked:default") == {b"w2"}


def test_leaving(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """What a worker was handed that leaves without having heard of it is back in its queue, its attempt not counted."""
    hands = registered(join())
    (job_id,) = store.put([new_job()])
    hands.session.leave()
    (record,) = store.get([job_id])
    assert record is not None
    assert (record.state, record.attempts, record.crashes) == (State.QUEUED, 0, 0)
    assert client.keys("rq:tq:parked:*") == []


# -- faults


def test_lost_word(redis_server: RedisServer, proxy: Proxy) -> None:
    """When the word of a hand-over is lost with the connection, the next claim brings the job, once."""
    way, straight = through(proxy, redis_server)
    hands = registered(Hands(way, "w1", ("default",)))
    proxy.freeze(up=False)
    (job_id,) = straight.put([new_job()])
    assert states(straight, job_id) == [State.RUNNING]
    proxy.reset()
    proxy.heal()
    hands.session.wait(0.5, -1)
    claims = hands.take()
    assert [claim.id for claim in claims] == [job_id]
    assert hands.take() == []
    assert hands.tell(*map(succeeded, claims)).fenced == []
    hands.close()
    way.close()
    straight.close()


def test_word_after_the_claim(store: RQStore, join: Callable[..., Hands]) -> None:
    """A claim that is sent before the word of a hand-over is read brings the job; the word then brings nothing."""
    hands = registered(join())
    (job_id,) = store.put([new_job()])
    assert [claim.id for claim in hands.take()] == [job_id]
    assert handed(hands) == []


def test_word_that_never_comes(store: RQStore, join: Callable[..., Hands]) -> None:
    """When the word of a hand-over is lost and nothing else, the next renewal has the worker look for it."""
    hands = registered(join())
    (job_id,) = store.put([new_job()])
    hands.session.wait(LONG, -1)
    assert len(hands.session.notifications.handed()) == 1
    assert hands.session.heartbeat(hands.record, []) == []
    start = monotonic()
    hands.session.wait(LONG, -1)
    assert monotonic() - start < LONG / 2
    assert [claim.id for claim in hands.take()] == [job_id]


def _put_two(store: RQStore) -> None:
    store.put([new_job(), new_job()])


def _put_due(store: RQStore) -> None:
    store.put([new_job(delay=0.1)])
    sleep(0.15)


@pytest.mark.parametrize("put", [_put_two, _put_due])
def test_news_beside_what_it_tells(store: RQStore, join: Callable[..., Hands], put: Callable[[RQStore], None]) -> None:
    """A worker that is registered, and tells how a job ended, gets in the same call what it has been woken for."""
    hands = join()
    store.put([new_job()])
    (claim,) = hands.take(2)
    hands.session.wait(0.01, -1)
    put(store)
    hands.session.wait(LONG, -1)
    assert hands.session.poll([succeeded(claim)], [], 2).claims


def test_news_of_what_it_tells_itself(store: RQStore, join: Callable[..., Hands]) -> None:
    """A worker that registers with a job's end, and hears that this job is due soon, asks when it is."""
    hands = join()
    store.put([new_job()])
    (claim,) = hands.take(2)
    assert not hands.session.poll([again(claim, 0.1)], [], 2).claims
    start = monotonic()
    claims: list[Claim] = []
    while not claims:
        hands.session.wait(LONG, -1)
        claims = hands.take()
    assert monotonic() - start < LONG / 2
    assert [found.id for found in claims] == [claim.id]


def test_lost_word_beside_what_it_tells(redis_server: RedisServer, proxy: Proxy) -> None:
    """A worker whose connection was lost asks for what it may have been handed, also while it has something to tell."""
    way, straight = through(proxy, redis_server)
    hands = Hands(way, "w1", ("default",))
    straight.put([new_job()])
    (claim,) = hands.take(2)
    hands.session.wait(0.01, -1)
    proxy.freeze(up=False)
    (job_id,) = straight.put([new_job()])
    assert states(straight, job_id) == [State.RUNNING]
    proxy.reset()
    proxy.heal()
    hands.session.wait(0.5, -1)
    assert [found.id for found in hands.session.poll([succeeded(claim)], [], 2).claims] == [job_id]
    hands.close()
    way.close()
    straight.close()


def test_not_where_jobs_wait(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A worker that tells how a job ended does not register while jobs wait: it has them with the next call."""
    hands = registered(join())
    ids = store.put([new_job()])
    hands.session.wait(LONG, -1)
    (claim,) = hands.session.poll([], [], 2).claims
    ids += store.put([new_job()])
    claims = list(hands.session.poll([succeeded(claim)], [], 2).claims)
    assert not client.hget("rq:worker:w1", "tq_parked")
    start = monotonic()
    hands.session.wait(LONG, -1)
    assert monotonic() - start < LONG / 2
    assert [claim.id for claim in [*claims, *hands.take()]] == ids[1:]


@pytest.mark.parametrize("junk", [b"", b"\xc1", b"junk", b"\x93\x01\x02\x03", b"\x90", b"\xff" * 1000])
def test_junk_on_the_channel(store: RQStore, join: Callable[..., Hands], client: Any, junk: bytes) -> None:
    """Bytes on its channel that hand nothing over are passed by; the worker goes on, and stays registered."""
    hands = registered(join())
    assert client.publish("rq:tq:hand:w1", junk) == 1
    assert handed(hands) == []
    (job_id,) = store.put([new_job()])
    assert states(store, job_id) == [State.RUNNING]
    assert handed(hands) == [job_id]


def test_junk_under_the_right_base(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """Whoever reads all keys can name the base; then, too, the worker lives, and no job is lost."""
    hands = registered(join())
    base = client.hget("rq:worker:w1", "tq_parked").split()[0]
    for entry in ([], [b"id"], 7, [b"id", b"t", b"q", [b""] * 6], [1, 2, 3, 4]):
        client.publish("rq:tq:hand:w1", msgpack.packb([base, b"1.0", entry], use_bin_type=False))
    assert [job_id for job_id in handed(hands) if job_id != "id"] == []
    (job_id,) = store.put([new_job()])
    assert hands.session.heartbeat(hands.record, []) in ([], ["id"])
    assert job_id in {claim.id for claim in hands.take()}


@pytest.mark.parametrize("script", ["claim", "finish"])
def test_lost_reply(redis_server: RedisServer, proxy: Proxy, script: str) -> None:
    """When the reply that tells a worker that it is registered is lost, what was handed over comes once."""
    way, straight = through(proxy, redis_server)
    hands = Hands(way, "w1", ("default",))
    hands.session.wait(0.01, -1)
    outcomes = []
    if script == "finish":
        straight.put([new_job()])
        outcomes = [succeeded(claim) for claim in hands.take(2)]
        hands.session.wait(0.01, -1)
    proxy.drop_replies(2, getattr(way.address.scripts, script).sha.encode())
    with pytest.raises(BackendUnavailable):
        hands.session.poll(outcomes, [], 2)
    assert proxy.dropped == 2
    (job_id,) = straight.put([new_job()])
    assert states(straight, job_id) == [State.RUNNING]
    found = [*hands.session.poll(outcomes, [], 2).claims, *hands.session.poll([], [], 2).claims]
    hands.session.wait(0.01, -1)
    found += hands.session.poll([], [], 2).claims
    assert [claim.id for claim in found] == [job_id]
    hands.close()
    way.close()
    straight.close()


def test_strays_go_back(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A job that was started in a worker's name, and that it never will hear of, is back with the next renewal."""
    hands = registered(join())
    client.hset("rq:worker:w1", "tq_parked", "an-older-request 9999999999")
    (job_id,) = store.put([new_job()])
    assert states(store, job_id) == [State.RUNNING]
    assert handed(hands) == []
    assert hands.take() == []
    assert hands.session.heartbeat(hands.record, []) == []
    assert states(store, job_id) == [State.QUEUED]
    assert hands.run() == [job_id]


def test_renewal_leaves_what_is_on_its_way(store: RQStore, join: Callable[..., Hands]) -> None:
    """A renewal between the hand-over and the word of it leaves the job where it is."""
    hands = registered(join())
    (job_id,) = store.put([new_job()])
    assert hands.session.heartbeat(hands.record, []) == []
    assert states(store, job_id) == [State.RUNNING]
    assert [claim.id for claim in hands.take()] == [job_id]


def test_redis_goes_away(redis_server: RedisServer, proxy: Proxy) -> None:
    """A job that a worker has heard of is its own, though Redis goes away before the worker could say anything."""
    way, straight = through(proxy, redis_server)
    hands = Hands(way, "w1", ("default",))
    straight.put([new_job()])
    (claim,) = hands.take(2)
    hands.session.wait(0.01, -1)
    (job_id,) = straight.put([new_job()])
    hands.session.wait(LONG, -1)
    proxy.cut()
    with pytest.raises(BackendUnavailable):
        hands.session.poll([succeeded(claim)], [], 2)
    proxy.heal()
    found = hands.session.poll([succeeded(claim)], [], 2)
    assert [claim.id for claim in found.claims] == [job_id]
    assert hands.tell(*map(succeeded, found.claims)).fenced == []
    hands.close()
    way.close()
    straight.close()


@pytest.mark.parametrize("seed", range(4))
def test_storm(redis_server: RedisServer, proxy: Proxy, seed: int) -> None:
    """While connections break at random, every job that was put ends, and none is told of twice."""
    way, straight = through(proxy, redis_server)
    draw = random.Random(seed)
    put: list[str] = []
    done = threading.Event()

    def submit() -> None:
        for number in range(300):
            put.extend(straight.put([new_job() for _ in range(1 + (number % 17 == 0))]))
            if draw.random() < 0.5:
                done.wait(draw.random() * 0.004)
        done.set()

    hands = Hands(way, "w1", ("default",))
    thread = threading.Thread(target=submit)
    thread.start()
    ended: list[str] = []
    pending: list[Any] = []
    chance = random.Random(seed + 100)
    while not done.is_set() or len(ended) < len(put):
        if chance.random() < 0.02:
            proxy.reset()
        elif chance.random() < 0.04:
            proxy.drop_replies(1)
        try:
            found = hands.session.poll(pending, [], 2)
            ended += [outcome.id for outcome in pending if outcome.state is State.SUCCEEDED]
            assert found.fenced == []
            pending = [given_back(claim) if chance.random() < 0.05 else succeeded(claim) for claim in found.claims]
            if not pending:
                hands.session.wait(0.02, -1)
        except BackendUnavailable:
            continue
    thread.join()
    proxy.drop_replies(0)
    assert sorted(ended) == sorted(put)
    assert set(states(straight, *put)) == {State.SUCCEEDED}
    assert straight.client.command("SCARD", "rq:worker:w1:executions") == 0
    hands.close()
    way.close()
    straight.close()


def test_same_state(redis_server: RedisServer) -> None:
    """A job that was handed over and told alone leaves the same as one that waited and was told with another."""
    found = []
    for together in (False, True):
        store = RQStore(redis_server.fresh_url())
        client = store.address.client()
        hands = Hands(store, "w1", ("default",))
        if not together:
            registered(hands)
        ids = [store.put([new_job()], reply_to="ear")[0]]
        claims = hands.take(1)
        if together:
            ids += store.put([new_job()], reply_to="ear")
            claims += hands.take(1)
        assert [claim.id for claim in claims] == ids
        during = state(client, {ids[0]: "THE-JOB", claims[0].token: "TOKEN"})
        assert hands.tell(*map(succeeded, claims)).fenced == []
        assert len(client.lrange("rq:tq:replies:ear", 0, -1)) == len(ids)
        if together:
            store.remove(ids[1:])
        after = state(client, {ids[0]: "THE-JOB", claims[0].token: "TOKEN"})
        news = client.lrange("rq:tq:replies:ear", 0, 0)[0].replace(ids[0].encode(), b"THE-JOB")
        ours = {name: client.hget(f"rq:job:{ids[0]}", name) for name in ("tq_task", "tq_attempts", "tq_reply")}
        counts = client.hmget("rq:worker:w1", "successful_job_count", "state")
        found.append((after, news, ours, [int(counts[0]) - len(ids), counts[1]], during if not together else None))
        hands.close()
        client.close()
        client.connection_pool.disconnect()
        store.close()
    single, pair = found
    assert single[:4] == pair[:4]
