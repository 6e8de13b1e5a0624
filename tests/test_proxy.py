"""The tests' own tools for faults: the redis-server that they start, and the proxy that spoils connections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import processes
from tests.proxy import Proxy
from tests.redis_server import MISSING, RedisServer
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Seconds that a client in these tests waits for a reply.
SHORT = 0.3


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """Give a proxy in front of the session's redis-server."""
    with Proxy((redis_server.host, redis_server.port)) as found:
        yield found


@pytest.fixture
def client(proxy: Proxy, redis_server: RedisServer) -> Iterator[Any]:
    """Give a client behind the proxy, which neither waits long nor tries again."""
    made: Any = redis.Redis(
        host=proxy.host,
        port=proxy.port,
        db=redis_server.fresh_database(),
        socket_timeout=SHORT,
        retry=Retry(NoBackoff(), 0),
    )
    yield made
    made.close()
    made.connection_pool.disconnect()


def test_forwarding(client: Any, proxy: Proxy) -> None:
    """Left alone, it passes everything on, big values too."""
    value = bytes(range(256)) * 20_000
    client.set("key", value)
    assert client.get("key") == value
    assert proxy.passed > 2 * len(value)


def test_delay(client: Any, proxy: Proxy) -> None:
    """What it delays comes late, and whole."""
    client.ping()
    proxy.delay(0.1)
    begin = time.monotonic()
    assert client.ping()
    assert time.monotonic() - begin >= 0.2


def test_cut_and_heal(client: Any, proxy: Proxy) -> None:
    """A cut closes what is open and refuses what is new, until it heals."""
    client.ping()
    proxy.cut()
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.ping()
    proxy.heal()
    assert client.ping()


@pytest.mark.parametrize(("up", "down"), [(True, True), (True, False), (False, True)])
def test_freeze(client: Any, proxy: Proxy, redis_server: RedisServer, up: bool, down: bool) -> None:
    """Frozen one way or both, nothing is closed and no reply comes; frozen downwards, the server still hears."""
    client.set("key", "before")
    proxy.freeze(up=up, down=down)
    with pytest.raises(redis.TimeoutError):
        client.set("key", "after")
    with redis_server.client(client.connection_pool.connection_kwargs["db"]) as direct:
        assert direct.get("key") == (b"before" if up else b"after")
    proxy.heal()
    assert client.ping()


def test_lost_reply(client: Any, proxy: Proxy) -> None:
    """A request whose reply is to be lost is carried out, once, and its connection closed; others are not touched."""
    proxy.drop_replies(1, b"INCR")
    assert client.ping()
    with pytest.raises(redis.ConnectionError):
        client.incr("key")
    assert client.get("key") == b"1"
    assert (proxy.dropped, proxy.drops_left) == (1, 0)


@pytest.mark.parametrize("appendonly", [True, False])
def test_restart(tmp_path: Path, appendonly: bool) -> None:
    """A server that is restarted keeps its port, and its data only if it was told to append them to a file."""
    with RedisServer(tmp_path / "server", appendonly=appendonly) as server:
        server.command("SET", "key", "value")
        server.restart()
        assert server.command("GET", "key") == (b"value" if appendonly else None)
        pid = server.pid
    eventually(lambda: not processes.is_running(pid), "the server to be gone")


def test_missing_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no server is there at all, the tests that need it fail with the cure; they are not skipped."""
    monkeypatch.setattr("tests.redis_server.installed", lambda: None)
    monkeypatch.setattr("tests.redis_server.bundled", lambda: None)
    with pytest.raises(FileNotFoundError, match="apt-get install redis-server"), RedisServer(tmp_path / "server"):
        pass
    assert "apt-get" in MISSING
