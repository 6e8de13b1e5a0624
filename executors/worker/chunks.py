"""A chunk of a map in a worker's hands: one claimed job, one run in the pool, or one for each item.

    whole chunk in one run ──▶ values, or a record for each item ──▶ succeeded
         │                            └── an item failed, and its policy retries it: a run of its own
         └── its process died: every item in a run of its own
    items with time limits, or that may kill no process: every item in a run of its own from the start

The chunk succeeds when all its items have ended: what became of each is in its value.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import msgpack  # type: ignore[import-untyped]  # it ships no types

from executors.worker.verdicts import given_back, refused
from taskq.chunks import RECORDS, Record, pack_records, read_records
from taskq.codec import encode
from taskq.envelope import parts, perform_chunk, perform_item
from taskq.errors import DecodeError
from taskq.job import JobOptions
from taskq.result import Failure
from taskq.retry import after_error
from taskq.states import Reason, State
from taskq.store import Verdict

if TYPE_CHECKING:
    from executors.worker.errand import Errand
    from executors.worker.hands import Hands
    from taskq.envelope import Head
    from taskq.store import Claim

__all__ = ["ChunkRun"]

#: A whole chunk has one life: if it dies, each of its items gets the rest of the lives alone.
_WHOLE: Final = JobOptions(max_crashes=1)


class ChunkRun:
    """Run one claimed chunk. Used by the worker's thread."""

    def __init__(self, hands: Hands, claim: Claim, head: Head) -> None:
        self.claim = claim
        self.errands: set[Errand] = set()
        #: Whether somebody cancelled it.
        self.unwanted = False
        self._hands = hands
        self._task = head.task
        self._options = head.options
        self._records: list[Record | None] = []
        self._elapsed_ns = 0
        self._given_up: Verdict | None = None

    def begin(self) -> list[Errand]:
        """Return what to run first.

        Raises:
            DecodeError: the envelope's items cannot be counted.
        """
        options, claim = self._options, self.claim
        if options.timeout or options.soft_timeout or options.max_crashes == 1 or claim.crashes:
            singles = self._singles(claim.crashes)
            if singles:
                return singles
        args = (claim.envelope, claim.id, claim.attempt)
        return [self._errand(perform_chunk, args, _WHOLE, -1)]

    def _singles(self, crashes: int) -> list[Errand]:
        self._records = [None] * _count(parts(self.claim.envelope).args)
        return [self._single(index, crashes) for index in range(len(self._records))]

    def _single(self, index: int, crashes: int, attempt: int = 1) -> Errand:
        args = (self.claim.envelope, index, self.claim.id, 1)
        errand = self._errand(perform_item, args, _single_options(self._options), index)
        errand.attempt = attempt + crashes
        errand.crashes = crashes
        errand.alone = True
        return errand

    def _errand(self, run: object, args: tuple[object, ...], options: JobOptions, index: int) -> Errand:
        errand = self._hands.errand(run, f"{self._task}/{len(args)}", args, options)  # type: ignore[arg-type]
        errand.claim, errand.chunk, errand.index = self.claim, self, index
        self.errands.add(errand)
        return errand

    # -- what comes back

    def ended(self, errand: Errand) -> Verdict | None:
        """Take the end of one of its runs; return the verdict when it was the last one."""
        self.errands.discard(errand)
        if errand.dropped:
            self._give_up(given_back(self.claim))
        elif errand.index < 0:
            self._whole_ended(errand.outcome())
        else:
            self._item_ended(errand, errand.outcome())
        if self.errands:
            return None
        if self.unwanted:
            return Verdict(id=self.claim.id, token=self.claim.token, state=State.CANCELLED)
        return self._given_up or self._succeeded(pack_records(self._elapsed_ns, self._all_records()))

    def _whole_ended(self, outcome: bytes | Failure) -> None:
        if not isinstance(outcome, Failure):
            self._read(outcome)
        elif outcome.reason is Reason.CRASHED and self._given_up is None and not self.unwanted:
            crashes = min(self.claim.crashes + 1, self._options.max_crashes - 1)
            self._hands.start(self._singles(crashes))
        elif outcome.reason is Reason.UNKNOWN_TASK:
            self._give_up(refused(self.claim, outcome))
        else:
            self._given_up = self._failed(outcome)

    def _read(self, outcome: bytes) -> None:
        """Take the result of the whole chunk as it is, unless an item is to be tried again."""
        self._given_up = self._succeeded(outcome)
        policy = self._options.retry
        if policy is None or not _has_records(outcome):
            return
        again = []
        for index, record in enumerate(records := read_records(outcome)):
            delay = after_error(policy, 0, record, random.random) if isinstance(record, Failure) else None
            if delay is not None:
                again.append((delay, self._single(index, 0, attempt=2)))
        if again:
            self._given_up, self._records = None, list(records)
            for delay, errand in again:
                self._hands.start_in(delay, errand)

    def _item_ended(self, errand: Errand, outcome: bytes | Failure) -> None:
        self._elapsed_ns += int(errand.function.pace.ns or 0)
        if isinstance(outcome, Failure) and outcome.reason is Reason.UNKNOWN_TASK:
            self._give_up(refused(self.claim, outcome))
        else:
            self._records[errand.index] = outcome

    def _give_up(self, verdict: Verdict) -> None:
        """Run none of the rest."""
        if self._given_up is None:
            self._given_up = verdict
            self._hands.cancel(self.errands, kill=False)

    def _all_records(self) -> list[Record]:
        return [record for record in self._records if record is not None]

    def _succeeded(self, result: bytes) -> Verdict:
        return Verdict(id=self.claim.id, token=self.claim.token, state=State.SUCCEEDED, result=encode(result))

    def _failed(self, failure: Failure) -> Verdict:
        return Verdict(id=self.claim.id, token=self.claim.token, state=State.FAILED, failure=failure)


def _single_options(options: JobOptions) -> JobOptions:
    return options.changed(expires=None, result_ttl=None)


def _count(items: bytes) -> int:
    """Return how many items the bytes of a list hold, without reading them."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(items[:5])
    try:
        count = int(unpacker.read_array_header())
    except Exception as error:
        raise DecodeError(f"the items of a chunk are not a list: {error}") from error
    if count > len(items):
        raise DecodeError(f"a chunk of {len(items):,} bytes cannot hold {count:,} items")
    return count


def _has_records(result: bytes) -> bool:
    """Tell whether the result of a chunk says what became of each item by itself, because some failed."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(result)
    unpacker.read_array_header()
    unpacker.skip()
    return bool(unpacker.unpack() == RECORDS)
