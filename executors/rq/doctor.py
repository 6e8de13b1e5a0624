"""What `taskq doctor` says of a Redis: version, durability, room, clock, who can listen, who works."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final

from executors.rq import inventory
from taskq.store import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from executors.rq.home import Home

__all__ = ["findings"]

#: The oldest Redis that has all commands that the scripts use (LMOVE, COPY, ZMSCORE, SMISMEMBER, LPOP with a count).
OLDEST: Final = (6, 2)

#: Parts of the memory limit in use from which on it is said.
FULL, NEARLY_FULL = 0.95, 0.8

#: Seconds by which clocks may differ before it is said; nothing depends on it.
SKEW: Final = 5.0


def findings(store: Home) -> list[Finding]:
    """Return one finding for each thing that was looked at."""
    before = time()
    texts = store.line.commands(
        [("INFO", "server"), ("INFO", "memory"), ("INFO", "persistence"), ("INFO", "replication"), ("TIME",)]
    )
    between = (before + time()) / 2
    info = {}
    for text in texts[:4]:
        info.update(_parsed(text))
    info["skew"] = str(int(texts[4][0]) + int(texts[4][1]) / 1e6 - between)
    looks: tuple[Callable[[Home, Mapping[str, str]], Finding], ...] = (
        _version,
        _role,
        _durability,
        _eviction,
        _memory,
        _clock,
        _transport,
        _pickle,
        _streams,
        _workers,
    )
    return [look(store, info) for look in looks]


def _parsed(text: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


def _config(store: Home, name: str) -> str | None:
    """Return a setting of the server, or None where it is not told (managed servers hide them)."""
    try:
        pair = store.line.command("CONFIG", "GET", name)
    except RuntimeError:
        return None
    return pair[1].decode() if len(pair) > 1 else None


def _version(_store: Home, info: Mapping[str, str]) -> Finding:
    text = info.get("redis_version", "?")
    parts = tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())
    if parts >= OLDEST:
        return Finding(topic="version", level="ok", text=f"Redis {text}")
    return Finding(topic="version", level="problem", text=f"Redis {text} is too old", cure="use Redis 6.2 or newer")


def _role(_store: Home, info: Mapping[str, str]) -> Finding:
    if info.get("role", "master") == "master":
        return Finding(topic="role", level="ok", text="it takes writes")
    return Finding(
        topic="role", level="problem", text="it is a replica and takes no writes", cure="give the URL of the master"
    )


def _durability(store: Home, info: Mapping[str, str]) -> Finding:
    if info.get("aof_enabled") == "1":
        how = _config(store, "appendfsync") or "?"
        if info.get("aof_last_write_status", "ok") != "ok":
            return Finding(
                topic="durability",
                level="problem",
                text="its append-only file cannot be written",
                cure="look at its disk",
            )
        return Finding(topic="durability", level="ok", text=f"append-only file, appendfsync {how}")
    snapshots = _config(store, "save")
    if snapshots:
        return Finding(
            topic="durability",
            level="warning",
            text=f"snapshots only (save {snapshots}): jobs of the last minutes are lost when it ends badly",
            cure="CONFIG SET appendonly yes",
        )
    return Finding(
        topic="durability",
        level="warning",
        text="nothing is written to disk: all jobs are lost when it restarts",
        cure="CONFIG SET appendonly yes, and the same in redis.conf",
    )


def _eviction(store: Home, info: Mapping[str, str]) -> Finding:
    policy = info.get("maxmemory_policy") or _config(store, "maxmemory-policy") or "?"
    if policy == "noeviction" or info.get("maxmemory", "0") == "0":
        return Finding(topic="eviction", level="ok", text=f"maxmemory-policy {policy}: no job is thrown away for room")
    return Finding(
        topic="eviction",
        level="problem",
        text=f"maxmemory-policy {policy}: at its limit of memory Redis throws jobs away",
        cure="CONFIG SET maxmemory-policy noeviction",
    )


def _memory(_store: Home, info: Mapping[str, str]) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if limit == 0:
        total = int(info.get("total_system_memory", 0))
        of = f" of the machine's {total / 2**20:,.0f} MiB" if total else ""
        return Finding(topic="memory", level="ok", text=f"{used / 2**20:,.1f} MiB in use{of}, no limit set")
    part = used / limit
    text = f"{used / 2**20:,.1f} of {limit / 2**20:,.1f} MiB in use ({part:.0%})"
    level = "problem" if part >= FULL else "warning" if part >= NEARLY_FULL else "ok"
    cure = "" if level == "ok" else "work off or purge jobs, shorten result_ttl, or raise maxmemory"
    return Finding(topic="memory", level=level, text=text, cure=cure)


def _clock(_store: Home, info: Mapping[str, str]) -> Finding:
    skew = float(info["skew"])
    if abs(skew) < SKEW:
        return Finding(topic="clock", level="ok", text="this machine and Redis agree on the time")
    return Finding(
        topic="clock",
        level="warning",
        text=f"this machine's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} that of Redis: "
        "leases and delays go by Redis' clock, so only `at=` is affected",
        cure="run an NTP service on both",
    )


def _transport(store: Home, _info: Mapping[str, str]) -> Finding:
    url = store.url
    host = url.partition("://")[2].rpartition("@")[2].partition("/")[0].partition("?")[0].rpartition(":")[0]
    if url.startswith("rediss://"):
        return Finding(topic="transport", level="ok", text="TLS")
    if url.startswith("unix://") or host in ("", "localhost", "[::1]") or host.startswith("127."):
        return Finding(topic="transport", level="ok", text="on this machine only")
    return Finding(
        topic="transport",
        level="warning",
        text=f"jobs travel to {host} unencrypted: whoever is on the way can read and change them",
        cure="use rediss://, or a network that you trust",
    )


def _pickle(store: Home, _info: Mapping[str, str]) -> Finding:
    if store.address.allow_pickle:
        return Finding(
            topic="pickle",
            level="warning",
            text="allow_pickle=1: whoever can write to this Redis can run any code in workers of this URL",
            cure="have the clients use JSON or taskq.serializer.MsgpackSerializer",
        )
    return Finding(topic="pickle", level="ok", text="pickled jobs are refused")


def _streams(store: Home, _info: Mapping[str, str]) -> Finding:
    size = _config(store, "stream-node-max-bytes")
    text = "results that stock workers write take 4.7 kB each"
    if size is None or not size.isdecimal() or int(size) > 1024:  # noqa: PLR2004  # below it, streams are small anyway
        return Finding(
            topic="result streams",
            level="ok",
            text=f"{text}; taskq's own about 0.6 kB",
            cure="CONFIG SET stream-node-max-bytes 256 makes theirs as small",
        )
    return Finding(topic="result streams", level="ok", text=f"stream-node-max-bytes {size}: small for all workers")


def _workers(store: Home, _info: Mapping[str, str]) -> Finding:
    found = inventory.workers(store)
    if not found:
        return Finding(
            topic="workers", level="warning", text="no worker is there", cure=f"taskq worker --url {store.url}"
        )
    running = sum(worker.running for worker in found)
    return Finding(topic="workers", level="ok", text=f"{len(found)} there, {running} jobs running")
