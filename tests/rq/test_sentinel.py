"""Where Sentinels tell which Redis is the master, clients and workers find it, and follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import pytest
import redis

from taskq import TaskQueue
from taskq.errors import BackendUnavailable, ConfigError
from taskq.executors.rq.store import RQStore
from taskq.states import State
from tests import sample_tasks
from tests.redis_server import RedisServer, free_port
from tests.rq.hands import Hands, new_job, succeeded
from tests.subscriber import Subscriber
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Far above what a failover takes.
LONG = 40.0


class SentinelServer(RedisServer):
    """A Sentinel that watches one master."""

    def __init__(self, folder: Path, master: RedisServer) -> None:
        super().__init__(folder)
        self._master = master

    def _arguments(self) -> list[str]:
        lines = [
            f"port {self.port}",
            f"bind {self.host}",
            f"dir {self.folder}",
            f"sentinel monitor main {self._master.host} {self._master.port} 1",
            "sentinel down-after-milliseconds main 500",
            "sentinel failover-timeout main 4000",
        ]
        path = self.folder / "sentinel.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [str(path), "--sentinel"]


class Watched:
    """A master, its replica, and a Sentinel."""

    def __init__(self, folder: Path) -> None:
        at_once = ("--repl-diskless-sync-delay", "0")
        self.master = RedisServer(folder / "master", options=at_once)
        self.replica = RedisServer(folder / "replica", options=at_once)
        self.folder = folder

    def __enter__(self) -> Self:
        self.master.__enter__()
        self.replica.__enter__()
        self.replica.command("REPLICAOF", self.master.host, self.master.port)
        eventually(self._is_replicated, "the replica to be one")
        self.sentinel = SentinelServer(self.folder / "sentinel", self.master)
        self.sentinel.__enter__()
        eventually(lambda: len(self.sentinel.command("SENTINEL", "REPLICAS", "main")) == 1, "the Sentinel to know both")
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self.sentinel, self.replica, self.master):
            server.kill()

    def _is_replicated(self) -> bool:
        return bool(self.replica.command("INFO", "replication")["master_link_status"] == "up")

    @property
    def url(self) -> str:
        """The URL of the queue; the first of its Sentinels is not there."""
        return f"redis://127.0.0.1:{free_port()},{self.sentinel.host}:{self.sentinel.port}/0?sentinel=main"

    def leader(self) -> int:
        """Return the port of what the Sentinel takes for the master."""
        return int(self.sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1])

    def fail_over(self) -> bool:
        """Have the Sentinel make the replica the master; return whether it is willing."""
        try:
            return bool(self.sentinel.command("SENTINEL", "FAILOVER", "main"))
        except redis.ResponseError as exc:
            if "NOGOODSLAVE" not in str(exc):
                raise
            return False


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Give a master with a replica and a Sentinel."""
    with Watched(tmp_path) as found:
        yield found


def until_it_works(call: Any) -> Any:
    """Call again and again until Redis is there; return what it gives."""
    found: list[Any] = []

    def tried() -> bool:
        try:
            found.append(call())
        except BackendUnavailable:
            return False
        return True

    eventually(tried, "Redis to be back", within=LONG)
    return found[0]


@pytest.mark.parametrize("how", ["asked for", "killed"])
def test_failover(watched: Watched, how: str) -> None:
    """Jobs put before and after another Redis became the master are run once each; who waits hears of them."""
    store = RQStore(watched.url)
    hands = Hands(store, "w1", ("default",))
    subscription = Subscriber(store.subscribe())
    (before,) = store.put([new_job()], reply_to=subscription.reply_to)
    (running,) = hands.take()
    subscription.expect([before])
    watched.master.command("WAIT", 1, 5000)
    if how == "killed":
        watched.master.kill()
    else:
        eventually(watched.fail_over, "the Sentinel to trust the replica", within=LONG)
    eventually(lambda: watched.leader() == watched.replica.port, "the failover", within=LONG)
    if how == "asked for":  # until then it takes jobs that the other one will never see
        eventually(lambda: watched.master.command("ROLE")[0] == b"slave", "the old master to hear of it", within=LONG)
    (after,) = until_it_works(lambda: store.put([new_job()], reply_to=subscription.reply_to))
    subscription.expect([after])
    assert watched.replica.command("HGET", f"rq:job:{after}", "status") is not None
    claims = [running, *until_it_works(hands.take)]
    while len(claims) < 2:
        hands.session.wait(1.0, -1)
        claims += until_it_works(hands.take)
    assert [claim.id for claim in claims] == [before, after]
    assert until_it_works(lambda: hands.tell(*map(succeeded, claims))).fenced == []
    heard = {}
    while len(heard) < 2:
        heard |= {ended.id: ended.state for ended in subscription.wait(LONG)}
    assert heard == {before: State.SUCCEEDED, after: State.SUCCEEDED}
    subscription.close()
    hands.close()
    store.close()


def test_queue(watched: Watched) -> None:
    """A queue takes such a URL as any other; doctor and RQ's own client find the master too."""
    with TaskQueue(watched.url) as queue:
        job = queue.submit(sample_tasks.add, 1, 2)
        assert job.state is State.QUEUED
        assert job.cancel()
    store = RQStore(watched.url)
    assert not [finding for finding in store.doctor() if finding.topic == "role" and finding.level != "ok"]
    client = store.address.client()
    assert client.exists(f"rq:job:{job.id}")
    client.close()
    client.connection_pool.disconnect()
    store.close()


def test_no_such_master(watched: Watched) -> None:
    """A name that the Sentinels do not know is said, with where they were asked."""
    store = RQStore(watched.url.replace("=main", "=other"))
    with pytest.raises(BackendUnavailable, match=rf"no master 'other'.*{watched.sentinel.port}: it knows none"):
        store.put([new_job()])


def test_password_of_sentinels(watched: Watched) -> None:
    """Sentinels may ask for a password of their own; it is never shown."""
    watched.sentinel.command("ACL", "SETUSER", "default", "resetpass", ">s3cret")
    store = RQStore(f"{watched.url}&sentinel_password=s3cret")
    assert store.put([new_job()])
    assert "s3cret" not in store.url
    store.close()
    with pytest.raises(BackendUnavailable, match=r"NOAUTH|Authentication"):
        RQStore(watched.url).put([new_job()])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://one,two/0", "Sentinels: add"),
        ("unix:///run/redis.sock?sentinel=main", "give the Sentinels"),
        ("redis://one:x/0?sentinel=main", "'one:x' is no HOST"),
        ("redis://one,/0?sentinel=main", "'' is no HOST"),
    ],
)
def test_urls_that_make_no_sense(url: str, said: str) -> None:
    """A URL with several hosts and no name, or a name and no hosts, is refused with the cure."""
    with pytest.raises(ConfigError, match=said):
        RQStore(url)
