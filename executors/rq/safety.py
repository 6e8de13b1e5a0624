"""What keeps strangers away from a Redis: its password, its certificate, TLS; `taskq doctor` and workers tell of it."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from taskq.store import Finding

if TYPE_CHECKING:
    from taskq.executors.rq.address import Address

__all__ = ["findings", "is_on_this_machine", "risks"]


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


def findings(address: Address) -> list[Finding]:
    """Return what is to be said of transport, certificate and authentication."""
    local = _is_local(address)
    told = [_transport(address, local=local)]
    if address.is_encrypted:
        told.append(_certificate(address))
    return [*told, _local_authentication(address) if local else _authentication(address)]


def _bad(finding: Finding) -> bool:
    return finding.level != "ok"


def _is_local(address: Address) -> bool:
    wire = address.connect()
    try:
        return is_on_this_machine(wire.socket.getpeername())
    finally:
        wire.close()


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
