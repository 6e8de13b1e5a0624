"""The state of a database as it can be compared: ids, times and tokens replaced by what they stand for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: An instant, in RQ's two ways of writing one.
ISO = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
STAMP = re.compile(rb"\b1[5-9]\d{8}(\.\d+)?\b")

#: Ids that RQ draws for executions.
TOKEN = re.compile(rb"\b[0-9a-f]{32}\b")

#: Fields that taskq writes beside RQ's own; and the value that stock RQ copies into the hash of a job that runs again,
#: where only the deprecated `Job.result` would read it. Fields that are empty say nothing.
OURS = re.compile(rb"tq_.*|result")


def rounded(seconds: int) -> str:
    """Return a TTL, some seconds of which may have passed."""
    return "none" if seconds < 0 else str(round(seconds, -1))


def state(client: Any, names: dict[str, str], ttl: Callable[[int], str] = rounded) -> dict[str, Any]:
    """Return what RQ's keys hold, with TTLs. `names`: ids and names -> what they are called in both worlds."""
    found = {}
    for key in client.keys("*"):
        name = _renamed(key, names).decode()
        if ":tq:" not in name and not name.startswith(("rq:worker:", "rq:clean_", "rq:workers")):
            found[name] = (_value(client, key, names), ttl(client.ttl(key)))
    return dict(sorted(found.items()))


def _renamed(data: bytes, names: dict[str, str]) -> bytes:
    for name, called in names.items():
        data = data.replace(name.encode(), called.encode())
    return STAMP.sub(b"STAMP", ISO.sub(b"ISO", TOKEN.sub(b"TOKEN", data)))


def _value(client: Any, key: bytes, names: dict[str, str]) -> Any:
    kind = client.type(key)
    if kind == b"hash":
        fields = client.hgetall(key).items()
        return {k: _field(k, v, names) for k, v in sorted(fields) if v and not OURS.fullmatch(k)}
    if kind == b"list":
        return [_renamed(entry, names) for entry in client.lrange(key, 0, -1)]
    if kind == b"set":
        return sorted(_renamed(entry, names) for entry in client.smembers(key))
    if kind == b"zset":
        entries = client.zrange(key, 0, -1, withscores=True)
        return sorted((_renamed(entry, names), score == float("inf")) for entry, score in entries)
    if kind == b"stream":
        return [{k: _field(k, v, names) for k, v in sorted(entry.items())} for _, entry in client.xrange(key)]
    return _renamed(client.get(key), names)


def _field(name: bytes, value: bytes, names: dict[str, str]) -> bytes:
    """Return a field's value; of a traceback only that there is one, its frames differ."""
    return b"TRACEBACK" if name == b"exc_string" else b"DATA" if name == b"data" else _renamed(value, names)
