"""What parent and child share: the messages on their socket, the records of the journal, and a page of memory.

    parent -> child   Order header, payload     DEFINE or FORGET a function, run CALLS of it, run a CHUNK of a map
    parent -> child   the same                  QUEUE: the name of the queue of the jobs that follow; RECALL: the meta
                                                that the first job of the next batch has left in an earlier attempt
    child -> parent   Report header, payload    READY, INIT_FAILED, RESULTS, PROGRESS, NOTE

CALLS and CHUNK are answered by RESULTS reports, exactly one of which carries END.
A record is the outcome of `count` consecutive jobs: their values in one encoding, or one failure.

The page: eight-byte control words, then four regions of bytes.

    word     written by   meaning
    COMMIT   child        flushes sent << 32 | bytes of complete records in the current journal half
    CLAIM    child        end of the run of jobs it may have started; everything at or above is untouched
    PHASE    child        IDLE, DEFINING the function of the next batch, DECODING a batch, or RUNNING it
    START    child        monotonic ns at which the running timed job began, 0 otherwise
    TAKEN    child        argument payloads it has read out of the argument regions
    STOP     parent       start nothing more
    CANCEL   parent       1 + sequence number of the job that is asked to stop, 0 for none
    CONSUMED parent       journal halves it has read out
    TOLD     child        1 + sequence number of the job that told its progress last, 0 while it writes; then the two
    DONE                  numbers of it, TOTAL being one more than the total, 0 for unknown
    TOTAL
    NOTES    child        reports of what jobs said (PROGRESS, NOTE) that it has sent
    IMPORTING child       monotonic ns at which it began to import something, or its initializer, 0 otherwise
    LEAVING  parent       1 when the program was told to stop, and lets what runs go on
    INTERRUPT both        ASKED by the parent: raise KeyboardInterrupt in the running job; RAISED by the child

    | words (4 KiB) | journal half 0 | journal half 1 | arguments 0 | arguments 1 |

The memory has no name: when both processes are gone, the kernel frees it, whatever killed them.
Words stand one cache line apart; each is one aligned 8-byte store, so it is never seen half written.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final, NamedTuple

VERSION: Final = 1

# Order kinds.
DEFINE, FORGET, CALLS, CHUNK, QUEUE, RECALL = range(6)
# Order flags.
STAR: Final = 1  # the items of a chunk are argument tuples
EXACT: Final = 2  # one job per commit: timed jobs, and jobs that may have killed a process
# Where a payload is.
ON_SOCKET: Final = 0  # else 1 + the number of the shared region

# Report kinds.
READY, INIT_FAILED, RESULTS, PROGRESS, NOTE = range(5)
# Report flags.
END: Final = 1  # the batch is over
STOPPED: Final = 2  # ... before its last job, because the parent asked for it
RETIRING: Final = 4  # the child has run its max_tasks_per_child and exits now
UNDECODABLE: Final = 8  # ... before its first job, because the arguments could not be read


class Order(NamedTuple):
    """Header of a message to the child. `bytes` counts the payload wherever it is; `soft` is seconds, 0 for none."""

    bytes: int
    kind: int
    flags: int = 0
    encoding: int = 0
    place: int = ON_SOCKET
    attempt: int = 1
    function: int = 0
    jobs: int = 0
    stream: int = 0
    first: int = 0
    soft: float = 0.0


class Report(NamedTuple):
    """Header of a message to the parent. `done` is the sequence number after the last finished job."""

    bytes: int
    kind: int
    flags: int = 0
    place: int = ON_SOCKET
    done: int = 0
    elapsed_ns: int = 0


ORDER: Final = struct.Struct("<QBBBBIIIQQd")
REPORT: Final = struct.Struct("<QBBBQQ")
RECORD: Final = struct.Struct("<IBI")  # jobs, encoding, bytes
#: The bytes that a record names at the most: if so many, it is alone in its report, and takes all of it.
SIZE_MAX: Final = (1 << 32) - 1
PROGRESS_BODY: Final = struct.Struct("<QQq")  # sequence number, done, total (-1: unknown)
NOTE_BODY: Final = struct.Struct("<QBQ")  # sequence number, what the note is, bytes of all that was printed
HELLO: Final = struct.Struct("<IQ")  # version, pid

# What a note is: a text that the job logged, its whole meta, all that it printed.
LOGGED, META, PRINTED = range(3)

# --- the page

WORDS_BYTES: Final = 4096
#: Bytes of one region: room for a megabyte value with its envelope; untouched parts cost no memory.
REGION_BYTES: Final = 2 * 1024 * 1024
JOURNAL_HALVES: Final = 2
ARGUMENT_REGIONS: Final = 2
PAGE_BYTES: Final = WORDS_BYTES + (JOURNAL_HALVES + ARGUMENT_REGIONS) * REGION_BYTES

_LINE = 8  # words per cache line
COMMIT, CLAIM, PHASE, START, TAKEN, STOP, CANCEL, CONSUMED, TOLD, DONE, TOTAL, NOTES, IMPORTING, INTERRUPT, LEAVING = (
    _LINE * n for n in range(15)
)

IDLE, DECODING, RUNNING, DEFINING = range(4)
ASKED, RAISED = 1, 2

#: COMMIT holds the count of flushes above this many bits and the journal's length below.
COMMIT_SHIFT: Final = 32
COMMIT_MASK: Final = (1 << COMMIT_SHIFT) - 1


def create_memory() -> int:
    """Return a file descriptor of PAGE_BYTES of fresh anonymous shared memory."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("taskq")
    else:  # macOS: an unlinked temporary file is the portable anonymous memory that can be sent to another process
        import tempfile  # noqa: PLC0415  # 3 ms that Linux does not need

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, PAGE_BYTES)
    return fd


class SharedPage:
    """One process's view of the shared page. `close()` frees the mapping."""

    def __init__(self, fd: int) -> None:
        """Map the memory behind `fd`; the descriptor may be closed afterwards."""
        self._map = mmap.mmap(fd, PAGE_BYTES)
        self._bytes = memoryview(self._map)
        self.words = self._bytes[:WORDS_BYTES].cast("Q")
        regions = [self._bytes[start : start + REGION_BYTES] for start in range(WORDS_BYTES, PAGE_BYTES, REGION_BYTES)]
        self.journal = regions[:JOURNAL_HALVES]
        self.arguments = regions[JOURNAL_HALVES:]

    def close(self) -> None:
        """Release every view and unmap."""
        for view in (self.words, *self.journal, *self.arguments, self._bytes):
            view.release()
        self._map.close()
