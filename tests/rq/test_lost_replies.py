"""A script's reply is lost on the way, script by script: what was asked for is done, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import taskq.executors.rq
from taskq.executors.rq.store import RQStore
from taskq.states import State
from taskq.store import ProgressUpdate
from tests.proxy import Proxy
from tests.rq.hands import Hands, again, new_job, succeeded
from tests.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.store import Ended
    from tests.redis_server import RedisServer

#: Every script that is called, by its name.
SCRIPTS = (
    "retry",
    "begin",
    "cancel",
    "claim",
    "finish",
    "join",
    "leave",
    "subscribe",
    "get",
    "note",
    "put",
    "remains",
    "remove",
    "renew",
    "sweep",
)

#: Seconds for which a subscription is listened to in vain.
PATIENCE = 20.0


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """Give a way to the server on which replies are lost."""
    with Proxy((redis_server.host, redis_server.port)) as found:
        yield found


def live(store: RQStore, names: list[str]) -> dict[str, Any]:
    """Do everything once with five jobs of these names; return what is to be seen afterwards."""
    first, flaky, unwanted, late, held = names
    subscription = Subscriber(store.subscribe())
    store.put([new_job(job_id=first), new_job(job_id=flaky)])
    store.put([new_job(job_id=unwanted, priority=-1)], reply_to=subscription.reply_to)
    store.put([new_job(job_id=late, delay=3600.0), new_job(job_id=held, priority=-2)])
    subscription.expect([first, unwanted])
    hands = Hands(store, f"w-{first}", ("default",))
    claims = {claim.id: claim for claim in hands.take(2)}
    hands.session.poll(
        [], [ProgressUpdate(id=first, token=claims[first].token, progress=(1, 2), meta=b"\x80", log=b"once")], 0
    )
    assert hands.session.begin([(first, claims[first].token)]) == []
    assert hands.session.heartbeat(hands.record, [(claim.id, claim.token) for claim in claims.values()]) == []
    assert hands.tell(succeeded(claims[first]), again(claims[flaky], delay=3600.0)).fenced == []
    store.cancel([unwanted])
    store.retry([unwanted])
    store.cancel([unwanted, late])
    store.remove([late])
    hands.session.run_maintenance()
    assert hands.session.remains().busy
    (last,) = hands.take(5)
    hands.close()
    found = {name: _seen(store, name) for name in names}
    heard = _heard(subscription, {first, unwanted})
    subscription.close()
    return {
        "jobs": found,
        "held": last.id == held,
        "heard": heard,
        "line": _client(store, names),
        "log": store.log(first),
    }


def _seen(store: RQStore, name: str) -> tuple[Any, ...] | None:
    (record,) = store.get([name], payload=True)
    if record is None:
        return None
    return record.state, record.attempts, record.crashes, record.retries, record.result, record.progress, record.meta


def _heard(subscription: Any, wanted: set[str]) -> set[State]:
    found: dict[str, Ended] = {}
    while wanted - found.keys():
        news = subscription.wait(PATIENCE)
        assert news, f"heard only of {sorted(found)}"
        found.update((ended.id, ended) for ended in news)
    return {ended.state for ended in found.values()}


def _client(store: RQStore, names: list[str]) -> list[int]:
    """Return which jobs wait in the queue, in their order."""
    return [names.index(name.decode()) for name in store.client.command("LRANGE", "rq:queue:default", 0, -1)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_lost_reply(redis_server: RedisServer, proxy: Proxy, name: str) -> None:
    """Whichever script's reply is lost, all is as if it had come: states, attempts, results, logs, news, the queue."""
    undisturbed = RQStore(redis_server.fresh_url())
    wanted = live(undisturbed, [f"job-{number}" for number in range(5)])
    keys = int(undisturbed.client.command("DBSIZE"))
    undisturbed.close()
    assert wanted["held"]
    assert wanted["log"] == b"once"
    assert wanted["line"] == [4]
    assert [seen and seen[0] for seen in wanted["jobs"].values()] == [
        State.SUCCEEDED,
        State.SCHEDULED,
        State.CANCELLED,
        None,
        State.QUEUED,
    ]
    store = RQStore(f"redis://{proxy.host}:{proxy.port}/{redis_server.fresh_database()}")
    proxy.drop_replies(1, getattr(store.address.scripts, name).sha.encode())
    found = live(store, [f"job-{number}" for number in range(5)])
    assert proxy.dropped == 1, f"{name} was never called"
    assert found == wanted
    assert int(store.client.command("DBSIZE")) == keys
    store.close()


def test_all_scripts_are_here() -> None:
    """Each script that the code calls is in the list above."""
    folder = Path(taskq.executors.rq.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    names = {path.stem for path in (folder / "lua").glob("*.lua")}
    assert {name for name in names if f"scripts.{name}" in code} == set(SCRIPTS)
