"""Where a Redis is, and one connection to it, over which bytes go as they are.

    Address(url) ──connect──▶ Connection: send ──▶ socket ──▶ read
                 ──client───▶ redis-py's own client

redis-py opens connections (TLS, passwords, sockets); a command by it costs 60 us of Python, here 10. A right that the
user of a Redis lacks is told in words, as Redis names the command only where no script runs it:

    NOPERM ... to run the 'info' command                          ──▶ INFO
    ERR The user executing the script can't run ... user_script:7 ──▶ what line 7 of the script calls
    NOPERM ... one of the keys used as arguments                  ──▶ the command that was sent
"""

from __future__ import annotations

import os
import re
import select
from math import ceil
from ssl import SSLSocket
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import Connection as RedisConnection
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry

from taskq.errors import BackendUnavailable, ConfigError
from taskq.executors.rq.keys import Keys, default_prefix
from taskq.executors.rq.scripts import Scripts
from taskq.executors.rq.url import Sentinels, check_database, commands, has_several_hosts, hosts_of, part, truth
from taskq.locks import pass_on
from taskq.redact import safe_text, safe_url

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

__all__ = [
    "ANSWER_TIMEOUT",
    "BROKEN",
    "PASSING",
    "Address",
    "Connection",
    "RedisError",
    "as_text",
    "is_refusal",
    "missing_right",
    "pack",
    "readable",
]

#: Seconds that a thread looks for an answer before it sleeps: to sleep and be woken takes longer than most scripts.
SPIN: Final = 0.00006

#: Bytes read from a socket at once.
READ_SIZE: Final = 65_536

#: What a broken connection raises.
BROKEN: Final = (OSError, hiredis.HiredisError)


def pack(*words: str | bytes | float) -> bytes:
    """Return a command as it goes over the wire; texts are those that `as_text` gave, or others."""
    found = tuple(word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word for word in words)
    return bytes(hiredis.pack_command(found))  # type: ignore[arg-type]  # its stub describes a tuple of one


def as_text(data: bytes) -> str:
    """Return a name that Redis gave: it may be no text, and must find the same key again."""
    return data.decode("utf-8", "surrogateescape")


class RedisError(Exception):
    """Say what Redis answered instead of doing what it was asked."""

    @property
    def code(self) -> str:
        """The first word of the answer."""
        return str(self).partition(" ")[0]


class Connection:
    """One connection. Not for two threads at once."""

    __slots__ = ("__weakref__", "_connection", "_may_glimpse", "_reader", "pid", "socket")

    def __init__(self, connection: Any, timeout: float | None) -> None:
        self._connection = connection
        self.socket: socket.socket = connection._sock  # noqa: SLF001  # redis-py has no other way to the bytes
        self.socket.settimeout(timeout)
        #: Whether what is there can be read without waiting, and as it is.
        self._may_glimpse = timeout is not None and not isinstance(self.socket, SSLSocket)
        self._reader = hiredis.Reader(replyError=RedisError)
        self.pid = os.getpid()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self.socket.fileno()

    def send(self, data: bytes) -> None:
        """Send all of these bytes."""
        self.socket.sendall(data)

    def read(self) -> Any:
        """Return the next reply; a RedisError is returned, not raised.

        Raises:
            OSError: the connection is broken, or no answer came in time.
        """
        reply = self._reader.gets()
        while reply is False:
            self._feed()
            reply = self._reader.gets()
        return reply

    def read_now(self) -> list[Any]:
        """Return the replies that are there; waits for the first bytes only."""
        self._feed()
        replies = []
        while (reply := self._reader.gets()) is not False:
            replies.append(reply)
        return replies

    def _feed(self) -> None:
        data = self._glimpse() or self.socket.recv(READ_SIZE)
        if not data:
            raise ConnectionResetError("the connection was closed by Redis")
        self._reader.feed(data)

    def _glimpse(self) -> bytes:
        """Return what comes within a moment in which the thread stays awake."""
        if not self._may_glimpse:
            return b""
        until = perf_counter() + SPIN
        while True:
            try:
                return os.read(self.socket.fileno(), READ_SIZE)  # -1 once another thread has closed it
            except BlockingIOError:
                if perf_counter() > until:
                    return b""
                os.sched_yield()

    def close(self) -> None:
        """Close the connection; in a forked process only this copy of it."""
        if self.pid == os.getpid():
            self._connection.disconnect()
        else:
            self.socket.close()


def readable(sources: Iterable[Any], seconds: float) -> list[Any]:
    """Return those of some descriptors, or objects with one, that can be read within so many seconds.

    By poll: select refuses the descriptors above 1,023 that a large program has.
    """
    poll = select.poll()
    known = {source if isinstance(source, int) else source.fileno(): source for source in sources}
    for fd in known:
        poll.register(fd, select.POLLIN)
    return [known[fd] for fd, _ in poll.poll(ceil(max(0.0, seconds) * 1000))]


#: What stands in an error of a Redis that refuses a command, a key or a channel by its access control list.
REFUSALS: Final = ("noperm", "no permissions", "the user executing the script can't")

_QUOTED: Final = re.compile(r"'([a-z|_-]{1,40})' command")
_LINE: Final = re.compile(r"user_script:(\d{1,6})")
_CALL: Final = re.compile(rb"call\('([A-Z]{2,20})'")


def is_refusal(text: str) -> bool:
    """Return whether this is what Redis answers when its access control list forbids something."""
    low = text[:400].lower()
    return any(word in low for word in REFUSALS)


def missing_right(text: str, sent: bytes = b"", script: bytes = b"") -> str:
    """Return what the user may not do, and the cure. `sent`: the command over the wire, `script`: the text it ran."""
    commands = _commands(text, sent, script)
    told = " or ".join(name.upper().replace("|", " ") for name in commands) or "a command that taskq needs"
    low = text.lower()
    if "key" in low:
        return f"its user may not run {told} on these keys: give it the keys of its prefix, as ~rq:*"
    if "channel" in low:
        return f"its user may not run {told} on these channels: give it the channels of its prefix, as &rq:*"
    rules = " ".join(f"+{name.lower()}" for name in commands) or "the rules in contrib/acl"
    return f"its user may not run {told}: give it {rules} by ACL SETUSER; contrib/acl has all that is needed"


def _commands(text: str, sent: bytes, script: bytes) -> list[str]:
    quoted = _QUOTED.search(text)
    if quoted is not None:
        return [quoted[1]]
    line = _LINE.search(text)
    if line is not None and script:
        lines = script.split(b"\n")
        at = int(line[1]) - 1
        found = _CALL.findall(lines[at]) if at < len(lines) else []
        return list(dict.fromkeys(name.decode().lower() for name in found))
    words = sent[:200].split(b"\r\n")
    return [words[2].decode("ascii", "replace").lower()] if sent.startswith(b"*") and len(words) > 2 else []  # noqa: PLR2004  # head, length, name


#: Seconds until a connection that does not answer is given up; connecting and asking together stay below 5.
CONNECT_TIMEOUT: Final = 4.0
ANSWER_TIMEOUT: Final = 4.0

TIMEOUTS: Final = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": ANSWER_TIMEOUT}

#: How far a certificate is checked; for a client the first two are the same.
CERT_REQS: Final = ("required", "optional", "none")

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
        self.keys = Keys(own.get("prefix") or default_prefix())
        self.scripts = Scripts(self.keys)
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
        self._class = options.pop("connection_class", RedisConnection)
        only_tls = [name for name in options if name.startswith("ssl_")]
        if only_tls and not self.is_encrypted:
            raise ConfigError(f"{self.url}: {only_tls[0]} is for TLS: write rediss:// in front, or leave it out")
        checks = options.get("ssl_cert_reqs", "required")
        if checks not in CERT_REQS:
            raise ConfigError(f"{self.url}: ssl_cert_reqs={checks!r}: there is {', '.join(CERT_REQS)}")
        self._options = options
        self._sentinels = Sentinels(hosts, own["sentinel"], self._to_sentinels(own)) if hosts else None

    def __repr__(self) -> str:
        return f"<Address {self.url}>"

    def connect(self, timeout: float | None = ANSWER_TIMEOUT) -> Connection:
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
        return Connection(connection, timeout)

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
        if self._options.get("ssl_cert_reqs") == "none":
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
