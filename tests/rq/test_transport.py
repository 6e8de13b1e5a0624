"""TLS and Unix sockets."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from taskq.errors import BackendUnavailable, ConfigError
from taskq.executors.rq.store import RQStore
from tests.redis_server import RedisServer, free_port
from tests.rq.hands import Hands, new_job
from tests.subscriber import Subscriber

if TYPE_CHECKING:
    from pathlib import Path

CERTIFICATE = (
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
    *("-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"),
)


def live(store: RQStore) -> None:
    """Put a job, run it and hear of it."""
    subscription, hands = Subscriber(store.subscribe()), Hands(store, "w1", ("default",))
    job = new_job("x" * 100_000, "y")
    store.put([job], reply_to=subscription.reply_to)
    subscription.expect([job.id])
    assert subscription.wait(0.05) == []
    hands.session.wait(0.01, -1)
    assert hands.run(value="z" * 100_000) == [job.id]
    assert [ended.id for ended in subscription.wait(5)] == [job.id]
    hands.close()
    subscription.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls(tmp_path: Path) -> None:
    """rediss:// checks the certificate: unknown ones are refused, one from the given authority is taken."""
    subprocess.run(CERTIFICATE, cwd=tmp_path, check=True, capture_output=True, timeout=50)
    port, cert, key = free_port(), tmp_path / "cert.pem", tmp_path / "key.pem"
    options = ("--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key))
    with RedisServer(tmp_path / "redis", options=(*options, "--tls-auth-clients", "no")):
        with pytest.raises(BackendUnavailable, match=r"certificate verify failed.*add .ssl_ca_certs=FILE"):
            RQStore(f"rediss://localhost:{port}/0").queues()
        with pytest.raises(BackendUnavailable, match="write rediss://"):
            RQStore(f"redis://localhost:{port}/0").queues()
        with pytest.raises(BackendUnavailable, match="certificate is for another name"):
            RQStore(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert}").queues()
        store = RQStore(f"rediss://localhost:{port}/0?ssl_ca_certs={cert}")
        live(store)
        assert {finding.topic: finding.text for finding in store.doctor()}["transport"] == "TLS"
        store.close()


def test_unix_socket(tmp_path: Path) -> None:
    """unix:// leads to a socket, and a database by its number."""
    path = tmp_path / "s"
    with RedisServer(tmp_path / "redis", options=("--unixsocket", str(path))) as server:
        store = RQStore(f"unix://{path}?db=3")
        live(store)
        with server.client(3) as client:
            assert client.exists("rq:queues")
        store.close()


@pytest.mark.parametrize("word", ["ssl_ca_certs=/x", "ssl_cert_reqs=none", "ssl_check_hostname=false"])
@pytest.mark.parametrize("start", ["redis://127.0.0.1:1/0", "unix:///tmp/none.sock"])
def test_words_of_tls_without_it(start: str, word: str) -> None:
    """Whoever writes them means TLS: he is told that this URL has none."""
    with pytest.raises(ConfigError, match="rediss://"):
        RQStore(f"{start}?{word}")


@pytest.mark.parametrize("word", ["nope", "None", "CERT_NONE", "0"])
def test_checks_of_certificates_that_there_are_not(word: str) -> None:
    """A wrong word is said before anything is connected to, and switches no check off."""
    with pytest.raises(ConfigError, match="there is required, optional, none"):
        RQStore(f"rediss://127.0.0.1:1/0?ssl_cert_reqs={word}")
