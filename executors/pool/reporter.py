"""What a child tells its parent of the running job: progress, log, meta, and what it printed.

progress ──▶ the shared page, read there by the parent; sent when another job is about to overwrite it
the rest ──▶ the socket, before the outcome of the job
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskq.errors import DecodeError
from taskq.executors.pool import protocol
from taskq.executors.pool.output import OUTPUT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.output import OutputCapture

__all__ = ["ParentReporter"]

#: Bytes that the meta of a job may take, encoded.
META_LIMIT: Final = 64 * 1024


class ParentReporter:
    """The Reporter of the jobs of one child; jobs are known by their sequence numbers."""

    def __init__(self, words: memoryview, send: Callable[[bytes], None], capture: OutputCapture | None) -> None:
        self._words = words
        self._send = send
        self.capture = capture
        #: The progress that stands on the page, and whose it is.
        self.last_progress: tuple[int, int, int | None] | None = None
        #: Whose meta is known, and that meta; bytes were not decoded yet.
        self._meta: tuple[int, dict[str, Any] | bytes] = (-1, {})

    def recall(self, number: int, meta: bytes) -> None:
        """Let a job begin with the meta of an earlier attempt."""
        self._meta = number, meta

    def progress(self, number: int, done: int, total: int | None) -> None:
        if self.last_progress is not None and self.last_progress[0] != number:
            self.send_progress()
        self.last_progress = number, done, total
        words = self._words
        words[protocol.TOLD] = 0
        words[protocol.DONE] = done
        words[protocol.TOTAL] = 0 if total is None else total + 1
        words[protocol.TOLD] = number + 1

    def send_progress(self) -> None:
        """Send a job's last progress, which the shared page is going to lose."""
        if self.last_progress is not None:
            number, done, total = self.last_progress
            self.last_progress = None
            self._say(protocol.PROGRESS, protocol.PROGRESS_BODY.pack(number, done, -1 if total is None else total))

    def is_cancelled(self, number: int) -> bool:
        return bool(self._words[protocol.CANCEL] == number + 1)

    def log(self, number: int, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        if self.capture is not None:
            self.capture.write(data)
        else:
            self._say(protocol.NOTE, protocol.NOTE_BODY.pack(number, protocol.LOGGED, 0) + data[:OUTPUT_LIMIT])

    def meta(self, number: int) -> dict[str, Any]:
        known = self._meta[1] if self._meta[0] == number else {}
        if isinstance(known, bytes):  # decoded in the job that wants it: what cannot be read is its error, not our end
            known = _decoded(known)
        self._meta = number, known
        return known

    def tell_meta(self, number: int, changed: dict[str, Any]) -> None:
        from taskq import codec  # noqa: PLC0415  # 10 ms that only jobs with a meta pay

        data = codec.encode(changed, limit=META_LIMIT, root="meta")
        self._meta = number, changed
        self._say(protocol.NOTE, protocol.NOTE_BODY.pack(number, protocol.META, 0) + data)

    def send_printed(self, number: int, size: int) -> None:
        """Send the `size` bytes that the job has printed which has just ended; only where output is captured."""
        capture = self.capture
        if capture is not None:
            self._say(protocol.NOTE, protocol.NOTE_BODY.pack(number, protocol.PRINTED, size) + capture.take())

    def _say(self, kind: int, body: bytes) -> None:
        """Send what a job says, and count it: the parent must read it before the job's outcome."""
        self._send(protocol.REPORT.pack(len(body), kind, 0, protocol.ON_SOCKET, 0, 0) + body)
        self._words[protocol.NOTES] += 1


def _decoded(meta: bytes) -> dict[str, Any]:
    from taskq import codec  # noqa: PLC0415  # see tell_meta

    found = codec.decode(meta)
    if type(found) is not dict:
        raise DecodeError(f"the meta of this job is no dict but a {type(found).__name__}")
    return found
