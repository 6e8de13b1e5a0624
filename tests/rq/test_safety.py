"""What keeps strangers away from a Redis, as doctor and workers tell it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from taskq.cli.app import run
from taskq.executors.rq import doctor
from taskq.executors.rq.connection import Address
from taskq.executors.rq.store import RQStore
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give a Redis that wants a password of everybody but one user for `ping`."""
    with RedisServer(tmp_path_factory.mktemp("locked")) as started:
        started.command("ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all")
        started.command("ACL", "SETUSER", "default", "resetpass", ">secret")
        yield started
        with closing(RQStore(f"redis://ann:pw@127.0.0.1:{started.port}")) as store:
            store.client.command("ACL", "SETUSER", "default", "nopass")


class Idle:
    """A worker that ends at once."""

    def run(self) -> int:
        """Do nothing."""
        return 0


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("/run/redis.sock", True),
        (("127.0.0.1", 6379), True),
        (("127.8.9.1", 6379), True),
        (("::1", 6379, 0, 0), True),
        (("::ffff:127.0.0.1", 6379, 0, 0), True),
        (("10.0.0.5", 6379), False),
        (("192.0.2.2", 6379), False),
        (("::ffff:10.0.0.5", 6379, 0, 0), False),
        (("fe80::1%eth0", 6379, 0, 2), False),
        (("2001:db8::1", 6379, 0, 0), False),
    ],
)
def test_loopback_and_sockets_are_this_machine(peer: object, *, local: bool) -> None:
    """An address is judged, not a name: `redis` in a container, and `localhost` elsewhere, are what they resolve to."""
    assert doctor.is_on_this_machine(peer) is local


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("", ""),
        ("?ssl_cert_reqs=required", ""),
        ("?ssl_cert_reqs=none", "ssl_cert_reqs"),
        ("?ssl_check_hostname=false", "ssl_check_hostname"),
        ("?ssl_cert_reqs=none&ssl_check_hostname=false", "ssl_cert_reqs"),
    ],
)
def test_a_certificate_that_is_not_checked_is_seen(query: str, word: str) -> None:
    """Either word in the URL opens the way to whoever stands in it."""
    assert Address(f"rediss://h/0{query}").unchecked == word


def test_a_redis_that_wants_no_password_is_open(redis_server: RedisServer, locked: RedisServer) -> None:
    """It is asked as a stranger would ask, whatever the URL itself has."""
    redis_server.command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all")
    try:
        assert Address(redis_server.url()).is_open()
        assert Address(f"redis://bob:pw@127.0.0.1:{redis_server.port}/3").is_open()
        assert not Address(f"redis://ann:pw@127.0.0.1:{locked.port}/3").is_open()
    finally:
        redis_server.command("ACL", "DELUSER", "bob")


def test_a_worker_on_an_open_redis_beyond_this_machine_says_so_once(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It warns; under --require-auth it refuses, with the cure. On this machine it says nothing."""
    told: list[str] = []
    monkeypatch.setattr("taskq.cli.worker.open_worker", lambda _store, **_settings: Idle())
    for name in ("_stop_at_signals", "import_from_here", "keep_password"):
        monkeypatch.setattr(f"taskq.cli.worker.{name}", lambda *_: None)
    monkeypatch.setattr("taskq.log.configure", lambda *_: None)
    monkeypatch.setattr("taskq.log.Logger.warning", lambda _self, _event, **fields: told.append(str(fields)))
    url = redis_server.fresh_url()
    assert run(["worker", "--url", url, "--require-auth"]) == 0
    assert told == []
    monkeypatch.setattr(doctor, "is_on_this_machine", lambda _peer: False)
    assert run(["worker", "--url", url]) == 0
    assert len(told) == 1
    assert "no password" in told[0]
    assert run(["worker", "--url", url, "--require-auth"]) == 2
    assert "requirepass" in capsys.readouterr().err


def test_a_password_is_enough(locked: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that shows its password starts under --require-auth, without a warning."""
    monkeypatch.setattr(doctor, "is_on_this_machine", lambda _peer: False)
    with closing(RQStore(f"redis://ann:pw@127.0.0.1:{locked.port}/1")) as store:
        assert store.risks() == []
        topics = {finding.topic: finding for finding in store.doctor()}
    assert topics["authentication"].level == "ok"
    assert topics["transport"].level == "warning"
