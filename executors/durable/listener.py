"""ResultListener: the one thread of a client that learns which jobs have ended, and tells their handles.

    user's thread                      listener's thread                 store
    subscribe(id, target) ─▶ subscription ──▶ subscription.wait()  ◀────  jobs that ended
    target.on_ended(ended) ◀─────────────────────┘
    wait_for(id, target) ──▶ subscription.wait_for()  ◀─────────────────  where nothing else is waited for
      └─ other jobs' ends, and callbacks ──▶ deferred calls

It starts with the first job that is waited for. Handles that are held but not waited for are told
too when the store happens to say how they ended.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from taskq.bounded_dict import drop_oldest
from taskq.errors import BackendUnavailable, QueueFull
from taskq.executors.durable.look_ahead import HeldHandles, LookAhead
from taskq.failure import Failure
from taskq.locks import CallLock, SafeCondition, aside, may_be_interrupted
from taskq.states import TERMINAL, State
from taskq.store import Ended
from taskq.wait_book import WaitBook, ended_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskq.store import News, Store, Subscription

__all__ = ["ResultListener", "Target", "TargetHandles", "Waiter"]

#: Seconds before a subscription that failed is asked again.
_PAUSE: Final = 0.5
#: Jobs that were run again of which no news is believed, at most.
DOUBTED_MAX: Final = 100_000
#: Bytes of a result that a handle takes that nobody waits on; a larger one is asked for when somebody does.
_UNASKED_MAX: Final = 4096


class Target(Protocol):
    """Receiver of a job's end."""

    def on_ended(self, ended: Ended) -> None:
        """Take the end; called in the listener's thread, once."""


class Waiter(Target, Protocol):
    """A target whose thread waits by itself."""

    def try_end(self, ended: Ended) -> bool:
        """Take the end in that thread; return False where others must be told too: then `on_ended` is called."""


class TargetHandles(HeldHandles, Protocol):
    """The handles that the program holds, as those who are told."""

    def get(self, job_id: str) -> Target | None:
        """Return the handle of a job, if somebody holds one."""


class ResultListener:
    """The thread that waits for news, and who is told. Any thread of the process that made it may call."""

    def __init__(self, store: Store, held: TargetHandles) -> None:
        self.pid = os.getpid()
        self._store = store
        #: Handles that the program holds, by id; weak.
        self._handles = held
        self._look_ahead = LookAhead(held)
        self._book: WaitBook[Target] = WaitBook()
        #: Notified when nothing is waited for any more.
        self._idle = SafeCondition()
        self._starting = CallLock()
        self._subscription: Subscription | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        #: What is to be done in the listener's thread, because it must not be done where it came up.
        self._deferred: deque[Callable[[], None]] = deque()
        self._then: Callable[[], None] | None = None
        #: Jobs that were run again: the news of an end may be that of the first run, so the store is asked.
        self._doubted: dict[str, None] = {}
        #: Why nothing will ever be told any more.
        self._broken: Exception | None = None

    def subscribed(self) -> list[str]:
        """Return the ids of the jobs that somebody waits for here."""
        return self._book.ids()

    def start(self) -> None:
        """Begin to listen, unless that has been done.

        Raises:
            BackendUnavailable: the store cannot be reached.
        """
        if self._subscription is None:
            aside(self._begin)

    def _begin(self) -> None:
        with self._starting:
            if self._subscription is None and not self._stopping:
                self._subscription = self._store.subscribe()
                self._thread = threading.Thread(
                    target=_listen, args=(self, self._subscription), name="taskq-listener", daemon=True
                )
                self._thread.start()

    def announce(self, ids: Iterable[str]) -> str:
        """Return the `reply_to` of jobs that are about to be put. Those that have new `ids` need not be asked for."""
        subscription = self._subscription
        if subscription is None or not subscription.reply_to:
            return ""
        self._book.announce(ids)
        return subscription.reply_to

    def subscribe(self, targets: Iterable[tuple[str, Target]]) -> None:
        """Tell these targets when their jobs end."""
        self.start()
        try:
            if [job_id for job_id, target in targets if self._book.add(job_id, target)]:
                self._wake()
        except BaseException:
            self._ask_again()
            raise
        if self._broken is not None:
            self._fail_all(self._broken)

    def doubt(self, job_id: str) -> None:
        """Believe no news of this job's end that the store itself does not confirm: it is going to be run again."""
        self._doubted[job_id] = None
        drop_oldest(self._doubted, DOUBTED_MAX)

    def subscribe_new(self, targets: Iterable[tuple[str, Target]]) -> str:
        """Tell these targets when their jobs end, which have new ids; return the `reply_to` to put them with.

        Where that is empty, `ask` for them when they are there.
        """
        self._book.add_new(targets)
        return "" if self._subscription is None else self._subscription.reply_to

    def ask(self, ids: Iterable[str]) -> None:
        """Ask for the ends of these jobs, where somebody waits for them."""
        self._book.ask(ids)
        self._wake()

    def wait_for(self, job_id: str, waiter: Waiter, timeout: float | None) -> None:
        """Do as `subscribe`, and wait for a while in this thread if nothing else is waited for.

        It may have ended afterwards, or not.
        """
        self.start()
        subscription = self._subscription
        here = subscription is not None and subscription.waits_here
        alone = here and not self._book.waiters and job_id not in self._doubted
        if subscription is None or not alone or self._broken is not None or self.is_this_thread():
            self.subscribe([(job_id, waiter)])
            return
        try:
            if not self._book.add(job_id, waiter):
                self._take_here(job_id, waiter, subscription.wait_here(job_id, timeout))
            if job_id in self._book.waiters:
                self._wake()  # the thread goes on with it
        except BaseException:
            self._ask_again()
            raise

    def _take_here(self, job_id: str, waiter: Waiter, news: News) -> None:
        """Take the news of one job in the thread that wants it; the rest is for the listener's."""
        for ended in news.ended:
            if ended.id == job_id and waiter.try_end(ended):
                self._settled(job_id)
                news.ended.remove(ended)
                break
        if news:
            self.call_later(partial(self._take, news))

    def _ask_again(self) -> None:
        """Have the thread ask for all that is waited for: an interrupt may have come before it was."""
        self._book.ask_all()
        self._wake()

    def _wake(self) -> None:
        subscription = self._subscription
        if subscription is not None:
            subscription.wake()

    def unsubscribe(self, ids: Iterable[str]) -> None:
        """Tell nobody any more of these jobs."""
        known = [job_id for job_id in ids if self._book.discard(job_id)]
        subscription = self._subscription
        if known and subscription is not None:
            subscription.forget(known)
            self._idle.notify_all()

    def call_later(self, call: Callable[[], None]) -> None:
        """Have this done soon, in the listener's thread.

        For finalizers: they may run at any point of any thread, also where it holds a lock of the store's.
        """
        self._deferred.append(call)
        self._wake()

    def wait_until_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is waited for any more; return whether that is so."""
        self._idle.wait_for(lambda: not self._book.waiters or self._stopping, timeout)
        return not self._book.waiters

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more will be told here."""
        return self._stopping

    def is_this_thread(self) -> bool:
        """Return whether the caller is a callback, called by the listener."""
        return threading.current_thread() is self._thread

    def stop(self, *, wait: bool, then: Callable[[], None] | None = None) -> None:
        """Listen no more; the thread calls `then` at its end. Without `wait`, a finalizer may call it."""
        if self.pid != os.getpid():
            return
        self._then = then
        self._stopping = True
        subscription, thread = self._subscription, self._thread
        if subscription is None or thread is None:
            return
        subscription.wake()
        if wait and not self.is_this_thread():
            thread.join()

    # -- the thread

    def run_once(self, subscription: Subscription) -> bool:
        """Ask for what is due, wait once and dispatch what has ended; return whether to go on."""
        while self._deferred:
            self._deferred.popleft()()
        if self._stopping:
            return False
        if ids := self._book.due(subscription.ask_most):
            subscription.ask(ids if len(ids) > 1 else [*ids, *self._look_ahead.after(ids[0])])
        self._take(subscription.wait(self._book.patience()))
        return True

    def _take(self, news: News) -> None:
        for ended in self._book.take(news):
            self.dispatch(ended)

    def dispatch(self, ended: Ended) -> None:
        """Pass a job's end on to who waits for it, or holds its handle."""
        if ended.id in self._doubted and self._broken is None:
            record = self._store.get([ended.id], payload=True)[0]
            if record is not None and record.state not in TERMINAL:
                return
            self._doubted.pop(ended.id, None)
            ended = ended_of(ended.id, record)
        target = self._book.waiters.get(ended.id)
        if target is None:
            if ended.result is not None and len(ended.result) > _UNASKED_MAX:
                self._look_ahead.end()
                return
            target = self._handles.get(ended.id)
        if target is None:
            return
        try:
            target.on_ended(ended)
        except Exception:
            if may_be_interrupted():  # it may be what a signal handler raises
                raise
            logging.getLogger("taskq").exception("telling job %s how it ended", ended.id)
        self._settled(ended.id)

    def _settled(self, job_id: str) -> None:
        if self._book.discard(job_id) and not self._book.waiters:
            self._idle.notify_all()

    def recover(self) -> None:
        """Ask again for everything after the store could not be reached."""
        time.sleep(_PAUSE)
        self._book.ask_all()

    def fail_all(self, error: Exception) -> None:
        """Fail all that is waited for: nothing will ever be told of it."""
        logging.getLogger("taskq").error("cannot listen to %s: %s", self._store.url, error)
        self._broken = error
        self._stopping = True
        self._fail_all(error)

    def _fail_all(self, error: Exception) -> None:
        for job_id in self._book.ids():
            self.dispatch(Ended(id=job_id, state=State.FAILED, failure=Failure.from_exception(error)))

    def leave(self, subscription: Subscription) -> None:
        """End the thread's work."""
        self._subscription = None
        subscription.close()
        if self._then is not None:
            self._then()
        self._idle.notify_all()


def _listen(listener: ResultListener, subscription: Subscription) -> None:
    """Be the thread of a listener."""
    try:
        while True:
            try:
                if not listener.run_once(subscription):
                    break
            except (BackendUnavailable, QueueFull):
                listener.recover()
            except Exception as error:  # noqa: BLE001  # whatever it is, nobody may wait for ever
                listener.fail_all(error)
                break
    finally:
        listener.leave(subscription)
