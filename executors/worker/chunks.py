"""A chunk of a map that a worker holds: one claimed job, one run in the pool, or one for each item.

    whole chunk in one run ──▶ values, or an outcome for each item ──▶ succeeded
         │                            └── an item failed and is tried again, by its policy or its wish: a run of its own
         └── its process died: every item in a run of its own
    items with time limits, or that may kill no process: every item in a run of its own from the start

Runs of single items are made as others end, a window ahead, each with the bytes of its own item: what a chunk takes
grows with its size. It succeeds when all its items have ended: what became of each is in its value.
"""

from __future__ import annotations

import random
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.chunks import OUTCOMES, ItemOutcome, Items, count_items, pack_outcomes, read_outcomes
from taskq.codec import encode
from taskq.envelope import CHUNK, Template, parts
from taskq.executors.worker.outcomes import refused, requeued
from taskq.failure import Failure
from taskq.options import JobOptions
from taskq.perform import perform_chunk, perform_item
from taskq.retry import ASKS, after_error
from taskq.states import Reason, State
from taskq.store import JobOutcome

if TYPE_CHECKING:
    from taskq.envelope import Head
    from taskq.executors.worker.runs import PoolRunner, Run
    from taskq.store import Claim

__all__ = ["ChunkRun"]

#: A whole chunk has one life: if it dies, each of its items gets the rest of the lives alone.
_WHOLE: Final = JobOptions(max_crashes=1)
#: Runs of single items that are made ahead, and bytes of them, but never fewer than the first number.
_AHEAD_MIN: Final = 2
_AHEAD: Final = 1_000
_AHEAD_BYTES: Final = 8 * 1_048_576


class _ItemRun(NamedTuple):
    """An item that is to have a run of its own, not before its time by the monotonic clock."""

    due: float
    item: int
    crashes: int = 0
    attempt: int = 1
    uncounted: int = 0


class ChunkRun:
    """Run one claimed chunk. Used by the worker's thread."""

    def __init__(self, runner: PoolRunner, claim: Claim, head: Head) -> None:
        self.claim = claim
        self.runs: set[Run] = set()
        #: Whether somebody cancelled it.
        self.unwanted = False
        #: Whether the store knows that it has begun.
        self.told = False
        self._runner = runner
        self._task = head.task
        self._options = head.options
        self._outcomes: list[ItemOutcome | None] = []
        self._found: Items | None = None
        self._template = Template(CHUNK, head.task, head.options)
        #: What is to have a run of its own and has none yet, and the bytes of those that have one.
        self._waiting: deque[_ItemRun] = deque()
        self._ahead_bytes = 0
        self._elapsed_ns = 0
        self._given_up: JobOutcome | None = None

    def begin(self) -> list[Run]:
        """Return what to run first.

        Raises:
            DecodeError: the envelope's items cannot be counted, or are too many.
        """
        options, claim = self._options, self.claim
        if options.timeout or options.soft_timeout or options.max_crashes == 1 or claim.crashes:
            self._take_apart(claim.crashes)
            if self._waiting:
                return self._next_item_runs()
        else:
            count_items(parts(claim.envelope).args)
        args = (claim.envelope, claim.id, claim.attempt)
        whole = self._run(perform_chunk, args, _WHOLE, -1)
        whole.isolated = claim.suspect
        return [whole]

    def stop(self) -> None:
        """Begin nothing more: whoever has it now, or wanted it, does not want the rest from here."""
        self._waiting.clear()

    def _take_apart(self, crashes: int) -> None:
        """Have every item wait for a run of its own."""
        self._outcomes = [None] * len(self._items)
        self._waiting = deque(_ItemRun(0.0, index, crashes) for index in range(len(self._outcomes)))

    @property
    def _items(self) -> Items:
        if self._found is None:
            found = parts(self.claim.envelope)
            self._found = Items(found.args, found.kwargs)
        return self._found

    def _next_item_runs(self) -> list[Run]:
        """Make runs of items whose time has come, as far as the window goes; those of later ones are begun here."""
        singles = []
        while self._waiting and self._has_room():
            single = self._waiting.popleft()
            run = self.run_of_item(single)
            left = single.due - monotonic() if single.due else 0.0
            if left > 0:
                self._runner.start_in(left, run)
            else:
                singles.append(run)
        return singles

    def _has_room(self) -> bool:
        ahead = len(self.runs)
        least = max(_AHEAD_MIN, 2 * self._runner.processes)
        return ahead < least or (ahead < _AHEAD and self._ahead_bytes < _AHEAD_BYTES)

    def run_of_item(self, single: _ItemRun) -> Run:
        """Return a run of one item alone."""
        index = single.item
        envelope = self._template.pack(self._items.alone(index), self._items.shape)
        args = (envelope, index, self.claim.id, 1)
        run = self._run(perform_item, args, _item_options(self._options), index)
        run.attempt = single.attempt + single.crashes
        run.crashes = single.crashes
        run.uncounted = single.uncounted
        run.isolated = True
        run.size = len(envelope)
        self._ahead_bytes += run.size
        return run

    def _run(self, fn: object, args: tuple[object, ...], options: JobOptions, index: int) -> Run:
        run = self._runner.new_run(fn, f"{self._task}/{len(args)}", args, options)  # type: ignore[arg-type]
        run.claim, run.chunk, run.index = self.claim, self, index
        run.is_rerun_here = index >= 0
        self.runs.add(run)
        return run

    # -- what comes back

    def ended(self, run: Run) -> JobOutcome | None:
        """Take the end of one of its runs; return the outcome when it was the last one."""
        self.runs.discard(run)
        self._ahead_bytes -= run.size
        if run.dropped:
            self._give_up(requeued(self.claim))
        elif run.index < 0:
            self._whole_ended(run.returned())
        else:
            self._item_ended(run, run.returned())
        if self._waiting and not self.unwanted:
            self._runner.start(self._next_item_runs())
        if self.runs:
            return None
        if self.unwanted:
            return JobOutcome(id=self.claim.id, token=self.claim.token, state=State.CANCELLED)
        return self._given_up or self._succeeded(pack_outcomes(self._elapsed_ns, self._all_records()))

    def _whole_ended(self, returned: bytes | Failure) -> None:
        if not isinstance(returned, Failure):
            self._read(returned)
        elif returned.reason is Reason.CRASHED and self._given_up is None and not self.unwanted:
            crashes = min(self.claim.crashes + 1, self._options.max_crashes - 1)
            self._take_apart(crashes)
        elif returned.reason is Reason.UNKNOWN_TASK:
            self._give_up(refused(self.claim, returned))
        else:
            self._given_up = self._failed(returned)

    def _read(self, returned: bytes) -> None:
        """Take the result of the whole chunk as it is, unless an item is to be tried again."""
        self._given_up = self._succeeded(returned)
        policy = self._options.retry
        if (policy is None and returned.find(ASKS.encode()) < 0) or not _has_records(returned):
            return
        now = monotonic()
        again = []
        for index, record in enumerate(records := read_outcomes(returned)):
            wish = after_error(policy, 0, record, random.random) if isinstance(record, Failure) else None
            if wish is not None:
                again.append(_ItemRun(now + wish.delay, index, attempt=2, uncounted=int(not wish.counted)))
        if again:
            self._given_up, self._outcomes = None, list(records)
            self._waiting = deque(sorted(again))

    def _item_ended(self, run: Run, returned: bytes | Failure) -> None:
        self._elapsed_ns += int(run.function.sizer.ns or 0)
        if isinstance(returned, Failure) and returned.reason is Reason.UNKNOWN_TASK:
            self._give_up(refused(self.claim, returned))
        else:
            self._outcomes[run.index] = returned

    def _give_up(self, outcome: JobOutcome) -> None:
        """Run none of the rest."""
        self.stop()
        if self._given_up is None:
            self._given_up = outcome
            self._runner.cancel(self.runs, kill=False)

    def _all_records(self) -> list[ItemOutcome]:
        return [record for record in self._outcomes if record is not None]

    def _succeeded(self, result: bytes) -> JobOutcome:
        return JobOutcome(id=self.claim.id, token=self.claim.token, state=State.SUCCEEDED, result=encode(result))

    def _failed(self, failure: Failure) -> JobOutcome:
        return JobOutcome(id=self.claim.id, token=self.claim.token, state=State.FAILED, failure=failure)


def _item_options(options: JobOptions) -> JobOptions:
    return options.changed(expires=None, result_ttl=None)


def _has_records(result: bytes) -> bool:
    """Tell whether the result of a chunk says what became of each item by itself, because some failed."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(result)
    unpacker.read_array_header()
    unpacker.skip()
    return bool(unpacker.unpack() == OUTCOMES)
