"""One bad entry is one bad entry: what anybody may write to Redis ends no worker, no client and no command."""

from __future__ import annotations

import contextlib
import json
import zlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from taskq.errors import BackendUnavailable, DecodeError
from taskq.executors.rq.ends import read_news
from taskq.executors.rq.records import data_of, envelope_of
from taskq.executors.rq.stock_jobs import _restored, _rq_job
from taskq.states import Reason, State
from tests.rq.hands import again, new_job, succeeded
from tests.subscriber import Subscriber
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.rq.store import RQStore
    from tests.rq.hands import Hands

DIGITS = "9" * 5000
DEEP = "[" * 100_000

#: Fields of a job's record with values that no version of ours writes.
BAD_FIELDS: list[dict[str, str]] = [
    {"tq_rare": "1", "tq_crashes": DIGITS},
    {"tq_rare": "1", "tq_retries": DIGITS, "tq_attempts": "nan"},
    {"tq_rare": "1", "tq_refused": "1e999"},
    {"tq_rare": "1", "dependency_ids": DEEP},
    {"tq_expires": "1e308", "tq_rare": "1"},
    {"result_ttl": DIGITS, "failure_ttl": "-" + DIGITS},
    {"tq_priority": DIGITS, "tq_progress": f"{DIGITS}/{DIGITS}", "created_at": "0001-01-01T00:00:00.000000Z"},
    {"tq_failure": f"C{DIGITS}", "status": "failed", "ended_at": "9999-99-99"},
    {"tq_why": "E1e999", "meta": DEEP},
]


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=[" ".join(fields) for fields in BAD_FIELDS])
def test_bad_field(store: RQStore, join: Callable[..., Hands], client: Any, fields: dict[str, str]) -> None:
    """A worker claims what is behind a damaged record, and the record can be read, listed and ended."""
    bad, good = new_job(job_id="bad"), new_job(job_id="good")
    store.put([bad, good])
    client.hset("rq:job:bad", mapping=fields)
    hands = join()
    claims = [claim.id for step in range(3) for claim in hands.take(10 - step)]
    assert "good" in claims
    assert store.get(["bad", "good"], payload=True)[1] is not None
    assert {record.id for record in store.list()} <= {"bad", "good"}


@pytest.mark.parametrize(
    "news", [b"", b"x", b"s1 0 a !!!", b"s" + DIGITS.encode() + b" 0 a ", b"f1 0 a C" + b"9" * 5000]
)
def test_bad_news(news: bytes) -> None:
    """News of an end that cannot be read is no end, or one without what is wrong in it."""
    name, end = read_news(news)
    assert name in ("", "a")
    assert end is None or end.state in (State.SUCCEEDED, State.FAILED)


def test_client_lives_on(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """Damaged news and a damaged result cost one job: the client hears of the others."""
    subscription = Subscriber(store.subscribe())
    store.put([new_job(job_id="a"), new_job(job_id="b")], reply_to=subscription.reply_to)
    subscription.expect(["a", "b"])
    client.rpush(f"rq:tq:replies:{subscription.reply_to}", b"x", b"", b"s1 0 a !!!")
    client.hset("rq:job:a", mapping={"status": "finished", "ended_at": "inf"})
    client.lrem("rq:queue:default", 1, "a")
    client.xadd("rq:results:a", {"type": "1", "return_value": "!"})
    join().run()
    heard: dict[str, Any] = {}
    eventually(
        lambda: heard.update((end.id, end) for end in subscription.wait(1.0)) or len(heard) == 2,
        "both ends to be heard",
    )
    subscription.close()
    assert heard["b"].state is State.SUCCEEDED
    assert (heard["a"].state, heard["a"].failure.reason) == (State.FAILED, Reason.UNDECODABLE)


def test_bad_commands(join: Callable[..., Hands], client: Any) -> None:
    """What is published to a worker and is no command is passed over."""
    hands = join()
    texts = [DEEP, "[", '{"command": []}', '{"command": "shutdown", "x": ' + DIGITS + "}", b"\xff\xfe"]
    texts.append(json.dumps({"command": "stop-execution", "job_id": "a", "execution_id": ["a"]}))
    for text in texts:
        client.publish("rq:pubsub:w1", text)
    client.publish("rq:pubsub:w1", '{"command": "shutdown"}')
    eventually(
        lambda: any(request.stop for request in hands.session.poll([], [], 1).control_requests),
        "the real one to be heard",
    )


@pytest.mark.parametrize("window", range(9, 16))
def test_bombs(window: int) -> None:
    """Data that grows beyond the limit is refused whatever its header says of the window it was compressed with."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    bomb = packer.compress(bytes(20_000)) + packer.flush()
    with pytest.raises(DecodeError, match=r"grows beyond 10,000 bytes.*raise max_bytes"):
        envelope_of(bomb, 10_000)
    assert envelope_of(bomb, 20_000) is None


def test_one_limit_for_every_field(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """`?max_bytes=` bounds what data becomes, of jobs of ours and of stock RQ, for workers and readers alike."""
    store.max_bytes = 10_000
    store.put([new_job(job_id=name) for name in ("ours", "ours-rare", "stock", "good")])
    bomb = data_of(bytes(20_000))
    client.hset("rq:job:ours", "data", bomb)
    client.hset("rq:job:ours-rare", mapping={"data": bomb, "tq_rare": "1"})
    client.hset("rq:job:stock", "data", zlib.compress(b'["operator.add", null, [%s1], {}]' % (b" " * 20_000)))
    client.hdel("rq:job:stock", "tq_task")
    assert [record and record.envelope for record in store.get(["ours", "stock"], payload=True)] == [b"", b""]
    *bad, good = join().take()
    assert good.refusal is None
    assert [claim.id for claim in bad] == ["ours", "ours-rare", "stock"]
    for claim in bad[:2]:
        assert "grows beyond 10,000 bytes" in str(claim.refusal)
    with pytest.raises(DecodeError, match="grows beyond 10,000 bytes"):
        bad[2].foreign.order()
    text = b64encode(zlib.compress(b"Error: " + b"x" * 20_000))
    client.xadd("rq:results:failed", {"type": "2", "exc_string": text})
    client.hset("rq:job:failed", mapping={"status": "failed", "data": b"[]"})
    (record,) = store.get(["failed"])
    assert record is not None
    assert record.failure is not None
    assert record.failure.message == ""


def test_rq_inflates_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RQ's own code, which knows no limit, gets no compressed data to read: not in other fields, not within data."""
    found: list[bytes] = []
    monkeypatch.setattr("rq.job.zlib.decompress", lambda data, *_: found.append(data) or data)
    plain = zlib.compress(b'["operator.add", null, [1, 2], {}]')
    fields = {b"data": zlib.compress(plain), b"exc_info": plain, b"result": plain, b"origin": b"default"}
    job = _restored(_rq_job("rq"), url, "a", "w", msgpack.packb(fields), 0, 1_000)
    assert job.data == plain
    assert [data for data in found if data] == []


@pytest.mark.parametrize("options", [{}, {"priority": 1}, {"delay": 60.0}, {"key": "k"}], ids=str)
@pytest.mark.parametrize(
    "key", ["rq:queue:default", "rq:wip:default", "rq:scheduled:default", "rq:tq:priorities:default"]
)
def test_key_of_another_kind(
    store: RQStore, join: Callable[..., Hands], client: Any, key: str, options: dict[str, Any]
) -> None:
    """A key that holds something else is like an absent store: no half job is left, and none is lost or passed over."""
    hands = join()
    client.delete(key)
    client.set(key, "x")
    ids = []
    for name in ("early", "second"):  # the first may be handed over to the worker
        with contextlib.suppress(BackendUnavailable):
            ids += store.put([new_job(job_id=name, **options)])
        assert (store.get([name])[0] is not None) == (name in ids)
    if key in {"rq:queue:default", "rq:wip:default"}:
        for _ in range(2):  # asked again, it is not taken for empty
            with pytest.raises(BackendUnavailable, match="holds something else"):
                hands.take()
    client.delete(key)
    ids += store.put([new_job(job_id="late", **options)])
    if "delay" not in options:
        claims = [claim.id for _ in range(2) for claim in hands.take(4)]
        assert claims == list(dict.fromkeys(ids))  # those with one key are one job


def test_a_list_of_delayed_jobs_of_another_kind(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """Jobs that wait in the queue run; then the worker says what is wrong."""
    client.set("rq:scheduled:default", "x")
    client.set("rq:queue:other", "x")
    store.put([new_job(job_id="good")])
    hands = join("w", ("other", "default"))
    assert hands.run() == ["good"]
    with pytest.raises(BackendUnavailable, match="holds something else"):
        hands.take()


def test_a_job_that_is_due_and_a_key_of_another_kind(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A job whose time has come is not lost where it cannot be moved."""
    store.put([new_job(job_id="due", delay=60.0)])
    client.zadd("rq:scheduled:default", {"due": 1})
    client.hset("rq:job:due", mapping={"rate_limit_key": "k", "rate_limit_concurrency": "1"})
    client.set("rq:rl:k", "x")
    hands = join()
    assert hands.take() == []
    assert client.zscore("rq:scheduled:default", "due") > 1


#: Jobs whose ids may stand in a queue's list many times, and what their records say then; None: there is none.
REPEATED: dict[str, dict[str, str] | None] = {
    "running": {"status": "started"},
    "finished": {"status": "finished"},
    "failed": {"status": "failed"},
    "cancelled": {"status": "canceled"},
    "gone": None,
}


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("fields", REPEATED.values(), ids=REPEATED)
def test_repeated_ids(
    store: RQStore, join: Callable[..., Hands], client: Any, fields: dict[str, str] | None, refuses: bool
) -> None:
    """Ids of jobs that run or have ended are dropped from a list, some thousands a claim, and what is behind is run."""
    store.put([new_job(job_id="bad")])
    first, second = join("w1"), join("w2")
    claim = first.take()[0]
    if fields is None:
        client.delete("rq:job:bad")
    elif fields != REPEATED["running"]:
        first.tell(succeeded(claim))
        client.hset("rq:job:bad", mapping=fields)
    repeated = 10_000
    client.lpush("rq:queue:default", *["bad"] * repeated)
    store.put([new_job(job_id="good")])
    second.session.outbox.has_refused = refuses  # then it looks at each entry before it takes it
    left = repeated + 1
    while not (claims := second.take(1)):
        before, left = left, client.llen("rq:queue:default")
        assert 1_000 <= before - left <= 4_000
        assert not second.session.notifications.is_quiet
    assert left <= 4_000
    assert [claim.id for claim in claims] == ["good"]
    assert client.zcard("rq:wip:default") == (2 if fields in (None, REPEATED["running"]) else 1)


def test_id_repeated_while_queued(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A job whose id stands in the list several times is started once, and may be queued again after that."""
    store.put([new_job(job_id="twice"), new_job(job_id="good")])
    client.lpush("rq:queue:default", *["twice"] * 50)
    hands = join()
    claims = hands.take()
    assert [claim.id for claim in claims] == ["twice", "good"]
    client.lpush("rq:queue:default", "twice")
    assert not hands.tell(again(claims[0]), succeeded(claims[1])).fenced
    assert [claim.id for claim in hands.take()] == ["twice"]


def test_said_to_run_by_nobody(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A queued job that is said to run while no execution of it is there is run: nobody else would ever do it."""
    store.put([new_job(job_id="stray")])
    client.hset("rq:job:stray", "status", "started")
    assert join().run() == ["stray"]


def test_registry_entry_that_is_no_execution(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """What stands in the registry of started jobs and names no execution is swept away, as RQ's maintenance does."""
    client.zadd("rq:wip:default", {"foo": 1, "": 1, ":": 1})
    join().run_maintenance()
    assert client.zcard("rq:wip:default") == 0


@pytest.mark.parametrize(
    "spoil",
    [
        {"origin": None},
        {"origin": None, "status": "failed"},
        {"status": "failed", "dependency_ids": '[1, {}, null, "b", ["c"]]'},
        {"rate_limit_key": "wrong", "status": "scheduled"},
        {"key": "wrong"},
    ],
    ids=str,
)
def test_one_bad_record_among_many(store: RQStore, client: Any, spoil: dict[str, str | None]) -> None:
    """A damaged record costs no other job its cancel, its retry or its removal, and a key of another kind neither."""
    client.set("rq:rl:wrong:allowed", "x")
    store.put([new_job(job_id=name) for name in ("bad", "list", "good")])
    for field, text in spoil.items():
        client.hdel("rq:job:bad", field) if text is None else client.hset("rq:job:bad", field, text)
    client.delete("rq:job:list")
    client.rpush("rq:job:list", "x")
    ids = ["bad", "list", "good"]
    assert store.cancel(ids)[-1] is State.CANCELLED
    assert store.retry(ids)[-1] is True
    assert client.lrange("rq:queue:default", 0, -1)[-1] == b"good"
    assert store.remove(ids)[-1] is True
    assert store.get(["good"]) == [None]


def test_a_dead_worker_with_damaged_keys(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """What a dead worker leaves in a key of another kind keeps no other dead worker's jobs from coming back."""
    first, second, third = join("w1"), join("w2"), join("w3")
    store.put([new_job(job_id="good")])
    assert [claim.id for claim in second.take()] == ["good"]
    first.die(), second.die()
    client.zadd("rq:tq:expiries", {"damaged": 1})
    client.rpush("rq:job:damaged", "x")
    for key in ("rq:worker:w1:executions", "rq:worker:w1", "rq:tq:parked:default"):
        client.delete(key)
        client.set(key, "x")
    assert third.run_maintenance() == 1
    client.delete("rq:tq:parked:default")  # it is like an absent store for who has nothing to do
    assert [claim.id for claim in third.take()] == ["good"]
