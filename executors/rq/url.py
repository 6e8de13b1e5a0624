"""What a redis:// URL says: the words in its query, ours and those that redis-py reads, and the Sentinels to ask.

redis://sentinel-1,sentinel-2:26380/0?sentinel=mymaster ──▶ Sentinels ──▶ which Redis is the master now
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode

import redis
from redis.sentinel import Sentinel

from taskq.config import parse_truth
from taskq.errors import ConfigError
from taskq.names import did_you_mean

__all__ = ["COMMANDS", "Sentinels", "check_database", "commands", "has_several_hosts", "hosts_of", "part", "truth"]

#: What may stand in the query of the URL, besides what redis-py itself reads there.
WORDS: Final = (
    "prefix",
    "allow_pickle",
    "allow_callbacks",
    "allow_unsigned_rq",
    "rq_commands",
    "sentinel",
    "sentinel_username",
    "sentinel_password",
)

#: What `?rq_commands=` may list: RQ's commands, and one word for those that end a job.
COMMANDS: Final = {
    "stop": ("stop-job", "stop-execution"),
    "shutdown": ("shutdown",),
    "kill-horse": ("kill-horse",),
    "stop-job": ("stop-job",),
    "stop-execution": ("stop-execution",),
}

#: redis-py's own words that make sense here.
REDIS_WORDS: Final = (
    "db",
    "username",
    "password",
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
    "ssl_min_version",
)


def part(url: str, shown: str) -> tuple[dict[str, str], str]:
    """Return our words in a URL's query, and the URL with only redis-py's. `shown`: the URL without secrets.

    Raises:
        ConfigError: it has a word that neither knows.
    """
    place, mark, query = url.partition("?")
    own: dict[str, str] = {}
    rest = []
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in WORDS:
            own[name] = text
        elif name in REDIS_WORDS:
            rest.append((name, text))
        else:
            _refuse_split(query, shown)
            hint = did_you_mean(name, (*WORDS, *REDIS_WORDS)) or f"; there is {', '.join(WORDS)}"
            raise ConfigError(f"{shown}: there is no setting {name!r}{hint}")
    if not mark:
        return own, url
    return own, f"{place}?{urlencode(rest)}" if rest else place


def _refuse_split(text: str, shown: str) -> None:
    """Refuse a password with a `/`, `?` or `#` in it, by which the URL falls apart: what follows is not to be shown.

    Raises:
        ConfigError: there is an "@" in what should be behind the host.
    """
    if "@" in text:
        raise ConfigError(f"{shown}: write what stands before the @ with %2F for /, %3F for ?, %23 for #")


def check_database(url: str, shown: str) -> None:
    """Refuse a database that is no number, or two of them: redis-py would take another one without a word.

    Raises:
        ConfigError: it is one of these.
    """
    place, _, query = url.partition("?")
    scheme, _, rest = place.partition("://")
    if scheme.lower() != "unix":
        _refuse_split(rest.partition("/")[2] + url.partition("#")[2], shown)
    path = "" if scheme.lower() == "unix" else unquote(rest.partition("/")[2])
    said = [path.rstrip("/"), *(text for name, text in parse_qsl(query, keep_blank_values=True) if name == "db")]
    numbers = [text for text in said[:1] if text] + said[1:]
    for text in numbers:
        if not (text.isascii() and text.isdecimal()):
            raise ConfigError(f"{shown}: {text[:40]!r} is no database of Redis: give its number, as redis://host/0")
    if len({int(text) for text in numbers}) > 1:
        raise ConfigError(f"{shown}: it names two databases, {' and '.join(numbers)}: give one")


def commands(text: str | None, shown: str) -> frozenset[str] | None:
    """Return the commands of RQ that a URL lists, None where it lists none: nobody has said which are obeyed.

    Raises:
        ConfigError: there is no such command.
    """
    if text is None:
        return None
    found: set[str] = set()
    for word in filter(None, map(str.strip, text.split(","))):
        if word not in COMMANDS:
            hint = did_you_mean(word, COMMANDS) or f"; there is {', '.join(COMMANDS)}"
            raise ConfigError(f"{shown}: rq_commands={text!r}: there is no command {word!r}{hint}")
        found.update(COMMANDS[word])
    return frozenset(found)


def truth(name: str, own: dict[str, str], shown: str) -> bool:
    """Return whether a URL switches something on."""
    try:
        return name in own and parse_truth(own[name])
    except ConfigError as exc:
        raise ConfigError(f"{shown}: {name}={exc}") from None


#: Where a Sentinel listens unless its URL says so.
PORT: Final = 26_379

_HOSTS: Final = re.compile(r"(?P<before>rediss?://(?:[^/?]*@)?)(?P<hosts>[^/?@]+)(?P<after>.*)", re.DOTALL)
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(?P<port>\d{1,5}))?")


def has_several_hosts(url: str) -> bool:
    """Return whether a URL names more than one."""
    found = _HOSTS.fullmatch(url)
    return found is not None and "," in found["hosts"]


def hosts_of(url: str, shown: str) -> tuple[list[tuple[str, int]], str]:
    """Return the Sentinels that a URL names, and the URL with one host. `shown`: the URL without secrets.

    Raises:
        ConfigError: it names none.
    """
    found = _HOSTS.fullmatch(url)
    hosts = []
    for entry in found["hosts"].split(",") if found else ():
        place = _HOST.fullmatch(entry)
        if place is None:
            raise ConfigError(f"{shown}: {entry!r} is no HOST or HOST:PORT of a Sentinel")
        hosts.append((place["host"].strip("[]"), int(place["port"] or PORT)))
    if found is None:
        raise ConfigError(f"{shown}: with sentinel= give the Sentinels: redis://HOST:PORT,HOST:PORT/0?sentinel=NAME")
    return hosts, f"{found['before']}localhost{found['after']}"


class Sentinels:
    """Ask some Sentinels. `options`: how to connect to them, as redis-py takes it."""

    def __init__(self, hosts: list[tuple[str, int]], name: str, options: dict[str, Any]) -> None:
        self._hosts = hosts
        self._name = name
        self._options = options

    def master(self) -> dict[str, Any]:
        """Return host and port of the master, as the first Sentinel says that can be asked and knows one that is up.

        Raises:
            redis.RedisError: there is none; says what each of them answered.
        """
        answers = []
        for host, port in self._hosts:
            sentinel: Any = redis.Redis(host=host, port=port, **self._options)
            try:
                found = sentinel.sentinel_masters().get(self._name)
            except redis.RedisError as exc:
                answers.append(f"{host}:{port}: {exc}")
            else:
                if found and found["is_master"] and not (found["is_sdown"] or found["is_odown"]):
                    return {"host": found["ip"], "port": found["port"]}
                answers.append(f"{host}:{port}: {'it is down' if found else 'it knows none of this name'}")
            finally:
                sentinel.close()
        raise redis.exceptions.ConnectionError(f"no master {self._name!r}, say the Sentinels ({'; '.join(answers)})")

    def client(self, options: dict[str, Any]) -> Any:
        """Return redis-py's own client of the master, whichever that is when it connects."""
        asked: Any = Sentinel(self._hosts, sentinel_kwargs=self._options)  # type: ignore[no-untyped-call]  # redis-py's own gap
        return asked.master_for(self._name, **options)
