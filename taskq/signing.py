"""Keys, and the signatures that they make and check: who can write to a store cannot forge what is in it.

    TASKQ_SIGNING_KEYS ──read_keys──▶ Signer ──seal──▶ signature · data ──open──▶ data, or NotSigned

    c1 01 · key's id, 4 · until when it holds, 8 · HMAC-SHA256, 32                  46 bytes before what is signed

0xC1 begins no value of msgpack, so nothing signed is ever taken for the thing itself. The HMAC covers what kind of
thing it is, the job's id, of an envelope the queue too, and the time. The first key signs, all verify. What is signed,
and where, says `signed`.
"""

from __future__ import annotations

import hmac
import os
import stat
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from taskq.codec.wire import SEAL_SIZE, SEALED
from taskq.context import kept_keys
from taskq.errors import ConfigError, NotSigned
from taskq.redact import KEYS_FILE_VARIABLE, KEYS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ASK", "ENVELOPE", "FAILURE", "KILL", "META", "RESULT", "Signer", "is_sealed", "read_keys"]

#: What is signed.
ENVELOPE, RESULT, FAILURE, META, ASK, KILL = b"E", b"R", b"F", b"M", b"A", b"K"

#: The shortest key, in characters, and how many there may be: every one is one more that can be stolen.
SHORTEST: Final = 32
KEYS_MAX: Final = 16
#: Bytes of a file with keys that are read.
FILE_MAX: Final = 10_000

#: Bytes of a block of SHA-256.
BLOCK: Final = 64

ID_SIZE, TIME_SIZE, MAC_SIZE = 4, 8, 32
assert len(SEALED) + ID_SIZE + TIME_SIZE + MAC_SIZE == SEAL_SIZE  # noqa: S101  # one number in two places


# --- keys


def read_keys(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the keys of this process, those that were kept or else the environment's; none where it has none.

    Raises:
        ConfigError: a key is none, or their file cannot be read; none of them is in the message.
    """
    known = os.environ if environ is None else environ
    text, path = known.get(KEYS_VARIABLE), known.get(KEYS_FILE_VARIABLE)
    if environ is None and (kept := kept_keys()):
        return kept
    if text and path:
        raise ConfigError(f"give {KEYS_VARIABLE} or {KEYS_FILE_VARIABLE}, not both")
    if text:
        return _checked(KEYS_VARIABLE, text.split(","))
    return _checked(KEYS_FILE_VARIABLE, _read(path).replace(",", "\n").splitlines()) if path else ()


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor
            status = os.fstat(descriptor)
            data = file.read(FILE_MAX) if stat.S_ISREG(status.st_mode) else b""
    except OSError as exc:
        raise ConfigError(f"{KEYS_FILE_VARIABLE}={path}: {exc.strerror}") from None
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
        raise ConfigError(f"{KEYS_FILE_VARIABLE}={path}: others own it, or may write it: chmod 600, as its owner")
    return data.decode("latin-1")


def _checked(name: str, words: Sequence[str]) -> tuple[str, ...]:
    keys = tuple(dict.fromkeys(stripped for word in words if (stripped := word.strip())))
    if not 0 < len(keys) <= KEYS_MAX:
        raise ConfigError(f"{name} has {len(keys)} keys: give 1 to {KEYS_MAX}, parted by commas, the first signs")
    for number, key in enumerate(keys, 1):
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ConfigError(f"{name}: key {number} has a character that is no printable ASCII: {_HOW}")
        if len(key) < SHORTEST:
            raise ConfigError(f"{name}: key {number} has {len(key)} characters, {SHORTEST} are the least: {_HOW}")
    return keys


_HOW: Final = "make one with `openssl rand -hex 32`"


# --- signatures


class _Key:
    """HMAC-SHA256 by one key, its two halves begun once: a third of what `hmac.digest` takes for small messages."""

    def __init__(self, key: str) -> None:
        block = key.encode()
        block = (sha256(block).digest() if len(block) > BLOCK else block).ljust(BLOCK, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))

    def mac(self, *parts: bytes) -> bytes:
        """Return the HMAC over these."""
        inner, outer = self._inner.copy(), self._outer.copy()
        for part in parts:
            inner.update(part)
        outer.update(inner.digest())
        return outer.digest()


def _about(kind: bytes, until: bytes, job_id: str, queue: str) -> bytes:
    """Return what is signed beside the thing itself."""
    name, line = job_id.encode("utf-8", "surrogateescape"), queue.encode("utf-8", "surrogateescape")
    return b"taskq%c%b%b%b%b%b" % (kind, until, len(name).to_bytes(4), len(line).to_bytes(4), name, line)


class Signer:
    """Sign bytes, and check them. The first of the keys signs."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = {sha256(b"taskq key " + key.encode()).digest()[:ID_SIZE]: _Key(key) for key in keys}
        self._id = next(iter(self._keys))
        self._first = self._keys[self._id]

    def __repr__(self) -> str:
        return f"<Signer of {len(self._keys)} keys>"

    def mark(self, kind: bytes, data: bytes, job_id: str, seconds: float, queue: str = "") -> bytes:
        """Return the signature over something that belongs to a job, as it stands before it."""
        until = int(time.time() + min(seconds, 1e12)).to_bytes(TIME_SIZE, "big")
        return b"".join((SEALED, self._id, until, self._first.mac(_about(kind, until, job_id, queue), data)))

    def check(self, kind: bytes, mark: bytes, data: bytes, job_id: str, queue: str = "") -> None:
        """Check a signature.

        Raises:
            NotSigned: it is none, or none of these keys over this, or too old.
        """
        if len(mark) != SEAL_SIZE or not mark.startswith(SEALED):
            raise NotSigned("it is not signed")
        at = len(SEALED)
        key_id, until, mac = mark[at : at + ID_SIZE], mark[at + ID_SIZE : -MAC_SIZE], mark[-MAC_SIZE:]
        key = self._keys.get(key_id)
        if key is None:
            raise NotSigned("it is signed by a key that is not known here")
        if not hmac.compare_digest(mac, key.mac(_about(kind, until, job_id, queue), data)):
            raise NotSigned("its signature does not fit: it was changed, or made for another job or queue")
        if int.from_bytes(until, "big") < time.time():
            raise NotSigned("its signature holds no longer")

    def seal(self, kind: bytes, data: bytes, job_id: str, seconds: float, queue: str = "") -> bytes:
        """Return bytes with their signature."""
        return self.mark(kind, data, job_id, seconds, queue) + data

    def open(self, kind: bytes, sealed: bytes, job_id: str, queue: str = "") -> bytes:
        """Return what `seal` was given; raises as `check`."""
        data = sealed[SEAL_SIZE:]
        self.check(kind, sealed[:SEAL_SIZE], data, job_id, queue)
        return data


def is_sealed(data: bytes) -> bool:
    """Tell whether bytes were signed: what is to be told once more was signed the first time."""
    return data.startswith(SEALED)
