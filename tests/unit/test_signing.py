"""Keys and signatures: what was signed opens, and nothing else does."""

from __future__ import annotations

import hmac
import itertools
import time
from typing import TYPE_CHECKING

import pytest

from taskq import context
from taskq.codec.wire import SEALED
from taskq.envelope import head
from taskq.errors import ConfigError, NotSigned
from taskq.redact import without_password
from taskq.signing import ENVELOPE, META, RESULT, Signer, is_sealed, read_keys

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO, THREE = ("k1" * 20, "k2" * 20, "k3" * 20)


def test_what_was_signed_opens() -> None:
    """The bytes come back, whatever they are, and cost 46 more."""
    signer = Signer([ONE])
    for data in (b"", b"\xc1\x01", b"x" * 100_000):
        sealed = signer.seal(RESULT, data, "id", 60)
        assert signer.open(RESULT, sealed, "id") == data
        assert len(sealed) == len(data) + 46


def test_each_byte_counts() -> None:
    """Whichever byte is changed, cut or added: refused."""
    signer = Signer([ONE])
    sealed = signer.seal(RESULT, b"value", "id", 60)
    forged = [sealed[:n] + bytes((sealed[n] ^ 1,)) + sealed[n + 1 :] for n in range(len(sealed))]
    for other in (*forged, sealed[:-1], sealed + b"x", b"", sealed[:46], b"\xc1"):
        with pytest.raises(NotSigned):
            signer.open(RESULT, other, "id")


@pytest.mark.parametrize(
    ("kind", "job_id", "queue"),
    [(META, "id", "q"), (ENVELOPE, "other", "q"), (ENVELOPE, "id", "p"), (ENVELOPE, "idq", "")],
)
def test_a_signature_is_for_one_thing(kind: bytes, job_id: str, queue: str) -> None:
    """What was signed as one kind of thing, for one job and queue, is nothing elsewhere."""
    signer = Signer([ONE])
    sealed = signer.seal(ENVELOPE, b"envelope", "id", 60, "q")
    assert signer.open(ENVELOPE, sealed, "id", "q") == b"envelope"
    with pytest.raises(NotSigned, match="does not fit"):
        signer.open(kind, sealed, job_id, queue)


def test_signatures_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature holds for its time and no longer."""
    signer = Signer([ONE])
    sealed = signer.seal(RESULT, b"value", "id", 60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 50)
    assert signer.open(RESULT, sealed, "id") == b"value"
    monkeypatch.setattr(time, "time", lambda: now + 70)
    with pytest.raises(NotSigned, match="no longer"):
        signer.open(RESULT, sealed, "id")


def test_keys_change_without_a_stop() -> None:
    """The first key signs and all verify: a new one is added behind, put first, and the old one taken out."""
    steps = [Signer([ONE]), Signer([ONE, TWO]), Signer([TWO, ONE]), Signer([TWO])]
    for before, after in itertools.pairwise(steps):
        for writer, reader in ((before, after), (after, before)):
            assert reader.open(RESULT, writer.seal(RESULT, b"v", "id", 60), "id") == b"v"
    with pytest.raises(NotSigned, match="not known here"):
        steps[-1].open(RESULT, steps[0].seal(RESULT, b"v", "id", 60), "id")


def test_nothing_signed_is_taken_for_the_thing_itself() -> None:
    """A worker without keys leaves a signed job to others: it is no broken one."""
    sealed = Signer([ONE]).seal(ENVELOPE, b"", "id", 60)
    assert is_sealed(sealed)
    assert sealed.startswith(SEALED)
    with pytest.raises(LookupError, match="signed"):
        head(sealed)


# --- where keys come from


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("short", "key 1 has 5 characters"),
        (f"{ONE},abc", "key 2 has 3 characters"),
        ("é" * 40, "key 1 has a character"),
        (f"{ONE} {TWO}", "key 1 has a character"),
        (" , ", "0 keys"),
        (",".join(f"{number:040}" for number in range(17)), "17 keys"),
    ],
)
def test_bad_keys(text: str, told: str) -> None:
    """Each is refused by its number and what is wrong with it; no key is shown."""
    with pytest.raises(ConfigError, match=told) as caught:
        read_keys({"TASKQ_SIGNING_KEYS": text})
    assert ONE not in str(caught.value)
    assert "short" not in str(caught.value)


def test_keys_of_the_environment() -> None:
    """They are parted by commas, in their order, each once; an empty variable is none."""
    assert read_keys({"TASKQ_SIGNING_KEYS": f" {ONE},{TWO}, {ONE}"}) == (ONE, TWO)
    assert read_keys({"TASKQ_SIGNING_KEYS": ""}) == read_keys({}) == ()


def test_keys_of_a_file(tmp_path: Path) -> None:
    """A line each; a file that others may write, or that is not there, is refused."""
    path = tmp_path / "keys"
    path.write_text(f"{ONE}\n{TWO}\n", encoding="utf-8")
    path.chmod(0o600)
    said = {"TASKQ_SIGNING_KEYS_FILE": str(path)}
    assert read_keys(said) == (ONE, TWO)
    with pytest.raises(ConfigError, match="not both"):
        read_keys({**said, "TASKQ_SIGNING_KEYS": THREE})
    path.chmod(0o622)
    with pytest.raises(ConfigError, match="others"):
        read_keys(said)
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(said)


def test_keys_are_kept_out_of_what_is_inherited() -> None:
    """Commands and jobs do not get the variable; a worker's children get the keys by other means."""
    assert without_password({"TASKQ_SIGNING_KEYS": ONE, "A": "b"}) == {"A": "b"}
    context.keep_keys((ONE,))
    try:
        assert read_keys() == (ONE,)
    finally:
        context.keep_keys(())


@pytest.mark.parametrize("length", [32, 64, 65, 200])
def test_it_is_an_hmac(length: int) -> None:
    """What stands behind the head is HMAC-SHA256 as the standard library makes it, of keys of any length."""
    key = "k" * length
    mark = Signer([key]).mark(ENVELOPE, b"data", "id", 60, "q")
    about = b"taskqE" + mark[6:14] + b"\0\0\0\2\0\0\0\1idq"
    assert mark[14:] == hmac.digest(key.encode(), about + b"data", "sha256")


def test_a_signer_shows_no_key() -> None:
    """Its text says how many keys it has."""
    assert repr(Signer([ONE, TWO])) == "<Signer of 2 keys>"
