"""Each script is safe to repeat as it was sent, and only who holds the newest token can tell a job's outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from taskq.codec import decode, encode
from taskq.errors import BackendUnavailable, ConfigError
from taskq.executors.rq.store import RQStore
from taskq.states import Reason, State
from taskq.store import ProgressUpdate
from tests.rq.hands import Hands, again, failed, given_back, new_job, succeeded
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq.executors.rq.client import Client


class Doubled:
    """Send every request twice and hand over the second answer, as when the first one was lost on the way."""

    def __init__(self, line: Client) -> None:
        self._client = line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def call(self, script: Any, argument: Any) -> Any:
        self._client.call(script, argument)
        return self._client.call(script, argument)

    def run(self, script: Any, command: bytes) -> Any:
        self._client.run(script, command)
        return self._client.run(script, command)

    def exchange(self, requests: Any, *, partial: bool = False) -> list[Any]:
        self._client.exchange(requests, partial=partial)
        return self._client.exchange(requests, partial=partial)


@pytest.fixture
def doubled(url: str) -> Iterator[RQStore]:
    """Give a store all of whose requests are sent twice."""
    made = RQStore(url)
    made.client = Doubled(made.client)  # type: ignore[assignment]
    yield made
    made.close()


def dump(client: Any) -> dict[str, Any]:
    """Return all that is in the database but times."""
    found: dict[str, Any] = {}
    for key in sorted(client.keys("*")):
        kind = client.type(key)
        name = key.decode()
        if kind == b"hash":
            found[name] = {
                k: v
                for k, v in client.hgetall(key).items()
                if not k.endswith((b"_at", b"heartbeat", b"birth", b"death"))
            }
        elif kind == b"list":
            found[name] = client.lrange(key, 0, -1)
        elif kind == b"zset":
            found[name] = client.zrange(key, 0, -1)
        elif kind == b"set":
            found[name] = client.smembers(key)
        elif kind == b"stream":
            found[name] = client.xlen(key)
        else:
            found[name] = client.get(key)
    return found


def test_whole_life_sent_twice(store: RQStore, doubled: RQStore, client: Any, join: Callable[..., Hands]) -> None:
    """Jobs whose every request is sent twice end with the same keys and fields as with requests sent once."""

    def live(at: RQStore) -> dict[str, Any]:
        hands = join("w", at=at)
        jobs = [new_job(job_id=f"job-{n}", result_ttl=60) for n in range(6)]
        child = new_job(job_id="child", depends_on=["job-0"])
        keyed = new_job(job_id="keyed", key="k", if_exists="reject", priority=2)
        at.put(jobs, reply_to="ear")
        at.put([child, keyed])
        claims = hands.take(6)
        found: list[Any] = [(claim.id, claim.attempt) for claim in claims]
        updates = [
            ProgressUpdate(id=c.id, token=c.token, progress=(1, 2), meta=encode({"a": 1}), log=b"said\n")
            for c in claims
        ]
        hands.session.poll([], updates, 0)
        renewed = hands.session.heartbeat(hands.record, [(c.id, c.token) for c in claims])
        told = hands.tell(
            succeeded(claims[1]), failed(claims[2]), again(claims[3], 60), given_back(claims[4]), again(claims[5])
        )
        found += [renewed, list(told.fenced)]
        found.append(at.cancel(["job-5", "nobody"]))
        found.append(at.client.command("LLEN", "rq:tq:replies:ear"))
        found.append(
            [record and (record.state, record.attempts, record.retries) for record in at.get([j.id for j in jobs])]
        )
        found.append(hands.run())
        hands.session.leave()
        client.delete("rq:tq:replies:ear")
        state = dump(client)
        client.flushdb()
        for fields in state.values():
            if isinstance(fields, dict):
                for name in (b"tq_claim", b"tq_note", b"tq_finish", b"tq_nonce", b"total_working_time", b"ip_address"):
                    fields.pop(name, None)
        return {"found": found, "state": state}

    once, twice = live(store), live(doubled)
    assert twice["found"] == once["found"]
    assert twice["state"] == once["state"]


def test_lost_claim_is_found_again(store: RQStore, join: Callable[..., Hands]) -> None:
    """When the answer to a claim is lost, the next poll brings the same jobs, with the same tokens."""
    hands = join()
    jobs = [new_job() for _ in range(3)]
    store.put(jobs)
    session = hands.session
    line = session.client
    session.client = Lossy(line)  # type: ignore[assignment]
    with pytest.raises(BackendUnavailable):
        session.poll([], [], 2)
    session.client = line
    claims = hands.take(2)
    assert [claim.id for claim in claims] == [job.id for job in jobs[:2]]
    assert [claim.attempt for claim in claims] == [1, 1]
    assert not hands.tell(*map(succeeded, claims)).fenced
    assert hands.run() == [jobs[2].id]


class Lossy:
    """Do what is asked, and lose the answer."""

    def __init__(self, line: Client) -> None:
        self._client = line

    def exchange(self, requests: Any, *, partial: bool = False) -> list[Any]:
        self._client.exchange(requests, partial=partial)
        raise BackendUnavailable("the answer was lost")


def test_lost_finish_is_told_again(store: RQStore, join: Callable[..., Hands]) -> None:
    """When the answer to a finish is lost, telling it again counts once and nothing is called late."""
    hands = join()
    store.put([new_job(), new_job()])
    claims = hands.take()
    session = hands.session
    line = session.client
    outcomes = [succeeded(claim) for claim in claims]
    session.client = Lossy(line)  # type: ignore[assignment]
    with pytest.raises(BackendUnavailable):
        session.poll(outcomes[:1], [], 0)
    session.client = line
    assert session.poll(outcomes, [], 0).fenced == []
    assert store.workers()[0].succeeded == 2
    assert store.client.command("XLEN", f"rq:results:{claims[0].id}") == 1


def test_lost_update_is_not_said_twice(store: RQStore, join: Callable[..., Hands]) -> None:
    """When the answer to a note is lost, giving it again appends its log once."""
    hands = join()
    store.put([new_job()])
    (claim,) = hands.take()
    session = hands.session
    line = session.client
    first, second = (ProgressUpdate(id=claim.id, token=claim.token, log=text) for text in (b"one\n", b"two\n"))
    session.client = Lossy(line)  # type: ignore[assignment]
    with pytest.raises(BackendUnavailable):
        session.poll([], [first], 0)
    session.client = line
    session.poll([], [first, second], 0)
    assert store.log(claim.id) == b"one\ntwo\n"


def test_old_token_is_fenced(store: RQStore, join: Callable[..., Hands]) -> None:
    """A worker whose lease ran out loses its jobs; its late word about them changes nothing, and it can go on."""
    old, new = join("old"), join("new")
    job = new_job()
    store.put([job])
    (claim,) = old.take()
    assert old.session.begin([(claim.id, claim.token)]) == []
    old.die()
    assert new.run_maintenance() == 1
    (other,) = new.take()
    assert (other.id, other.attempt, other.crashes) == (job.id, 2, 1)
    update = ProgressUpdate(id=claim.id, token=claim.token, progress=(1, 1), log=b"late")
    told = old.session.poll([succeeded(claim, "late")], [update], 0)
    assert set(told.fenced) == {job.id}
    assert store.log(job.id) == b""
    assert old.session.heartbeat(old.record, [(claim.id, claim.token)]) == [job.id]
    assert not new.tell(succeeded(other, "right")).fenced
    (record,) = store.get([job.id], payload=True)
    assert record is not None
    assert (decode(record.result or b""), record.attempts, record.crashes) == ("right", 2, 1)
    store.put([new_job()])
    assert len(old.run()) == 1


def test_dead_worker_s_jobs_go_to_the_front(store: RQStore, join: Callable[..., Hands]) -> None:
    """What a dead worker held comes before what waited; its entry is gone."""
    old, new = join("old"), join("new")
    first, second = new_job(), new_job()
    store.put([first])
    old.take(1)
    store.put([second])
    old.die()
    assert new.run_maintenance() == 1
    assert [worker.name for worker in store.workers()] == ["new"]
    assert [claim.id for claim in new.take()] == [first.id, second.id]


def test_three_dead_workers_fail_a_job(store: RQStore, join: Callable[..., Hands]) -> None:
    """A job whose workers died max_crashes times is failed as crashed."""
    job, brief = new_job(), new_job(max_crashes=1)
    store.put([job, brief])
    maintainer = join("sweeper")
    for number in range(3):
        hands = join(f"w{number}")
        claims = hands.take()
        assert claims
        assert hands.session.begin([(claim.id, claim.token) for claim in claims]) == []
        hands.die()
        maintainer.run_maintenance()
    records = [record for record in store.get([job.id, brief.id]) if record]
    assert [(record.state, record.reason, record.crashes) for record in records] == [
        (State.FAILED, Reason.CRASHED, 3),
        (State.FAILED, Reason.CRASHED, 1),
    ]


def test_the_last_crash_is_nobody_elses(store: RQStore, join: Callable[..., Hands]) -> None:
    """A job whose next crash is its last is taken alone, by a worker that holds nothing, and before what is behind."""
    first, maintainer = join("first"), join("sweeper", queues=("none",))
    ids = ["a", "b", "c", "d"]
    store.put([new_job(job_id=name, max_crashes=2) for name in ids[:2]])
    assert first.session.begin([(claim.id, claim.token) for claim in first.take()]) == []
    first.die()
    assert maintainer.run_maintenance() == 2
    second, third = join("second"), join("third")
    store.put([new_job(job_id="c"), new_job(job_id="d", priority=1)])
    (urgent,) = second.take()
    assert (urgent.id, second.take()) == ("d", [])
    (alone,) = third.take()
    assert (alone.id, third.take()) == ("a", [])
    second.tell(succeeded(urgent))
    third.tell(succeeded(alone))
    assert [claim.id for claim in second.take()] == ["b"]
    assert [claim.id for claim in third.take()] == ["c"]


def test_death_before_the_begin(store: RQStore, join: Callable[..., Hands]) -> None:
    """A worker's death counts no crash for a job that had not begun, and no attempt once it would have told that."""
    store.put([new_job(job_id="a", max_crashes=2), new_job(job_id="b", max_crashes=1)])
    maintainer = join("sweeper", queues=("none",))
    for name in ("w1", "w2", "w3"):
        hands = join(name)
        assert hands.take()
        hands.die()
        maintainer.run_maintenance()
    records = [record for record in store.get(["a", "b"]) if record]
    assert [(one.state, one.attempts, one.crashes) for one in records] == [(State.QUEUED, 1, 0), (State.QUEUED, 0, 0)]


def test_death_that_is_found_late(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """Which jobs had begun is known when the records of their executions have run out, too."""
    store.put([new_job(job_id="a", max_crashes=1), new_job(job_id="b")])
    hands, maintainer = join("w"), join("sweeper", queues=("none",))
    claims = hands.take()
    hands.session.begin([(claim.id, claim.token) for claim in claims if claim.id == "a"])
    assert client.ttl("rq:worker:w:executions") > 1_000_000
    client.delete(*client.keys("rq:execution:*"))
    hands.die()
    maintainer.run_maintenance()
    records = [record for record in store.get(["a", "b"]) if record]
    assert [(one.state, one.crashes) for one in records] == [(State.FAILED, 1), (State.QUEUED, 0)]


def test_death_of_an_older_worker(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """One that knows no suspects told only the last begin, in the execution's record: its jobs end all the same."""
    store.put([new_job(job_id="a", max_crashes=2)])
    maintainer = join("sweeper", queues=("none",))
    for name in ("w1", "w2"):
        hands = join(name)
        (claim,) = hands.take()
        client.hset(f"rq:execution:a:{claim.token}", "tq_begun", 1)
        hands.die()
        maintainer.run_maintenance()
    (record,) = store.get(["a"])
    assert record is not None
    assert (record.state, record.reason, record.crashes) == (State.FAILED, Reason.CRASHED, 2)


def test_nothing_is_reaped_after_a_restart(store: RQStore, join: Callable[..., Hands]) -> None:
    """While Redis has been up for less than one lease, leases that ran out say nothing."""
    old, new = join("old"), join("new")
    store.put([new_job()])
    old.take()
    old.die()
    uptime = dict(line.split(b":", 1) for line in store.client.command("INFO", "server").splitlines() if b":" in line)[
        b"uptime_in_seconds"
    ]
    store.lease = int(uptime) + 1000.0
    assert new.session.run_maintenance() == 0
    store.lease = -1.0
    assert new.session.run_maintenance() == 1


def test_nothing_is_reaped_after_an_absence(store: RQStore, join: Callable[..., Hands]) -> None:
    """A worker that could not reach Redis itself takes nobody for dead for one lease."""
    old, new = join("old"), join("new")
    store.put([new_job()])
    old.take()
    old.die()
    session = new.session
    line, session.client = session.client, Lossy(session.client)  # type: ignore[assignment]
    store.lease = 15.0
    with pytest.raises(BackendUnavailable):
        session.poll([], [], 1)
    session.client = line
    store.lease = -1.0
    assert session.run_maintenance() == 0


def test_given_back_is_as_if_never_taken(store: RQStore, join: Callable[..., Hands]) -> None:
    """A job that was given back stands in front, its attempt not counted; a refused one waits for its delay."""
    hands = join()
    one, two = new_job(), new_job()
    store.put([one, two])
    first, second = hands.take()
    hands.tell(given_back(first), given_back(second, refused=True, delay=0.05))
    (record,) = store.get([one.id])
    assert record is not None
    assert (record.state, record.attempts, record.started_at, record.worker) == (State.QUEUED, 0, None, None)
    (claim,) = hands.take()
    assert (claim.id, claim.attempt, claim.refused_for) == (one.id, 1, 0.0)
    hands.tell(succeeded(claim))
    (claim,) = eventually(hands.take, "the refused job to come back")
    assert (claim.id, claim.attempt) == (two.id, 1)
    assert claim.refused_for > 0


@pytest.mark.parametrize("priority", [0, -1])
def test_claims_pass_over_thousands_that_are_left_to_others(
    store: RQStore, join: Callable[..., Hands], client: Any, priority: int
) -> None:
    """Behind thousands of jobs that it has refused a worker finds the next one, and looks at few of them again."""
    hands, other = join("w1"), join("w2")
    left = [new_job() for _ in range(7_000)]
    store.put(left)
    store.put([good := new_job(priority=priority)])
    nonce = client.hget("rq:worker:w1", "tq_nonce")
    with client.pipeline(transaction=False) as pipe:
        for job in left:
            pipe.hset(f"rq:job:{job.id}", "tq_left", nonce)
        pipe.execute()
    hands.session.outbox.has_refused = True
    (claim,) = eventually(lambda: hands.take(1), "the job behind them")
    assert claim.id == good.id
    hands.tell(succeeded(claim))
    store.put([new_job(), new_job()])
    before = client.info("commandstats")["cmdstat_hget"]["calls"]
    assert len(hands.take(5)) == 2
    assert client.info("commandstats")["cmdstat_hget"]["calls"] - before < 1_000
    store.put([front := new_job()])
    client.lrem("rq:queue:default", 1, front.id)
    client.lpush("rq:queue:default", front.id)
    assert [claim.id for claim in hands.take(1)] == [front.id]
    assert [claim.id for claim in other.take(3)] == [job.id for job in left[:3]]


def test_stock_jobs_come_back_in_their_order(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """Jobs of stock RQ that are given back one by one stand in front in the order in which they were made."""
    queue = Queue(connection=client, serializer=JSONSerializer)
    made = [queue.enqueue("tests.rq.stock.add", n, n).id for n in range(4)]
    hands = join()
    for claim in hands.take(3):
        hands.tell(given_back(claim))
    assert queue.job_ids == made


def test_retry_counts(store: RQStore, join: Callable[..., Hands]) -> None:
    """Retries count apart from crashes; attempts count both."""
    hands = join()
    job = new_job(retry=5)
    store.put([job])
    (claim,) = hands.take()
    hands.tell(replace(again(claim), attempts=2, crashes=1))
    (claim,) = hands.take()
    assert (claim.attempt, claim.crashes, claim.retries) == (3, 1, 1)
    hands.tell(failed(claim))
    (record,) = store.get([job.id])
    assert record is not None
    assert (record.attempts, record.crashes, record.retries) == (3, 1, 1)


def test_leaving_gives_everything_back(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A worker that leaves holds nothing any more, and is gone from RQ's lists."""
    hands = join()
    jobs = [new_job() for _ in range(3)]
    store.put(jobs)
    hands.take()
    hands.session.leave()
    assert client.lrange("rq:queue:default", 0, -1) == [job.id.encode() for job in jobs] or {
        entry.decode() for entry in client.lrange("rq:queue:default", 0, -1)
    } == {job.id for job in jobs}
    assert store.workers() == []
    assert client.smembers("rq:workers") == set()
    assert not client.keys("rq:execution*")
    assert client.zcard("rq:wip:default") == 0
    assert 0 < client.ttl("rq:worker:w1") <= 60


def test_two_workers_of_one_name(store: RQStore, join: Callable[..., Hands]) -> None:
    """A second worker of the name of one that is alive is refused; that of a dead process gives its jobs back."""
    hands = join("same")
    with pytest.raises(ConfigError, match="same"):
        join("same")
    store.put([new_job()])
    hands.take()
    store.client.command("HSET", "rq:worker:same", "pid", 2**22 + 1)
    other = join("same")
    (claim,) = other.take()
    assert (claim.crashes, claim.suspect) == (0, True)


def test_worker_whose_record_expired_registers_anew(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A worker whose hash is gone is a full entry again after the next renewal or claim, and loses what it held."""
    hands = join()
    client.delete("rq:worker:w1")
    assert hands.session.heartbeat(hands.record, []) == []
    assert client.hget("rq:worker:w1", "birth")
    client.delete("rq:worker:w1")
    store.put([new_job()])
    hands.take()
    assert len(hands.take()) == 1 or store.get([store.list()[0].id])[0]
    assert client.hget("rq:worker:w1", "birth")


def test_updates(store: RQStore, join: Callable[..., Hands]) -> None:
    """Progress, meta and log of a running job are seen at once; the next attempt gets the meta."""
    hands = join()
    store.put([new_job()])
    (claim,) = hands.take()
    assert claim.meta == b""
    updates = [
        ProgressUpdate(id=claim.id, token=claim.token, progress=(1, 3), log=b"one\n"),
        ProgressUpdate(id=claim.id, token=claim.token, progress=(2, None), meta=encode({"a": 1}), log=b"two\n"),
    ]
    assert not hands.session.poll([], updates, 0).fenced
    (record,) = store.get([claim.id])
    assert record is not None
    assert (record.progress, decode(record.meta)) == ((2, None), {"a": 1})
    assert (store.log(claim.id), store.log(claim.id, 4)) == (b"one\ntwo\n", b"two\n")
    hands.tell(again(claim))
    (claim,) = hands.take()
    assert decode(claim.meta) == {"a": 1}
    hands.tell(succeeded(claim))
    assert store.client.command("TTL", f"rq:tq:log:{claim.id}") > 0


def test_last_words(store: RQStore, join: Callable[..., Hands]) -> None:
    """What an outcome brings of log, meta and progress is kept with the job's end."""
    hands = join()
    store.put([new_job()])
    (claim,) = hands.take()
    hands.session.poll([], [ProgressUpdate(id=claim.id, token=claim.token, log=b"one\n")], 0)
    hands.tell(replace(succeeded(claim), log=b"two\n", meta=encode({"b": 2}), progress=(3, 3)))
    (record,) = store.get([claim.id])
    assert record is not None
    assert (record.state, record.progress, decode(record.meta)) == (State.SUCCEEDED, (3, 3), {"b": 2})
    assert store.log(claim.id) == b"one\ntwo\n"
    assert store.client.command("TTL", f"rq:tq:log:{claim.id}") > 0


def test_log_is_kept_to_a_mebibyte(store: RQStore, join: Callable[..., Hands]) -> None:
    """Of a job that prints without end, the first MiB is kept."""
    hands = join()
    store.put([new_job()])
    (claim,) = hands.take()
    for _ in range(3):
        hands.session.poll([], [ProgressUpdate(id=claim.id, token=claim.token, log=b"x" * 500_000)], 0)
    assert len(store.log(claim.id)) == 1 << 20


def test_claim_one(store: RQStore, join: Callable[..., Hands]) -> None:
    """One job can be taken whatever is before it, also of a queue that is not this worker's; only while it waits."""
    hands = join()
    jobs = [new_job(), new_job(), new_job(queue="other", priority=2)]
    store.put(jobs)
    for job in (jobs[1], jobs[2]):
        claim = hands.session.claim_one(job.id)
        assert claim is not None
        assert claim.id == job.id
        assert hands.session.claim_one(job.id) is None
    assert hands.session.claim_one("nobody") is None
    assert [claim.id for claim in hands.take()] == [jobs[0].id]


DAMAGE = {
    "no data": lambda client, key: client.hdel(key, "data"),
    "wrong type": lambda client, key: (client.delete(key), client.set(key, "x")),
    "no hash": lambda client, key: client.delete(key),
    "numbers": lambda client, key: client.hset(key, mapping={"tq_attempts": "x", "result_ttl": "y", "tq_crashes": ""}),
    "needs": lambda client, key: client.hset(key, mapping={"tq_rare": "1", "dependency_ids": "{[", "tq_expires": "x"}),
    "nested needs": lambda client, key: client.hset(key, mapping={"tq_rare": "1", "dependency_ids": "[[1]]"}),
    "bytes": lambda client, key: client.hset(key, mapping={"data": b"\x94\xb6\xff\x00", "tq_reply": b"\xff\xfe"}),
    "bomb": lambda client, key: client.hset(key, "data", b"\x78\x9c\xff\xff\x00"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_broken_record_costs_only_its_job(store: RQStore, join: Callable[..., Hands], client: Any, damage: str) -> None:
    """Whatever stands in one job's record, the worker lives and the jobs beside it run."""
    jobs = [new_job() for _ in range(3)]
    store.put(jobs)
    DAMAGE[damage](client, f"rq:job:{jobs[1].id}")
    hands = join()
    claims = {claim.id: claim for claim in hands.take()}
    assert {jobs[0].id, jobs[2].id} <= set(claims)
    outcomes = [succeeded(claim) if claim.id != jobs[1].id else failed(claim) for claim in claims.values()]
    assert not hands.tell(*outcomes).fenced
    assert client.lrange("rq:queue:default", 0, -1) == []
    assert [record and record.state for record in store.get([jobs[0].id, jobs[2].id])] == [State.SUCCEEDED] * 2


def test_damage_while_running(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A job whose keys are damaged while it runs does not cost the others their ends."""
    jobs = [new_job() for _ in range(3)]
    store.put(jobs)
    hands = join()
    claims = hands.take()
    client.delete(f"rq:job:{jobs[0].id}")
    client.set(f"rq:job:{jobs[0].id}", "x")
    client.set(f"rq:results:{jobs[1].id}", "x")
    hands.tell(*map(succeeded, claims))
    (record,) = store.get([jobs[2].id])
    assert record is not None
    assert record.state is State.SUCCEEDED
    assert client.zcard("rq:wip:default") == 0


def test_outcomes_that_redis_cannot_carry_out(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """When a registry itself is damaged, the ends that cannot be kept are named as late, and the worker goes on."""
    jobs = [new_job(), new_job(key="k"), new_job()]
    store.put(jobs)
    hands = join()
    claims = hands.take()
    client.delete("rq:tq:key:k")
    client.rpush("rq:tq:key:k", "no string")
    client.set("rq:finished:default", "no zset")
    assert set(hands.tell(*map(succeeded, claims)).fenced) == {job.id for job in jobs}
    client.delete("rq:finished:default")
    store.put([new_job()])
    assert len(hands.run()) == 1


def test_suspension(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """`rq suspend` stops claims, not ends."""
    hands = join()
    store.put([new_job(), new_job()])
    (claim,) = hands.take(1)
    client.set("rq:suspended", 1)
    assert hands.take() == []
    assert not hands.tell(succeeded(claim)).fenced
    client.delete("rq:suspended")
    assert len(hands.take()) == 1
