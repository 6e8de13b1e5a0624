"""What monitors and service managers hear of a worker."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import ConfigError
from taskq.executors.worker import health as health_module
from taskq.executors.worker.health import Health, SystemdNotifier
from tests.waiting import eventually
from tests.worker.conftest import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.worker.conftest import Running
    from tests.worker.double import StoreDouble

    Serve = Callable[..., Running]


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and text of what is served there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()


@pytest.fixture
def port() -> int:
    """Give a port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def health(port: int) -> tuple[int, dict[str, Any]]:
    """Return status and document of /health."""
    status, text = get(port, "/health")
    return status, json.loads(text)


def test_health_and_metrics(store: StoreDouble, serve: Serve, port: int) -> None:
    """A worker tells that it is well, and how much it has done."""
    for n in range(10):
        store.call(f"{SAMPLE}:quiet", n)
    store.call(f"{SAMPLE}:fail", "no")
    running = serve(health_port=port, name="odd:name")
    eventually(lambda: store.ended() == 11, "the jobs to end")
    eventually(lambda: health(port)[1].get("succeeded") == 10, "the count to be told")
    status, found = health(port)
    assert (status, found["status"], found["failed"], found["name"]) == (200, "ok", 1, "odd:name")
    status, text = get(port, "/metrics")
    assert status == 200
    assert 'taskq_worker_jobs_succeeded_total{worker="odd:name"} 10\n' in text
    assert 'taskq_worker_up{worker="odd:name"} 1\n' in text
    assert get(port, "/nothing")[0] == 404
    assert running.stop() == 0


def test_health_while_the_store_is_away(store: StoreDouble, serve: Serve, port: int) -> None:
    """A worker without its store says so with 503, and is well again when it is back."""
    serve(health_port=port)
    eventually(lambda: store.polls, "the worker to be there")
    store.away = True
    eventually(lambda: health(port)[1]["status"] == "backend_away", "the absence to be told")
    assert health(port)[0] == 503
    store.away = False
    eventually(lambda: health(port)[0] == 200, "the worker to be well again")


@pytest.fixture
def served() -> Iterator[int]:
    """Give a port on which it is served."""
    server = Health("127.0.0.1", 0)
    yield server.port
    server.close()


def connected(port: int) -> socket.socket:
    """Return a connection that has asked for something, but not all of it."""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(b"GET /health HT")
    return client


def test_clients_are_bounded(served: int) -> None:
    """So many threads and no more, however many there are; who is beyond them is closed."""
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(served)) for _ in range(40)]
        eventually(lambda: sum(is_closed(client) for client in clients) >= 24, "those beyond the bound to be closed")
        assert threading.active_count() - before <= 16
    eventually(lambda: health(served)[0] == 503, "it to serve again")


def is_closed(client: socket.socket) -> bool:
    """Tell whether the server has closed a connection."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


def test_a_request_is_cut_off_as_a_whole(served: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps nobody connected."""
    monkeypatch.setattr(health_module, "_CLIENT_TIMEOUT", 0.3)
    with connected(served) as client:

        def send() -> bool:
            try:
                client.sendall(b"X")
            except OSError:
                return True
            return is_closed(client)

        eventually(send, "the connection to be closed")


@pytest.mark.parametrize(
    ("host", "code"),
    [("evil.example", 421), ("evil.example:80", 421), ("localhost:1", 503), ("127.0.0.1", 503), ("[::1]:80", 503)],
)
def test_another_host_is_not_answered(served: int, host: str, code: int) -> None:
    """A web page may reach it by a name of its own, but learns nothing."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served, timeout=30)) as client:
        client.request("GET", "/health", headers={"Host": host})
        assert client.getresponse().status == code


def test_port_that_is_taken(port: int) -> None:
    """A port that cannot be had is said with its number."""
    first = Health("127.0.0.1", port)
    try:
        assert first.port == port
        with pytest.raises(ConfigError, match=str(port)):
            Health("127.0.0.1", port)
        assert health(port) == (503, {"status": "starting"})
    finally:
        first.close()


def test_service_manager_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service manager that asks is told when the worker is ready, lives, and stops."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        systemd = SystemdNotifier()
        systemd.ready("serving")
        systemd.beat()
        systemd.beat()
        systemd.stopping()
        assert [manager.recv(100) for _ in range(3)] == [b"READY=1\nSTATUS=serving", b"WATCHDOG=1", b"STOPPING=1"]


def test_no_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a service manager nothing is told, and nothing goes wrong."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    systemd = SystemdNotifier()
    systemd.ready("serving")
    systemd.beat()
    assert systemd.next_beat == float("inf")
