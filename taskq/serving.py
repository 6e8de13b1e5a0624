"""The way in which a worker is served: the order of its queues, and what holds for jobs of other programs.

default       the first queue that has a job, in the order in which they were named
round_robin   after a job of one queue, those named behind it come first
random        in an order that is drawn for each job
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from taskq.bounded_dict import drop_oldest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["DEFAULT", "RANDOM", "ROUND_ROBIN", "STRATEGIES", "USUAL", "QueueOrder", "Serving"]

DEFAULT: Final = "default"
RANDOM: Final = "random"
ROUND_ROBIN: Final = "round_robin"

#: The orders in which queues can be looked at.
STRATEGIES: Final = (DEFAULT, RANDOM, ROUND_ROBIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What a worker asks of its store.

    - `strategy`: the order of its queues, one of `STRATEGIES`.
    - `foreign_ttl`: seconds that results of other programs' jobs are kept where those do not say, -1: for ever; None:
      as those programs do.
    - `lists_failures`: whether such jobs that fail are kept with their errors, and listed as failed.
    """

    strategy: str = DEFAULT
    foreign_ttl: int | None = None
    lists_failures: bool = True


#: Claims of which the turns are known at most: of those that were lost nothing is told.
TURNS: Final = 10_000

#: What one asks who says nothing.
USUAL: Final = Serving()


class Taken(Protocol):
    """A job that was claimed."""

    token: str
    queue: str
    crashes: int


class Ended(Protocol):
    """What became of one."""

    token: str
    started: bool
    refused: bool


T = TypeVar("T", bound=Taken)


class QueueOrder:
    """The queues of one worker, and which of them comes first now. Where none are named, their order is the store's."""

    def __init__(self, queues: Sequence[str], strategy: str) -> None:
        self.queues = tuple(queues)
        self.strategy = strategy if len(self.queues) > 1 else DEFAULT
        #: Whether it has to be told of claims and of what became of them.
        self.takes_turns = self.strategy == ROUND_ROBIN
        #: The place among `queues` of the one that comes first.
        self.first = 0
        #: The queues of what was claimed by turns and has not ended, by token, in the order of the claims.
        self._turns: dict[str, str] = {}

    def take(self, want: int, take: Callable[[Sequence[str], int], list[T]]) -> list[T]:
        """Return up to `want` claims; `take` claims some of queues in their order.

        One that has crashed is the last: whether others may run beside it is not known here.
        """
        if self.strategy == DEFAULT:
            return take(self.queues, want)
        found: list[T] = []
        while len(found) < want and not (found and found[-1].crashes):
            claims = take(self._now(), 1)
            if not claims:
                break
            self.took(claims)
            found += claims
        return found

    def _now(self) -> Sequence[str]:
        """Return the queues in the order in which they are looked at for the next job."""
        if self.strategy == RANDOM:
            return random.sample(self.queues, len(self.queues))
        return self.queues[self.first :] + self.queues[: self.first]

    def took(self, claims: Sequence[Taken]) -> None:
        """Take note of jobs that were claimed."""
        if not self.takes_turns:
            return
        for claim in claims:
            self._turns[claim.token] = claim.queue
            self.first = (self._place(claim.queue) + 1) % len(self.queues)
        drop_oldest(self._turns, TURNS)

    def told(self, outcomes: Sequence[Ended]) -> None:
        """Take note of what became of jobs; the turn of the first one that goes back unstarted comes again."""
        if not self.takes_turns:
            return
        back = {outcome.token for outcome in outcomes if not outcome.started and not outcome.refused}
        again = next((queue for token, queue in self._turns.items() if token in back), None)
        for outcome in outcomes:
            self._turns.pop(outcome.token, None)
        if again is not None:
            self.first = self._place(again)

    def _place(self, queue: str) -> int:
        return self.queues.index(queue) if queue in self.queues else -1
