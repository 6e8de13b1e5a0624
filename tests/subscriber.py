"""A subscription with a book of who waits, as a client has them, in the thread of a test."""

from __future__ import annotations

import math
from time import monotonic
from typing import TYPE_CHECKING

from taskq.wait_book import WaitBook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskq.store import Ended, Subscription


class Subscriber:
    """Wait for jobs by a subscription. One thread is in `wait`; `expect` and `forget` may be called from any."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.reply_to = subscription.reply_to
        self.book: WaitBook[None] = WaitBook()

    def announce(self, ids: Iterable[str]) -> str:
        """Return the `reply_to` to put these jobs with; they are not asked for then."""
        self.book.announce(ids)
        return self.reply_to

    def expect(self, ids: Iterable[str]) -> None:
        """Wait for these jobs too, and ask for them."""
        for job_id in ids:
            self.book.add(job_id, None)
        self.subscription.wake()

    def forget(self, ids: Iterable[str]) -> None:
        """Wait for these jobs no more."""
        self.subscription.forget([job_id for job_id in ids if self.book.discard(job_id)])

    def wait(self, timeout: float | None) -> list[Ended]:
        """Return the ends of expected jobs that come first; none after `timeout` seconds."""
        deadline = math.inf if timeout is None else monotonic() + timeout
        while True:
            self.subscription.ask(self.book.due(self.subscription.ask_most))
            left = max(0.0, deadline - monotonic())
            news = self.subscription.wait(min(left, self.book.patience()))
            ended = [end for end in self.book.take(news) if self.book.discard(end.id)]
            if ended or (not left and self.book.patience() != 0):
                return ended

    def close(self) -> None:
        """Close the subscription."""
        self.subscription.close()
