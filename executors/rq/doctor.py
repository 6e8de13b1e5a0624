"""What `taskq doctor` says of a Redis: version, durability, room, clock, who can listen, who works.

A user that may not run INFO or CONFIG GET, as the viewer of contrib/acl, is told so, and all else.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from time import time
from typing import TYPE_CHECKING, Final

from taskq.executors.rq.connection import RedisError, is_refusal, pack
from taskq.executors.rq.queries import workers
from taskq.store import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskq.executors.rq.client import Backend
    from taskq.executors.rq.connection import Address

    Look = Callable[[Backend, Mapping[str, str]], Finding]

__all__ = ["findings", "is_on_this_machine", "risks", "security_findings"]

#: The oldest Redis that has all commands that the scripts use (LMOVE, COPY, ZMSCORE, SMISMEMBER, LPOP with a count).
OLDEST: Final = (6, 2)

#: Parts of the memory limit in use from which on it is said.
FULL, NEARLY_FULL = 0.95, 0.8

#: Seconds by which clocks may differ before it is said; nothing depends on it.
SKEW: Final = 5.0


def findings(store: Backend) -> list[Finding]:
    """Return one finding for each thing that was looked at."""
    info = _info(store)
    of_server: tuple[Look, ...] = (_version, _role, _durability, _eviction, _memory) if info else ()
    looks: tuple[Look, ...] = (*of_server, _clock, _pickle, _streams, _workers)
    told = [look(store, info) for look in looks]
    return [*told, *security_findings(store.address), *_rights(store, info)]


def _info(store: Backend) -> dict[str, str]:
    """Return what INFO says in its sections that are looked at; empty where this user may not run it."""
    sections = ("server", "memory", "persistence", "replication")
    requests = [(None, pack("INFO", section)) for section in sections]
    texts = store.client.exchange(requests, partial=True)
    info: dict[str, str] = {}
    for request, text in zip(requests, texts, strict=True):
        if not isinstance(text, RedisError):
            info.update(_parsed(text))
        elif not is_refusal(str(text)):
            raise store.client.mapped(text, request)
    return info


def _parsed(text: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


def _config(store: Backend, name: str) -> str | None:
    """Return a setting of the server, or None where it is not told (managed servers hide them)."""
    (pair,) = store.client.exchange([(None, pack("CONFIG", "GET", name))], partial=True)
    return pair[1].decode() if not isinstance(pair, RedisError) and len(pair) > 1 else None


def _rights(store: Backend, info: Mapping[str, str]) -> list[Finding]:
    """Name what this user may not ask, and what could therefore not be looked at."""
    lacks = [] if info else ["INFO (version, role, durability, eviction, memory)"]
    (answer,) = store.client.exchange([(None, pack("CONFIG", "GET", "save"))], partial=True)
    if isinstance(answer, RedisError):
        lacks.append("CONFIG GET (snapshots, appendfsync)")
    if not lacks:
        return []
    text = f"this user may not run {' and '.join(lacks)}: not looked at"
    cure = "have a user with +info +config|get look, or be content: workers and clients need neither of them to work"
    return [Finding(topic="rights", level="ok", text=text, cure=cure)]


def _version(_store: Backend, info: Mapping[str, str]) -> Finding:
    text = info.get("redis_version", "?")
    parts = tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())
    if parts >= OLDEST:
        own = info.get("valkey_version")  # Valkey says in redis_version which Redis it does as
        name = f"Valkey {own} (commands of Redis {text})" if own else f"Redis {text}"
        return Finding(topic="version", level="ok", text=name)
    return Finding(topic="version", level="problem", text=f"Redis {text} is too old", cure="use Redis 6.2 or newer")


def _role(_store: Backend, info: Mapping[str, str]) -> Finding:
    if info.get("role", "master") == "master":
        return Finding(topic="role", level="ok", text="it takes writes")
    return Finding(
        topic="role", level="problem", text="it is a replica and takes no writes", cure="give the URL of the master"
    )


def _durability(store: Backend, info: Mapping[str, str]) -> Finding:
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
    if snapshots is None:
        return Finding(
            topic="durability",
            level="warning",
            text="no append-only file; snapshots are not told: the last minutes' jobs may be lost when it ends badly",
            cure="CONFIG SET appendonly yes",
        )
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


def _eviction(store: Backend, info: Mapping[str, str]) -> Finding:
    policy = info.get("maxmemory_policy") or _config(store, "maxmemory-policy") or "?"
    if policy == "noeviction" or info.get("maxmemory", "0") == "0":
        return Finding(topic="eviction", level="ok", text=f"maxmemory-policy {policy}: no job is thrown away for room")
    return Finding(
        topic="eviction",
        level="problem",
        text=f"maxmemory-policy {policy}: at its limit of memory Redis throws jobs away",
        cure="CONFIG SET maxmemory-policy noeviction",
    )


def _memory(_store: Backend, info: Mapping[str, str]) -> Finding:
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


def _clock(store: Backend, _info: Mapping[str, str]) -> Finding:
    before = time()
    seconds, micros = store.client.command("TIME")
    skew = int(seconds) + int(micros) / 1e6 - (before + time()) / 2
    if abs(skew) < SKEW:
        return Finding(topic="clock", level="ok", text="this machine and Redis agree on the time")
    return Finding(
        topic="clock",
        level="warning",
        text=f"this machine's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} that of Redis: "
        "leases and delays go by Redis' clock, so only `at=` is affected",
        cure="run an NTP service on both",
    )


def _pickle(store: Backend, _info: Mapping[str, str]) -> Finding:
    if store.address.allow_pickle:
        return Finding(
            topic="pickle",
            level="warning",
            text="allow_pickle=1: whoever can write to this Redis can run any code in workers of this URL",
            cure="have the clients use JSON or taskq.serializer.MsgpackSerializer",
        )
    return Finding(topic="pickle", level="ok", text="pickled jobs are refused")


def _streams(store: Backend, _info: Mapping[str, str]) -> Finding:
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


def _workers(store: Backend, _info: Mapping[str, str]) -> Finding:
    found = workers(store)
    if not found:
        return Finding(
            topic="workers", level="warning", text="no worker is there", cure=f"taskq worker --url {store.url}"
        )
    running = sum(worker.running for worker in found)
    return Finding(topic="workers", level="ok", text=f"{len(found)} there, {running} jobs running")


def is_on_this_machine(peer: object) -> bool:
    """Return whether what a socket is connected to can be reached from this machine only: a file, or loopback."""
    if not isinstance(peer, tuple):
        return True
    found = ip_address(str(peer[0]).partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


def risks(address: Address) -> list[Finding]:
    """Return what lets strangers in from other machines: no password, a certificate that is not checked.

    Raises:
        BackendUnavailable: it cannot be reached.
    """
    local = _is_local(address)
    return [] if local else [found for found in (_certificate(address), _authentication(address)) if _bad(found)]


def security_findings(address: Address) -> list[Finding]:
    """Return what is to be said of transport, certificate and authentication."""
    local = _is_local(address)
    told = [_transport(address, local=local)]
    if address.is_encrypted:
        told.append(_certificate(address))
    return [*told, _local_authentication(address) if local else _authentication(address)]


def _bad(finding: Finding) -> bool:
    return finding.level != "ok"


def _is_local(address: Address) -> bool:
    connection = address.connect()
    try:
        return is_on_this_machine(connection.socket.getpeername())
    finally:
        connection.close()


def _transport(address: Address, *, local: bool) -> Finding:
    if address.is_encrypted:
        return Finding(topic="transport", level="ok", text="TLS")
    if local:
        return Finding(topic="transport", level="ok", text="on this machine only")
    return Finding(
        topic="transport",
        level="warning",
        text=f"jobs travel to {address.host} unencrypted: whoever is on the way can read and change them",
        cure="use rediss://, or a network that you trust",
    )


def _certificate(address: Address) -> Finding:
    unchecked = address.unchecked
    if not unchecked:
        return Finding(topic="certificate", level="ok", text="checked" if address.is_encrypted else "no TLS")
    return Finding(
        topic="certificate",
        level="warning",
        text=f"{unchecked} in the URL: {UNCHECKED[unchecked]}",
        cure="leave it out; ?ssl_ca_certs=FILE names the authority that signed the certificate",
    )


#: What a word in the URL switches off.
UNCHECKED = {
    "ssl_cert_reqs": "its certificate is not checked, so whoever is on the way can take its place",
    "ssl_check_hostname": "the name in its certificate is not checked, so any machine with one can take its place",
}


def _authentication(address: Address) -> Finding:
    if not address.is_open():
        return Finding(topic="authentication", level="ok", text="strangers are refused")
    return Finding(
        topic="authentication",
        level="warning",
        text="it wants no password: whoever reaches it can read, forge and delete jobs",
        cure="requirepass or users with passwords (contrib/acl), and TASKQ_URL=redis://USER:PASSWORD@host",
    )


def _local_authentication(address: Address) -> Finding:
    if not address.is_open():
        return Finding(topic="authentication", level="ok", text="strangers are refused")
    return Finding(
        topic="authentication",
        level="ok",
        text="it wants no password: each user of this machine who reaches it can read, forge and delete jobs",
        cure="requirepass, or users with passwords (contrib/acl), where others use this machine",
    )
