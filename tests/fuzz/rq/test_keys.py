"""Garbage in Redis: one bad entry is one bad entry, and the good job behind it runs.

Fields are those of `keys.FIELDS` and keys those of `keys.KEYS`: a new one is attacked by being there.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import BackendUnavailable, TaskqError
from taskq.executors.rq.ends import read_news
from taskq.executors.rq.keys import FIELDS, KEYS, STATUSES
from taskq.states import State
from tests.fuzz.amounts import counts
from tests.rq.hands import Hands, again, failed, given_back, new_job, succeeded
from tests.subscriber import Subscriber
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.rq.store import RQStore
    from tests.fuzz.garbage import Garbage

#: Values of one batch; then a good job is put behind them, and has to run.
BATCH = 500

#: Ways in which a worker tells of a job.
WAYS: tuple[Callable[..., Any], ...] = (succeeded, failed, again, given_back)


def poisoned(garbage: Garbage, client: Any, ids: list[str]) -> None:
    """Put garbage into one field of each of these jobs, sometimes with another status or without our fields."""
    names, pick = sorted(set(FIELDS.values())), garbage.random
    pipe = client.pipeline(transaction=False)
    for job_id in ids:
        key, field = f"rq:job:{job_id}", pick.choice(names)
        if pick.random() < 0.6:
            pipe.hset(key, "tq_rare", "1")
        if pick.random() < 0.2:
            pipe.hdel(key, "tq_task")
        if pick.random() < 0.1:
            pipe.hset(key, "status", pick.choice(sorted(STATUSES.values())))
        if pick.random() < 0.1:
            pipe.xadd(f"rq:results:{job_id}", {pick.choice(names): garbage.text() for _ in range(2)})
        pipe.hset(key, field, garbage.text())
        if pick.random() < 0.1:
            pipe.hdel(key, pick.choice(names))
        if pick.random() < 0.01:
            pipe.delete(key)
            pipe.rpush(key, "x")
    pipe.execute()


def work_off(hands: Hands, garbage: Garbage, wanted: str) -> None:
    """Claim and tell until the wanted job has come: some go back a few times, those that crashed come one by one."""
    for turn in range(2 * BATCH):
        claims = hands.take(200)
        if not claims:
            hands.session.heartbeat(hands.record, [])  # as a worker does that holds nothing
        ways = WAYS if turn < 5 else WAYS[:2]  # in the end each has to end
        bad = [claim for claim in claims if claim.id != wanted]
        hands.tell(*(garbage.random.choice(ways[1:] if claim.foreign else ways)(claim) for claim in bad))
        good = [claim for claim in claims if claim.id == wanted]
        if good:
            assert not hands.tell(succeeded(good[0])).fenced
            return
    raise AssertionError("the good job was not reached")


@counts(3_000, 650_000)
def test_fields(store: RQStore, join: Callable[..., Hands], client: Any, garbage: Garbage, total: int) -> None:
    """Garbage in a field of a job costs that job at most: workers and all that reads go on."""
    hands = join()
    while garbage.count < total:
        ids = store.put([new_job() for _ in range(BATCH)])
        (good,) = store.put([new_job()])
        poisoned(garbage, client, ids)
        work_off(hands, garbage, good)
        found = store.get([*ids, good], payload=True)
        assert found[-1] is not None
        assert found[-1].state is State.SUCCEEDED
        for state in State:
            store.list(states=[state], limit=50)
        store.queues(), store.workers()
        store.cancel(ids[:50])
        store.retry(ids[50:100])
        store.remove(ids[100:150])
        store.log(ids[0])
        hands.session.remains(), hands.run_maintenance()
        hands.session.heartbeat(hands.record, [])
        client.flushdb()


@counts(1_000, 100_000)
def test_members(store: RQStore, join: Callable[..., Hands], client: Any, garbage: Garbage, total: int) -> None:
    """Garbage among the members of any key, of the kind that the key has, keeps no good job from running."""
    while garbage.count < total:
        hands = join(f"w{garbage.count}")
        store.put([new_job() for _ in range(5)])
        hands.take(2)
        for _ in range(60):
            _spoil(client, garbage)
        (good,) = store.put([new_job(priority=5)])
        work_off(hands, garbage, good)
        store.list(), store.queues(), store.workers(), store.some_queues(10)
        hands.session.remains(), hands.run_maintenance()
        hands.session.heartbeat(hands.record, [])
        client.flushdb()


def _spoil(client: Any, garbage: Garbage) -> None:
    """Put garbage into a key that is there, or into one that is not."""
    pick = garbage.random
    name = pick.choice(sorted(KEYS))
    if name in {"PAUSED", "SUSPENDED", "LEASES"}:  # the first two are orders; without its lease a worker is dead
        return
    key = KEYS[name].replace("{p}", "rq") + pick.choice(("default", "w1", "a", ""))
    kind = client.type(key)
    garble = garbage.text()[:200]
    if kind == b"none":
        kind = KINDS.get(name) or pick.choice((b"list", b"set", b"zset", b"hash", b"stream"))
    if kind == b"list":
        client.lpush(key, garble)
    elif kind == b"set":
        client.sadd(key, garble)
    elif kind == b"zset":
        client.zadd(key, {garble: pick.choice((0, -1, 1e308, float("inf"), 5))})
    elif kind == b"hash":
        client.hset(key, pick.choice(sorted(set(FIELDS.values()))), garble)
    elif kind == b"stream":
        client.xadd(key, {garble or b"x": garble})
    else:
        client.set(key, garble)


#: The kinds of keys that all who look read; another kind there is like an absent store, see `test_kinds`.
KINDS = {
    "QUEUE": b"list",
    **dict.fromkeys(("WIP", "FINISHED", "FAILED", "CANCELED", "DEFERRED", "SCHEDULED", "READY"), b"zset"),
    **dict.fromkeys(("PRIORITIES", "EXPIRIES"), b"zset"),
    **dict.fromkeys(("QUEUES", "WORKERS", "WORKERS_OF", "PARKED", "RATE_KEYS", "GROUP", "GROUPS"), b"set"),
    **dict.fromkeys(("JOB", "WORKER"), b"hash"),
    **dict.fromkeys(("KEY", "LOG"), b"string"),
}


@pytest.mark.parametrize("name", sorted(KEYS))
def test_kinds(store: RQStore, join: Callable[..., Hands], client: Any, name: str) -> None:
    """A key that holds another kind of thing is refused in words or passed over; when it is gone all goes on."""
    hands = join()
    (early,) = store.put([new_job()])
    for end in ("", "default", "w1", early):
        key = KEYS[name].replace("{p}", "rq") + end
        kept = client.dump(key)
        client.delete(key)
        client.rpush(key, "x") if name != "QUEUE" else client.set(key, "x")
        if name == "SUSPENDED":
            client.delete(key)
            client.sadd(key, "x")
        for call in (
            *(hands.take, hands.run_maintenance, hands.session.remains, store.list, store.queues, store.workers),
            *(store.doctor, lambda: store.get([early], payload=True), lambda: store.cancel(["none"])),
            lambda: store.put([new_job()]),
        ):
            with contextlib.suppress(BackendUnavailable):
                call()
        client.delete(key)
        if kept is not None:
            client.restore(key, 0, kept)
    client.flushdb()
    late = Hands(store, "late", ("default",))
    (good,) = store.put([new_job()])
    assert [claim.id for claim in late.take()] == [good]
    late.close()


@counts(3_000, 100_000)
def test_messages(store: RQStore, join: Callable[..., Hands], client: Any, garbage: Garbage, total: int) -> None:
    """Garbage on every channel of a worker is passed over: it hears, and runs the job behind it."""
    hands = join()
    channels = [channel for channel in client.pubsub_channels() if b"__" not in channel]
    assert len(channels) >= 3
    while garbage.count < total:
        pipe = client.pipeline(transaction=False)
        for _ in range(BATCH):
            text = garbage.text()
            if garbage.random.random() < 0.3:
                command = garbage.random.choice((b"stop-job", b"stop-execution", b"x", b"kill"))
                text = b'{"command": "%b", "job_id": %b, "execution_id": %b}' % (command, text, text)
            pipe.publish(garbage.random.choice(channels), text)
        pipe.execute()
        (good,) = store.put([new_job()])
        work_off(hands, garbage, good)


@counts(2_000, 100_000)
def test_replies(store: RQStore, join: Callable[..., Hands], client: Any, garbage: Garbage, total: int) -> None:
    """Garbage among the news for a client costs no news of others."""
    hands, subscription = join(), Subscriber(store.subscribe())
    try:
        while garbage.count < total:
            (good,) = store.put([new_job()], reply_to=subscription.reply_to)
            subscription.expect([good])
            words = (b"s1 0 %b %b", b"f1 0 %b %b", b"S1 0 %b %b", b"c1 %b 0 %b", b"%b %b")
            texts = [garbage.text() for _ in range(BATCH)]
            news = [
                garbage.random.choice(words) % (garbage.random.choice((good.encode(), b"x", text)), text)
                if garbage.random.random() < 0.5 and b"f" not in text[:1]
                else text
                for text in texts
            ]
            for one in news:
                read_news(one)
            foreign = [one for one in news if good.encode() not in one]
            client.rpush(f"rq:tq:replies:{subscription.reply_to}", *foreign)
            work_off(hands, garbage, good)
            heard: dict[str, Any] = {}
            eventually(
                lambda h=heard, g=good: h.update((e.id, e) for e in subscription.wait(0.5)) or g in h,
                "the good job's end",
            )
            assert heard[good].state is State.SUCCEEDED
    finally:
        subscription.close()


@counts(1_000, 50_000)
def test_workers(store: RQStore, client: Any, garbage: Garbage, total: int) -> None:
    """Garbage in the records of workers is shown as what can be read of it, beside the others."""
    good = Hands(store, "good", ("default",))
    try:
        while garbage.count < total:
            good.session.heartbeat(good.record, [])
            for n in range(50):
                name = f"bad{n}"
                fields = {pick: garbage.text() for pick in garbage.random.sample(sorted(set(FIELDS.values())), 4)}
                client.hset(f"rq:worker:{name}", mapping=fields)
                client.sadd("rq:workers", f"rq:worker:{name}")
                client.zadd("rq:tq:leases", {name: 4e9})
            assert "good" in {record.name for record in store.workers()}
            store.queues()
            good.run_maintenance()
            client.delete(*(f"rq:worker:bad{n}" for n in range(50)))
    finally:
        with contextlib.suppress(TaskqError):
            good.close()
