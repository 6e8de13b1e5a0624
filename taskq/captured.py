"""The output of a command as it is kept and sent: no byte is changed, and the result says what was cut off.

    stdout ──add──▶ Kept ──plain──▶   "stdout": text     + "stdout_base64" where it is no UTF-8
                         ──packed──▶  "stdout": a part   + "stdout_data": all, compressed, where the part is not
    both: "stdout_dropped_bytes" where its middle was left out;   the result ──output_of──▶ bytes

The text is for people who read results: it has U+FFFD for what is no UTF-8, and a mark where something is missing.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import contextlib
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["HELD", "STREAMS", "Kept", "Stream", "as_document", "output_of", "packed", "plain", "said_of_cut"]

#: The names of the streams in a result.
STREAMS: Final = ("stdout", "stderr")

#: Bytes of a stream that are held in memory until they are packed.
HELD: Final = 16 << 20

#: Bytes that a character of UTF-8 may have behind its first; and what those are.
_REST: Final = 3
_CONTINUES: Final = 0x80
_BEGINS: Final = 0xC0


class Kept:
    """The start and the end of a stream, with a count of what was between; `tee` is given all of it."""

    def __init__(self, limit: int, tee: Callable[[bytes], None] | None = None) -> None:
        self._half = limit // 2
        self._tee = tee
        self._start = bytearray()
        self._end = bytearray()
        self.dropped = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self._tee is not None:
            self._tee(data)
        room = self._half - len(self._start)
        self._start += data[:room]
        self._end += data[room:] if room < len(data) else b""
        surplus = len(self._end) - self._half
        if surplus > 0:
            del self._end[:surplus]
            self.dropped += surplus

    def stream(self) -> Stream:
        """Return what is kept."""
        return Stream(bytes(self._start), self.dropped, bytes(self._end))

    def text(self) -> str:
        """Return what is kept, with a mark where something is missing."""
        return self.stream().text()


class Stream(NamedTuple):
    """The kept parts of a stream: its start, the number of bytes missing behind that, its end."""

    start: bytes
    dropped: int
    end: bytes

    def data(self) -> bytes:
        """Return the bytes that are kept."""
        return self.start + self.end

    def shortened(self, limit: int) -> Stream:
        """Return no more than so many bytes of it, half from each end."""
        data = self.data()
        if len(data) <= limit:
            return self
        half = limit // 2
        return Stream(data[:half], self.dropped + len(data) - 2 * half, data[len(data) - half :])

    def text(self) -> str:
        """Return it as text, with a mark where something is missing."""
        if not self.dropped:
            return self.data().decode(errors="replace")
        mark = f"\n[... {self.dropped} bytes left out ...]\n"
        return self.start.decode(errors="replace") + mark + self.end.decode(errors="replace")

    def is_text(self) -> bool:
        """Tell whether it is UTF-8; characters that were cut through do not count."""
        try:
            if not self.dropped:
                self.data().decode()
            else:
                codecs.getincrementaldecoder("utf-8")().decode(self.start)
                self.end[_cut_through(self.end) :].decode()
        except UnicodeDecodeError:
            return False
        return True


def _cut_through(data: bytes) -> int:
    """Return how many bytes at the start are the rest of a character."""
    return next((at for at, byte in enumerate(data[:_REST]) if not _CONTINUES <= byte < _BEGINS), min(_REST, len(data)))


def plain(name: str, kept: Stream) -> dict[str, Any]:
    """Return a stream as fields of a result that is to be JSON."""
    fields: dict[str, Any] = {name: kept.text()}
    if not kept.is_text():
        fields[f"{name}_base64"] = base64.b64encode(kept.data()).decode()
    return {**fields, **_dropped(name, kept)}


def packed(name: str, kept: Stream, limit: int) -> dict[str, Any]:
    """Return a stream as fields of a result, of which the compressed bytes take no more than `limit`."""
    data = kept.data()
    if not kept.dropped and len(data) <= limit and kept.is_text():
        return {name: kept.text()}
    small = zlib.compress(data, 1)
    while len(small) > limit:
        kept = kept.shortened(len(data) * limit // len(small) * 9 // 10)
        data = kept.data()
        small = zlib.compress(data, 1)
    return {name: kept.shortened(limit // 4).text(), f"{name}_data": small, **_dropped(name, kept)}


def _dropped(name: str, kept: Stream) -> dict[str, int]:
    return {f"{name}_dropped_bytes": kept.dropped} if kept.dropped else {}


# --- a result, read


def output_of(result: Mapping[str, Any], name: str) -> bytes:
    """Return the bytes of a stream that a command's result has.

    Raises:
        DecodeError: the result is not what `plain` and `packed` make.
    """
    data, coded = result.get(f"{name}_data"), result.get(f"{name}_base64")
    if isinstance(data, bytes):
        return _inflated(data)
    if isinstance(coded, str):
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(coded, validate=True)
        raise DecodeError(f"the {name} of the command is not base64")
    text = result.get(name, "")
    if not isinstance(text, str):
        raise DecodeError(f"the {name} of the command is no text but a {type(text).__name__}")
    return text.encode(errors="surrogateescape")


def _inflated(data: bytes) -> bytes:
    """Decompress no more than a worker packs: a few bytes could become gigabytes."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, HELD)
    except zlib.error as exc:
        raise DecodeError(f"the output of the command cannot be read: {exc}") from None
    if not stream.eof:
        raise DecodeError(f"the output of the command is cut off, or larger than {HELD:,} bytes")
    return found


def as_document(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a command's result as JSON can carry it: its output as text where it is one, else in base64 beside that.

    Raises:
        DecodeError: as `output_of`.
    """
    fields = dict(result)
    for name in STREAMS:
        if isinstance(fields.pop(f"{name}_data", None), bytes):
            data, dropped = output_of(result, name), _count(result, name)
            half = len(data) // 2 if dropped else len(data)
            fields |= plain(name, Stream(data[:half], dropped, data[half:]))
    return fields


def _count(result: Mapping[str, Any], name: str) -> int:
    dropped = result.get(f"{name}_dropped_bytes")
    return dropped if type(dropped) is int and dropped > 0 else 0


def said_of_cut(result: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each stream of which not all is there; raises as `output_of`."""
    sentences = []
    for name in STREAMS:
        if dropped := _count(result, name):
            kept = len(output_of(result, name))
            told = f"{kept:,} of {kept + dropped:,} bytes are kept, half of them from its start and half from its end"
            sentences.append(f"{name} of the command is cut: {told}")
    return sentences
