"""The quick way by which one plain job ends in Redis leaves there what the long way leaves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from taskq.codec import encode
from taskq.executors.rq.claims import outcome_row
from taskq.executors.rq.scripts import Script
from taskq.executors.rq.store import RQStore
from taskq.states import State
from taskq.store import JobOutcome
from tests.rq.golden import ISO, STAMP
from tests.rq.hands import Hands, new_job

if TYPE_CHECKING:
    from collections.abc import Iterator

#: By what the quick way is told from the long one, which runs where this says no.
QUICK = b"if done and #outcomes == 1 then"

WAYS = {"quick": QUICK, "long": b"if false then"}


@pytest.fixture
def ways(url: str) -> Iterator[dict[str, Hands]]:
    """Give a worker for each way, each under a prefix of its own."""
    made = {}
    for way, condition in WAYS.items():
        store = RQStore(f"{url}?prefix={way}")
        finish = store.address.scripts.finish
        assert QUICK in finish.text
        made[way] = Hands(store, "w1", ("default", "other"))
        store.address.scripts.replace(Script("finish", finish.text.replace(QUICK, condition).decode()))
    yield made
    for hands in made.values():
        hands.close()
        hands.store.close()


def snapshot(client: Any, way: str, names: dict[str, str]) -> dict[str, Any]:
    """Return all keys of a way, with their values and about how long they live."""

    def said(data: bytes) -> str:
        text = STAMP.sub(b"STAMP", ISO.sub(b"ISO", data)).decode("latin-1")
        for name, called in {way: "PREFIX", **names}.items():
            text = text.replace(name, called)
        return f"{float(text):g}" if re.fullmatch(r"\d+\.\d+", text) else text

    def value(key: bytes) -> Any:
        kind = client.type(key)
        if kind == b"hash":
            return {said(name): said(text) for name, text in sorted(client.hgetall(key).items())}
        if kind == b"zset":
            return sorted(
                (said(entry), said(b"%d" % score)) for entry, score in client.zrange(key, 0, -1, withscores=True)
            )
        if kind == b"stream":
            return [{said(k): said(v) for k, v in entry.items()} for _, entry in client.xrange(key)]
        if kind == b"list":
            return [said(entry) for entry in client.lrange(key, 0, -1)]
        return sorted(map(said, client.smembers(key))) if kind == b"set" else said(client.get(key))

    def minutes(key: bytes) -> int:
        return -1 if client.ttl(key) < 0 else round(client.ttl(key) / 60)

    return {said(key): (value(key), minutes(key)) for key in sorted(client.keys(f"{way}:*"))}


@pytest.mark.parametrize("value", [None, 3, "x" * 1000])
@pytest.mark.parametrize("reply_to", ["", "someone"])
@pytest.mark.parametrize("rest", ["", "default", "other"])
@pytest.mark.parametrize("registers", [False, True])
def test_both_ways_leave_the_same(  # noqa: PLR0917  # one combination of shapes
    ways: dict[str, Hands], client: Any, value: Any, reply_to: str, rest: str, registers: bool
) -> None:
    """Whatever is said, told, waiting and registered: every key, its value, its life, and the answer are the same."""
    left, answers = {}, {}
    for way, hands in ways.items():
        job = new_job(job_id="job")
        hands.store.put([job], reply_to=reply_to)
        (claim,) = hands.take(1)
        if rest:
            hands.store.put([new_job(job_id="rest", queue=rest)])
        outcome = JobOutcome(id=claim.id, token=claim.token, state=State.SUCCEEDED, result=encode(value), seconds=0.25)
        row = outcome_row(outcome, hands.session.held[claim.token], stopped=False)
        idle: Any = ["base", 60, 1, 0] if registers else 0
        argument = ["w1", "7", [row], "idle", 0.25, idle, ["default", "other"]]
        answers[way] = hands.store.client.call(hands.store.address.scripts.finish, argument)
        own = (word.decode() for word in client.hmget(f"{way}:worker:w1", "tq_nonce", "ip_address"))
        left[way] = snapshot(client, way, {claim.token: "TOKEN", **dict.fromkeys(own, "ITS OWN")})
    assert answers["quick"] == answers["long"]
    assert left["quick"] == left["long"]
    assert left["quick"]["PREFIX:job:job"][0]["status"] == "finished"
