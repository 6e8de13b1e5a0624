"""Where a Redis is: redis-py opens connections to it (TLS, passwords, sockets).

    Address(url) ──connect──▶ Wire
                 ──client───▶ redis-py's own client

What stands in the URL is read by `url`.
"""

from __future__ import annotations

from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, parse_url
from redis.retry import Retry

from taskq.errors import BackendUnavailable, ConfigError
from taskq.executors.rq.layout import Layout, default_prefix
from taskq.executors.rq.rights import is_refusal, missing_right
from taskq.executors.rq.scripts import Scripts
from taskq.executors.rq.sentinel import Sentinels, has_several_hosts, hosts_of
from taskq.executors.rq.url import check_database, commands, part, truth
from taskq.executors.rq.wire import Wire
from taskq.locks import pass_on
from taskq.redact import safe_text, safe_url

__all__ = ["ANSWER_TIMEOUT", "PASSING", "Address"]

#: Seconds until a connection that does not answer is given up; connecting and asking together stay below 5.
CONNECT_TIMEOUT: Final = 4.0
ANSWER_TIMEOUT: Final = 4.0

TIMEOUTS: Final = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": ANSWER_TIMEOUT}

#: Options of a connection by which somebody shows who he is.
CREDENTIALS: Final = ("username", "password", "ssl_certfile", "ssl_keyfile")

#: Seconds that a Sentinel gets: the next one is asked after them.
SENTINEL_TIMEOUT: Final = 1.0

#: The first words of errors that pass: the server is starting, is a replica, runs a long script, cannot write.
PASSING: Final = {
    "LOADING": "it is still loading its data",
    "READONLY": "it is a replica now and takes no writes",
    "MASTERDOWN": "it is a replica whose master is away",
    "BUSY": "it is busy with a script",
    "MISCONF": "it cannot write its data to disk: look at its log and its disk",
    "NOREPLICAS": "it has too few replicas to take writes",
    "CLUSTERDOWN": "its cluster is down",
    "NOAUTH": "it asks for a password: write redis://:PASSWORD@host",
    "WRONGPASS": "it refuses the user or the password",
    "NOPERM": "its user may not do what taskq needs",
}

#: What stands in the errors of a Redis that is there, but not for us as the URL has it; what to do, in their order.
CAUSES: Final = (
    ("without any password configured", "it has no password: leave the one in the URL out"),
    ("no password is set", "it has no password: leave the one in the URL out"),
    ("invalid username-password pair", "it refuses the user or the password in the URL"),
    ("invalid password", "it refuses the password in the URL"),
    ("authentication required", "it asks for a password: write redis://:PASSWORD@host"),
    ("db index", "it has no database of that number (its setting `databases`): give a smaller one, as redis://host/0"),
    ("certificate is not valid for", "its certificate is for another name: write the host as the certificate has it"),
    ("certificate verify failed", "its certificate is signed by nobody known here: add ?ssl_ca_certs=FILE"),
    ("max number of clients", "it has as many clients as its `maxclients` allows"),
    ("wrong_version_number", "that port does not speak TLS: write redis://"),
    ("record layer failure", "that port does not speak TLS: write redis://"),
    ("name or service not known", "is the host's name right?"),
    ("name resolution", "can names of hosts be looked up here?"),
    ("nodename nor servname", "is the host's name right?"),
    ("refused", "is redis-server running there?"),
    ("protocol error", "what answers there is no Redis: is the port right?"),
)
#: The same, where it depends on whether TLS was wanted.
TLS_CAUSES: Final = (
    ("no such file or directory", "is the path of the certificates in the URL right?"),
    ("timeout", "does that port speak TLS? If not, write redis://"),
    ("reset by peer", "does that port speak TLS? If not, write redis://"),
    ("closed", "does that port speak TLS? If not, write redis://"),
)
PLAIN_CAUSES: Final = (
    ("no such file or directory", "is redis-server running there, with this `unixsocket`?"),
    ("permission denied", "may this user open the socket?"),
    (
        "timeout",
        "something takes the connection there, or its packets are dropped: is it redis-server, and not frozen?",
    ),
    ("reset by peer", "is redis-server running there? If that port wants TLS, write rediss://"),
    ("closed", "is redis-server running there? If that port wants TLS, write rediss://"),
)


class Address:
    """Where a Redis is, and under which names jobs live there. With `?sentinel=NAME`, Sentinels tell which one it is.

    Raises:
        ConfigError: the URL has an unknown word in its query, or a value that makes no sense.
    """

    def __init__(self, url: str) -> None:
        self.url = safe_url(url)
        self.secret_url = url
        own, redis_url = part(url, self.url)
        self.layout = Layout(own.get("prefix") or default_prefix())
        self.scripts = Scripts(self.layout)
        self.allow_pickle = truth("allow_pickle", own, self.url)
        self.allow_callbacks = truth("allow_callbacks", own, self.url)
        self.allow_unsigned = truth("allow_unsigned_rq", own, self.url)
        #: RQ's commands that are obeyed; None: nobody has said which.
        self.commands = commands(own.get("rq_commands"), self.url)
        hosts: list[tuple[str, int]] = []
        if "sentinel" in own:
            hosts, redis_url = hosts_of(redis_url, self.url)
        elif has_several_hosts(redis_url):
            raise ConfigError(f"{self.url}: several hosts are Sentinels: add ?sentinel=NAME, the name of the master")
        check_database(redis_url, self.url)
        try:
            options: dict[str, Any] = parse_url(redis_url)  # type: ignore[no-untyped-call]  # redis-py's own gap
        except ValueError as exc:
            raise ConfigError(f"{self.url}: {safe_text(str(exc))}") from None
        self._class = options.pop("connection_class", Connection)
        only_tls = [name for name in options if name.startswith("ssl_")]
        if only_tls and not self.is_encrypted:
            raise ConfigError(f"{self.url}: {only_tls[0]} is for TLS: write rediss:// in front, or leave it out")
        self._options = options
        self._sentinels = Sentinels(hosts, own["sentinel"], self._to_sentinels(own)) if hosts else None

    def __repr__(self) -> str:
        return f"<Address {self.url}>"

    def connect(self, timeout: float | None = ANSWER_TIMEOUT) -> Wire:
        """Return a new connection. `timeout`: seconds that an answer may take, None: any time.

        Raises:
            BackendUnavailable: nobody is there, or not for us.
        """
        try:
            place = self._sentinels.master() if self._sentinels is not None else {}
            connection = self._class(**{**self._options, **place}, protocol=2, **TIMEOUTS)
            connection.connect()
        except (redis.RedisError, OSError, ValueError) as exc:
            pass_on(exc)
            raise self.unavailable(exc) from exc
        return Wire(connection, timeout)

    @property
    def is_encrypted(self) -> bool:
        """Whether it speaks TLS."""
        return issubclass(self._class, SSLConnection)

    @property
    def host(self) -> str:
        """The host that the URL names, or the path of its socket; a master that Sentinels know: its name there."""
        return str(self._options.get("path") or self._options.get("host") or "localhost")

    @property
    def unchecked(self) -> str:
        """The word in the URL that switches a check of its certificate off; empty: all is checked, or no TLS."""
        if not self.is_encrypted:
            return ""
        if str(self._options.get("ssl_cert_reqs", "required")).lower() in ("none", "cert_none", "0"):
            return "ssl_cert_reqs"
        return "" if self._options.get("ssl_check_hostname", True) else "ssl_check_hostname"

    def is_open(self) -> bool:
        """Return whether it lets in who knows no password and has no certificate of his own.

        Raises:
            BackendUnavailable: it does not answer.
        """
        strange = {name: value for name, value in self._options.items() if name not in (*CREDENTIALS, "db")}
        if not any(self._options.get(name) for name in CREDENTIALS):
            return True
        place = self._sentinels.master() if self._sentinels is not None else {}
        connection = self._class(**{**strange, **place}, protocol=2, **TIMEOUTS)
        try:
            connection.connect()
            connection.send_command("PING")
            return connection.read_response() in (b"PONG", "PONG")
        except (TimeoutError, redis.TimeoutError) as exc:
            raise self.unavailable(exc) from exc
        except (redis.RedisError, OSError):
            return False
        finally:
            connection.disconnect()

    def _to_sentinels(self, own: dict[str, str]) -> dict[str, Any]:
        """Return how to connect to Sentinels: they have users of their own, and one of them may not answer."""
        options = {name: value for name, value in self._options.items() if name.startswith("ssl_")}
        return {
            **options,
            "ssl": issubclass(self._class, SSLConnection),
            "username": own.get("sentinel_username"),
            "password": own.get("sentinel_password"),
            "protocol": 2,
            "socket_connect_timeout": SENTINEL_TIMEOUT,
            "socket_timeout": SENTINEL_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),  # the next one is asked instead
        }

    def unavailable(self, exc: BaseException, sent: bytes = b"", script: bytes = b"") -> BackendUnavailable:
        """Return the error that says why this Redis cannot be used now, and what to do.

        `sent`: the command that it refused, as it goes over the wire; `script`: the text of what that ran.
        """
        text = safe_text(str(exc)) or type(exc).__name__
        if is_refusal(text):
            return BackendUnavailable(f"{self.url} cannot be used: {missing_right(text, sent, script)} ({text})")
        cure = PASSING.get(text.partition(" ")[0])
        if cure:
            return BackendUnavailable(f"{self.url} cannot be used now: {cure} ({text})")
        causes = (*CAUSES, *(TLS_CAUSES if issubclass(self._class, SSLConnection) else PLAIN_CAUSES))
        low = text.lower()
        hint = next((cure for word, cure in causes if word in low), "is redis-server running there?")
        return BackendUnavailable(f"{self.url} cannot be reached: {text}: {hint}")

    def client(self) -> Any:
        """Return redis-py's own client, for what needs RQ's own classes."""
        options = {**self._options, "protocol": 2, **TIMEOUTS}
        if self._sentinels is not None:
            return self._sentinels.client({**options, "ssl": issubclass(self._class, SSLConnection)})
        return redis.Redis.from_pool(redis.ConnectionPool(self._class, **options))
