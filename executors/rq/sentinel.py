"""Which Redis is the master now, asked of Redis Sentinel: redis://sentinel-1,sentinel-2:26380/0?sentinel=mymaster."""

from __future__ import annotations

import re
from typing import Any, Final

import redis
from redis.sentinel import Sentinel

from taskq.errors import ConfigError

__all__ = ["Sentinels", "has_several_hosts", "hosts_of"]

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
