"""The messages on the socket between parent and child, and the records of the journal.

    parent -> child   Order header, payload     DEFINE or FORGET a function, run CALLS of it, run a CHUNK of a map
    parent -> child   the same                  QUEUE: the name of the queue of the jobs that follow; RECALL: the meta
                                                that the first job of the next frame has left in an earlier attempt
    child -> parent   Report header, payload    READY, INIT_FAILED, RESULTS, PROGRESS, NOTE

CALLS and CHUNK are answered by RESULTS reports, exactly one of which carries END.
A record is the outcome of `count` consecutive jobs: their values in one encoding, or one failure.
"""

from __future__ import annotations

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
END: Final = 1  # the frame is over
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
