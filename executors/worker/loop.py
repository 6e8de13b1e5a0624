"""The loop of a worker, in one thread.

    a turn:  what has ended ──▶ outcomes ──▶ duties (heartbeat, maintenance) ──▶ poll: tell, take ──▶ sleep until
             something ends · work or a control request comes · a duty is due · somebody says stop

A stop: no new claims; what was not begun goes back; what runs gets the grace; then it is killed, and goes back too.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any, Final

from taskq.executors.worker.burst import Burst
from taskq.executors.worker.desk import Desk
from taskq.executors.worker.link import Link
from taskq.executors.worker.notes import Notes
from taskq.executors.worker.notify import Notifier
from taskq.executors.worker.room import Room
from taskq.log import get_logger
from taskq.store import WorkerRecord

if TYPE_CHECKING:
    from taskq.executors.worker.hands import Hands
    from taskq.store import PollResult, Store

__all__ = ["BACKEND", "CLEAN", "FORCED", "Loop", "Plan"]

log = get_logger("taskq.worker")

#: Seconds without any outcome after which what has not begun is given back, for workers that are free.
_STALL: Final = 0.1
#: Seconds by which a timed wake may come early.
_TICK: Final = 0.002
#: Seconds between two looks at control requests while there is no room for work.
_CONTROL_EVERY: Final = 0.25
#: Seconds that outcomes may wait for more to come while the pool has plenty to do.
_LINGER: Final = 0.05
#: Seconds between two looks at jobs that are to end.
_ENDING_LOOK: Final = 0.02
#: Seconds that killed processes get to be gone.
_KILL_WAIT: Final = 3.0
#: Seconds between two tries to take the one job that is wanted.
_ONLY_EVERY: Final = 0.1
#: Seconds that a sleep may last.
_LONGEST: Final = 60.0
#: Waits in a row that may end at once and bring nothing, and seconds of pause after each further one.
_EMPTY_RESTS, _EMPTY_PAUSE = 2, 0.02

#: Seconds without a turn after which the loop counts as stuck: far above any duty or time limit in it.
_STUCK: Final = 30.0

#: Seconds for which a burst that runs nothing waits for a store that is away: it may be gone for good.
_AWAY: Final = 30.0

#: How a run ends; the exit codes of `taskq worker`.
CLEAN, FORCED, BACKEND = 0, 1, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a worker was told to do; see `Worker`."""

    name: str
    queues: tuple[str, ...]
    burst: bool = False
    drain: bool = False
    max_jobs: int | None = None
    grace: float = 30.0
    only: str | None = None
    interrupts: bool = False


class Loop:
    """One service of a store, from joining it to leaving it."""

    def __init__(self, store: Store, hands: Hands, plan: Plan) -> None:
        self.plan = plan
        self.hands = hands
        self.started_at = time()
        self.room = Room(hands.processes)
        self.desk = Desk(hands, self.room)
        self.updates = Notes(hands)
        #: When the last turn was, by the monotonic clock.
        self.turned_at = monotonic()
        self._stops = 0
        #: Whether no new work is taken: what is held is the last.
        self.closing = False
        #: When what runs is killed; None as long as nobody said stop. And when to wait no longer for that.
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self._forced = False
        self._needs_work = False
        self._stalled = False
        self._worked_at = self._polled_at = self._control_at = self._only_at = 0.0
        self._empty_rests = 0
        self._notifier = Notifier()
        self.link = Link(store, store.join(self.record()))
        self._burst = Burst(self.link, drain=plan.drain) if plan.burst or plan.drain else None

    def stop(self) -> None:
        """End in an orderly way; called again: at once. From any thread, and from signal handlers."""
        self._stops += 1
        self.hands.wake()

    def run(self) -> int:
        """Serve until the end; return how it was."""
        log.info("worker_started", **self._identity())
        self._notifier.ready(f"serving {', '.join(self.plan.queues)}")
        try:
            self._turn()
            while not self._is_over():
                self._rest()
                self._turn()
            code = self._finish()
        except BaseException:
            with suppress(Exception):  # the error itself is what must be seen
                self.link.leave()
            raise
        log.info(
            "worker_stopped", name=self.plan.name, code=code, succeeded=self.desk.succeeded, failed=self.desk.failed
        )
        return code

    # -- a turn

    def _turn(self) -> None:
        now = self.turned_at = monotonic()
        self._notifier.beat()
        if self.desk.collect(self.link.pending):
            self._worked_at, self._stalled = now, False
        if self.link.pending:
            self._linger(now)
        if self._stops:
            self._wind_down(now)
        elif self.hands.broken is not None:
            log.error("pool_broken", error=self.hands.broken)
            self._forced = self.closing = True
        elif self._may_stall and now - self._worked_at > _STALL:
            self._stalled = True
            self.desk.requeue(everything=False)
        if self.link.may_try():
            self.desk.forget(self.link.keep_up(self.record, self.desk.holdings))
        if self.link.may_try():
            self._poll(monotonic())
        while not self._stops and self.link.may_try() and (ready := self.desk.ready()):
            self._begin(ready)

    def _begin(self, ready: list[tuple[str, str]]) -> None:
        """Have those begin of which the store must know it first."""
        lost = self.link.begin(ready)
        if lost is not None:
            self.desk.begin(ready, lost)

    @property
    def _may_stall(self) -> bool:
        """Whether there is something in hand that could go back, and has not."""
        return not self._stalled and len(self.desk.held) > self.hands.processes

    def _linger(self, now: float) -> None:
        """Let more come to an end before all is told at once, while nobody is short of work."""
        spent = now - self._polled_at
        if spent < _LINGER and not self._stops and self.room.has_plenty(self.hands.ahead_ns, _LINGER):
            sleep(_LINGER - spent)
            self.desk.collect(self.link.pending)

    def _want(self) -> int:
        self._stalled = self._stalled and bool(self.desk.held)  # what stood in the way may have been taken from us
        if self.closing or self.link.away or self.desk.is_alone:
            return 0
        held = len(self.desk.held)
        idle = max(0, self.hands.processes - held)
        want = idle if self._stalled else self.room.want(held, self.hands.ahead_ns)
        if self.plan.max_jobs is None:
            return want
        left = self.plan.max_jobs - self.desk.begun
        self.closing = left <= 0 and not self.desk.held
        return max(0, min(want, left))

    def _poll(self, now: float) -> None:
        if self.plan.only is not None:
            want = 0
            self._take_only(self.plan.only, now)
        else:
            want = self._want()
        updates = self.updates.gather(now) if self.desk.held else []
        self._needs_work = want > 0
        if not (want or updates or self.link.pending or now >= self._control_at):
            return
        found = self.link.poll(updates, want)
        self._polled_at = monotonic()
        if found is not None:
            self._control_at = self._polled_at + _CONTROL_EVERY
            self._take(found, want)

    def _take(self, found: PollResult, want: int) -> None:
        for job_id in found.fenced:
            log.warning("outcome_fenced", job=job_id, reason="another worker has had it since, or it was removed")
        for request in found.control_requests:
            if request.stop:
                self.stop()
            if request.crash:
                self.hands.crash()
            if request.job_id is not None:
                self.desk.cancel(request.job_id, kill=request.kill)
        if found.claims:
            if not self.desk.held:
                self._worked_at = self._polled_at
            self.link.pending += self.desk.accept(found.claims)
            self._needs_work = len(found.claims) < want
        elif want and self._burst is not None and not self.desk.held and not self.link.pending:
            self.closing = self._burst.is_over()

    def _take_only(self, job_id: str, now: float) -> None:
        """Take the one job that is wanted; no more when it has ended, or others have it."""
        if self.desk.held or self.link.pending or now < self._only_at or self.closing:
            return
        self._only_at = now + _ONLY_EVERY
        found = self.link.claim_one(job_id)
        if found is not None and found.claims:
            self.link.pending += self.desk.accept(found.claims)
        elif found is not None and not self.link.waits(job_id):
            self.closing = True
        else:
            self.link.maintain_soon()

    # -- sleep

    def _rest(self) -> None:
        if self.hands.ended:
            self._empty_rests = 0
            return
        if self.link.pending and self.link.may_try():
            return
        now = monotonic()
        timeout = max(0.0, min(self._wake_at() - now, _LONGEST))
        if self._needs_work and not self.link.away:
            self._wait_for_work(now, timeout)
        else:
            self.hands.sleep(timeout)

    def _wake_at(self) -> float:
        times = [self.link.next_duty(), self._notifier.next_beat]
        if self.desk.held:
            times += [self._control_at, self.updates.next_at]
        if self._kill_at is not None:
            times.append(monotonic() + _ENDING_LOOK)
        if self._may_stall:
            times.append(self._worked_at + _STALL + _TICK)
        if self.plan.only is not None:
            times.append(self._only_at)
        if self._burst is not None and not self.desk.held:
            times.append(self._burst.look_at)
        return min(times)

    def _wait_for_work(self, now: float, timeout: float) -> None:
        """Wait at the store; slow down where it says again and again that there is work, and there is none."""
        hands = self.hands
        hands.sleeping = True
        if not hands.ended and not self._stops:
            self.link.wait(timeout, hands.wake_fd)
        hands.awake()
        if monotonic() - now > _EMPTY_PAUSE or hands.ended or self.desk.held:
            self._empty_rests = 0
        else:
            self._empty_rests += 1
        if self._empty_rests > _EMPTY_RESTS:
            hands.sleep(_EMPTY_PAUSE)

    # -- the end

    def _wind_down(self, now: float) -> None:
        """Take nothing more, give back what was not begun; kill what runs when the grace is over or a stop repeated."""
        self.closing = True
        if self._kill_at is None:
            log.info("worker_stopping", name=self.plan.name, held=len(self.desk.held), grace_s=self.plan.grace)
            self._notifier.stopping()
            self._kill_at = now + self.plan.grace
            self.hands.wind_down(interrupt=self.plan.interrupts)
        if self.desk.held:
            self.desk.requeue(everything=True)
        if self._give_up_at is None and (now >= self._kill_at or self._stops > 1):
            self._give_up_at = now + _KILL_WAIT
            if self.desk.held:
                log.warning("jobs_killed", name=self.plan.name, jobs=len(self.desk.held))
                self._forced = True
                self.desk.kill_all()

    def _is_over(self) -> bool:
        if self._burst is not None and not self.closing and not self.desk.held and self.link.away_for > _AWAY:
            log.error("backend_gone", away_s=round(self.link.away_for, 1), outcomes_waiting=len(self.link.pending))
            self.closing, self._give_up_at = True, monotonic()
        if not self.closing:
            return False
        if not self.desk.held and not self.link.pending and not self.hands.ended:
            return True
        return self._give_up_at is not None and monotonic() >= self._give_up_at

    def _finish(self) -> int:
        """Give back what is left, and sign off."""
        self.link.pending += self.desk.abandon()
        told = not self.link.pending or self.link.poll([], 0) is not None
        left = self.link.leave()
        if not (told and left):
            return BACKEND
        return FORCED if self._forced else CLEAN

    # -- what others are told

    def record(self) -> WorkerRecord:
        """Describe this worker to the store."""
        held = len(self.desk.held)
        return WorkerRecord(
            **self._identity(),
            version=getattr(sys.modules["taskq"], "__version__", ""),
            started_at=self.started_at,
            running=min(held, self.hands.processes),
            succeeded=self.desk.succeeded,
            failed=self.desk.failed,
            stopping=self._stops > 0,
        )

    def report(self) -> dict[str, Any]:
        """Describe this worker to monitors; from any thread."""
        held = len(self.desk.held)
        stuck = monotonic() - self.turned_at > _STUCK
        return {
            "status": "stuck" if stuck else "backend_away" if self.link.away else "stopping" if self.closing else "ok",
            "name": self.plan.name,
            "queues": list(self.plan.queues),
            "processes": self.hands.processes,
            "held": held,
            "running": min(held, self.hands.processes),
            "succeeded": self.desk.succeeded,
            "failed": self.desk.failed,
            "outcomes_waiting": len(self.link.pending),
            "backend_away_s": round(self.link.away_for, 3),
            "uptime_s": round(time() - self.started_at, 3),
        }

    def _identity(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "name": plan.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queues": plan.queues,
            "processes": self.hands.processes,
        }
