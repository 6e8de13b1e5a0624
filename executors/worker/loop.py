"""The main loop of a worker, in one thread.

    a turn:  runs that ended ──▶ outcomes ──▶ heartbeat, maintenance ──▶ poll: tell, claim ──▶ sleep until
             a run ends · work or a control request comes · a duty is due · a stop is asked for

A stop: no new claims; what was not begun goes back; what runs gets the grace; then it is killed, and goes back too.

A burst ends when nothing of the worker's queues waits or runs any more:

    a poll brought nothing ──▶ what remains?   a job waits for its turn, or runs, or waits for one that runs ──▶ go on
                                               retries wait for their time ──▶ drain: go on; else logged, and the end
                                               nothing ──▶ the end

Jobs that run in other workers count too: they may be retried, requeued, or let others go on that wait for them.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any, Final

from taskq.executors.worker.claims import ClaimTable, PrefetchLimit
from taskq.executors.worker.health import SystemdNotifier
from taskq.executors.worker.progress import ProgressReporter
from taskq.executors.worker.session import StoreSession
from taskq.log import get_logger
from taskq.serving import USUAL, Serving
from taskq.store import WorkerRecord

if TYPE_CHECKING:
    from taskq.executors.worker.runs import PoolRunner
    from taskq.store import PollResult, ProgressUpdate, Remains, Store

__all__ = ["BACKEND", "CLEAN", "FORCED", "Loop", "WorkerOptions"]

log = get_logger("taskq.worker")

#: Seconds without any outcome after which what has not begun is given back, for workers that are free.
_STALL: Final = 0.1
#: Seconds by which a timed wake may come early.
_TICK: Final = 0.002
#: Seconds between two looks at control requests while there is no room for work.
_CONTROL_EVERY: Final = 0.25
#: Seconds that outcomes may wait for more to come while the pool has plenty to do.
_BATCH_FOR: Final = 0.05
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

#: Seconds between two looks at what remains, while a burst has nothing to do.
_REMAINS_EVERY: Final = 0.25

#: How a run ends; the exit codes of `taskq worker`.
CLEAN, FORCED, BACKEND = 0, 1, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The settings of a worker that its loop needs; see `Worker`."""

    name: str
    queues: tuple[str, ...]
    burst: bool = False
    drain: bool = False
    max_jobs: int | None = None
    grace: float = 30.0
    only: str | None = None
    interrupts: bool = False
    serving: Serving = USUAL


class Loop:
    """One service of a store, from joining it to leaving it."""

    def __init__(self, store: Store, runner: PoolRunner, options: WorkerOptions) -> None:
        self.options = options
        self.runner = runner
        self.started_at = time()
        self.prefetch = PrefetchLimit(runner.processes)
        self.claims = ClaimTable(runner, self.prefetch)
        self.progress = ProgressReporter(runner)
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
        self._systemd = SystemdNotifier()
        self.session = StoreSession(store, store.join(self.record()))
        self._burst = Burst(self.session, drain=options.drain) if options.burst or options.drain else None

    def stop(self) -> None:
        """End in an orderly way; called again: at once. From any thread, and from signal handlers."""
        self._stops += 1
        self.runner.wake()

    def run(self) -> int:
        """Serve until the end; return how it was."""
        log.info("worker_started", **self._identity())
        self._systemd.ready(f"serving {', '.join(self.options.queues)}")
        try:
            self._turn()
            while not self._is_over():
                self._rest()
                self._turn()
            code = self._finish()
        except BaseException:
            with suppress(Exception):  # the error itself is what must be seen
                self.session.leave()
            raise
        log.info(
            "worker_stopped",
            name=self.options.name,
            code=code,
            succeeded=self.claims.succeeded,
            failed=self.claims.failed,
        )
        return code

    # -- a turn

    def _turn(self) -> None:
        now = self.turned_at = monotonic()
        session = self.session
        if now >= self._systemd.next_beat:
            self._systemd.beat()
        if self.runner.ended and self.claims.collect(session.pending):
            self._worked_at, self._stalled = now, False
        if self.session.pending:
            self._batch_outcomes(now)
        if self._stops:
            self._stop_gracefully(now)
        elif self.runner.broken is not None:
            log.error("pool_broken", error=self.runner.broken)
            self._forced = self.closing = True
        elif self._may_stall and now - self._worked_at > _STALL:
            self._stalled = True
            self.claims.requeue(everything=False)
        if now >= session.due_at and now >= session.retry_at:
            self.claims.forget(session.maintain_lease(self.record, self.claims.tokens))
        if session.retry_at <= now:
            self._poll(monotonic())
        while self._may_begin() and (ready := self.claims.ready()):
            self._begin(ready)

    def _may_begin(self) -> bool:
        """Tell whether jobs may begin of which the store must know it first: it knows what has ended before them."""
        return bool(self.claims.announced) and not (self._stops or self.session.pending) and self.session.may_try()

    def _begin(self, ready: list[tuple[str, str]]) -> None:
        lost = self.session.begin(ready)
        if lost is not None:
            self.claims.begin(ready, lost)

    @property
    def _may_stall(self) -> bool:
        """Whether there is something in hand that could go back, and has not."""
        return not self._stalled and len(self.claims.held) > self.runner.processes

    def _batch_outcomes(self, now: float) -> None:
        """Let more come to an end before all is told at once, while nobody is short of work."""
        spent = now - self._polled_at
        if spent < _BATCH_FOR and not self._stops and self.prefetch.has_plenty(self.runner.ahead_ns, _BATCH_FOR):
            sleep(_BATCH_FOR - spent)
            self.claims.collect(self.session.pending)

    def _want(self) -> int:
        self._stalled = self._stalled and bool(self.claims.held)  # what stood in the way may have been taken from us
        if self.closing or self.session.away or self.claims.is_alone or self.claims.announced:
            return 0  # what is claimed now would begin before those that are announced
        held = len(self.claims.held)
        idle = max(0, self.runner.processes - held)
        want = idle if self._stalled else self.prefetch.want(held, self.runner.ahead_ns)
        if self.options.max_jobs is None:
            return want
        left = self.options.max_jobs - self.claims.begun
        self.closing = left <= 0 and not self.claims.held
        return max(0, min(want, left))

    def _poll(self, now: float) -> None:
        if self.options.only is not None:
            want = 0
            self._take_only(self.options.only, now)
        else:
            want = self._want()
        progress = self._gather(now) if self.claims.held and now >= self.progress.next_at else []
        self._needs_work = want > 0
        if not (want or progress or self.session.pending or now >= self._control_at):
            return
        found = self.session.poll(progress, want)
        self._polled_at = monotonic()
        if found is not None:
            self._control_at = self._polled_at + _CONTROL_EVERY
            self._take(found, want)

    def _gather(self, now: float) -> list[ProgressUpdate]:
        """Look at what runs: tell which jobs have begun, and return what they say."""
        found = self.progress.gather(now)
        fresh = self.claims.untold(self.progress.running)
        if fresh and self.session.may_try() and (lost := self.session.begin(fresh)) is not None:
            self.claims.note_told(fresh)
            self.claims.forget(lost)
        return found

    def _take(self, found: PollResult, want: int) -> None:
        for job_id in found.fenced:
            log.warning("outcome_fenced", job=job_id, reason="another worker has had it since, or it was removed")
        for request in found.control_requests:
            if request.stop:
                self.stop()
            if request.crash:
                self.runner.crash()
            if request.job_id is not None:
                self.claims.cancel(request.job_id, kill=request.kill)
        if found.claims:
            if not self.claims.held:
                self._worked_at = self._polled_at
            if len(self.claims.held) < self.runner.processes:
                self.progress.look_soon()
            self.session.pending += self.claims.accept(found.claims)
            self._needs_work = len(found.claims) < want
        elif want and self._burst is not None and not self.claims.held and not self.session.pending:
            self.closing = self._burst.is_over()

    def _take_only(self, job_id: str, now: float) -> None:
        """Take the one job that is wanted; no more when it has ended, or others have it."""
        if self.claims.held or self.session.pending or now < self._only_at or self.closing:
            return
        self._only_at = now + _ONLY_EVERY
        found = self.session.claim_one(job_id)
        if found is not None and found.claims:
            self.progress.look_soon()
            self.session.pending += self.claims.accept(found.claims)
        elif found is not None and not self.session.waits(job_id):
            self.closing = True
        else:
            self.session.maintain_soon()

    # -- sleep

    def _rest(self) -> None:
        if self.runner.ended:
            self._empty_rests = 0
            return
        if self.session.pending and self.session.may_try():
            return
        now = monotonic()
        timeout = max(0.0, min(self._wake_at() - now, _LONGEST))
        if self._needs_work and not self.session.away:
            self._wait_for_work(now, timeout)
        else:
            self.runner.sleep(timeout)

    def _wake_at(self) -> float:
        times = [self.session.due_at, self._systemd.next_beat]
        if self.claims.held:
            times += [self._control_at, self.progress.next_at]
        if self._kill_at is not None:
            times.append(monotonic() + _ENDING_LOOK)
        if self._may_stall:
            times.append(self._worked_at + _STALL + _TICK)
        if self.options.only is not None:
            times.append(self._only_at)
        if self._burst is not None and not self.claims.held:
            times.append(self._burst.look_at)
        return min(times)

    def _wait_for_work(self, now: float, timeout: float) -> None:
        """Wait at the store; slow down where it says again and again that there is work, and there is none."""
        runner = self.runner
        runner.sleeping = True
        if not runner.ended and not self._stops:
            self.session.wait(timeout, runner.wake_fd)
        runner.awake()
        if monotonic() - now > _EMPTY_PAUSE or runner.ended or self.claims.held:
            self._empty_rests = 0
        else:
            self._empty_rests += 1
        if self._empty_rests > _EMPTY_RESTS:
            runner.sleep(_EMPTY_PAUSE)

    # -- the end

    def _stop_gracefully(self, now: float) -> None:
        """Take nothing more, give back what was not begun; kill what runs when the grace is over or a stop repeated."""
        self.closing = True
        if self._kill_at is None:
            log.info("worker_stopping", name=self.options.name, held=len(self.claims.held), grace_s=self.options.grace)
            self._systemd.stopping()
            self._kill_at = now + self.options.grace
            self.runner.drain(interrupt=self.options.interrupts)
        if self.claims.held:
            self.claims.requeue(everything=True)
        if self._give_up_at is None and (now >= self._kill_at or self._stops > 1):
            self._give_up_at = now + _KILL_WAIT
            if self.claims.held:
                log.warning("jobs_killed", name=self.options.name, jobs=len(self.claims.held))
                self._forced = True
                self.claims.kill_all()

    def _is_over(self) -> bool:
        if self._burst is not None and not self.closing and not self.claims.held and self.session.away_for > _AWAY:
            log.error(
                "backend_gone", away_s=round(self.session.away_for, 1), outcomes_waiting=len(self.session.pending)
            )
            self.closing, self._give_up_at = True, monotonic()
        if not self.closing:
            return False
        if not self.claims.held and not self.session.pending and not self.runner.ended:
            return True
        return self._give_up_at is not None and monotonic() >= self._give_up_at

    def _finish(self) -> int:
        """Give back what is left, and sign off."""
        self.session.pending += self.claims.requeue_rest()
        told = not self.session.pending or self.session.poll([], 0) is not None
        left = self.session.leave()
        if not (told and left):
            return BACKEND
        return FORCED if self._forced else CLEAN

    # -- what others are told

    def record(self) -> WorkerRecord:
        """Describe this worker to the store."""
        held = len(self.claims.held)
        return WorkerRecord(
            **self._identity(),
            version=getattr(sys.modules["taskq"], "__version__", ""),
            started_at=self.started_at,
            running=min(held, self.runner.processes),
            succeeded=self.claims.succeeded,
            failed=self.claims.failed,
            stopping=self._stops > 0,
            serving=self.options.serving,
        )

    def report(self) -> dict[str, Any]:
        """Describe this worker to monitors; from any thread."""
        held = len(self.claims.held)
        stuck = monotonic() - self.turned_at > _STUCK
        return {
            "status": "stuck"
            if stuck
            else "backend_away"
            if self.session.away
            else "stopping"
            if self.closing
            else "ok",
            "name": self.options.name,
            "queues": list(self.options.queues),
            "processes": self.runner.processes,
            "held": held,
            "running": min(held, self.runner.processes),
            "succeeded": self.claims.succeeded,
            "failed": self.claims.failed,
            "outcomes_waiting": len(self.session.pending),
            "backend_away_s": round(self.session.away_for, 3),
            "uptime_s": round(time() - self.started_at, 3),
        }

    def _identity(self) -> dict[str, Any]:
        options = self.options
        return {
            "name": options.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queues": options.queues,
            "processes": self.runner.processes,
        }


class Burst:
    """The end of a burst. `drain`: not while jobs that were started before wait for their time."""

    def __init__(self, session: StoreSession, *, drain: bool) -> None:
        self._session = session
        self._drain = drain
        #: When to look next, by the monotonic clock.
        self.look_at = 0.0

    def is_over(self) -> bool:
        """Tell whether it is, when a claim has brought nothing and nothing is held; say what it leaves."""
        if monotonic() < self.look_at:
            return False
        self.look_at = monotonic() + _REMAINS_EVERY
        found = self._session.remains()
        if found is None or found.busy or (self._drain and found.again):
            return False
        _log_left(found)
        return True


def _log_left(left: Remains) -> None:
    if left.again:
        log.warning(
            "retries_left",
            jobs=left.again,
            due_in_s=round(max(0.0, left.first), 1),
            last_due_in_s=round(max(0.0, left.last), 1),
            cure="a later worker runs them; --drain waits for them",
        )
    if left.scheduled > left.again:
        log.info("scheduled_left", jobs=left.scheduled - left.again)
