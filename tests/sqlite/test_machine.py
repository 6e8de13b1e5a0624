"""A queue file against a model of it in a dict, through random operations."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskq.executors.sqlite.store import SQLiteStore
from taskq.failure import Failure
from taskq.states import TERMINAL, State
from tests.store_steps import job, said, take, worker

if TYPE_CHECKING:
    from taskq.store import Claim, WorkerSession

QUEUES = ("high", "default")
WORKERS = ("a", "b")
KEYS = ("k1", "k2")

#: A queue and a priority.
PLAIN = st.tuples(st.sampled_from(QUEUES), st.integers(-1, 1))


@dataclass
class Model:
    """What must be true of one job."""

    number: int
    queue: str
    priority: int
    key: str | None
    depends_on: tuple[str, ...]
    state: State = State.QUEUED
    attempts: int = 0
    crashes: int = 0
    begun: bool | None = None
    suspect: bool = False
    retries: int = 0
    holder: str | None = None
    wished: bool = False
    claims: list[Claim] = field(default_factory=list)


class QueueFile(RuleBasedStateMachine):
    """Submit, claim, tell, cancel, retry, remove, pause, die and come back, in any order."""

    @initialize()
    def begin(self) -> None:
        """Make a file with two workers."""
        self.folder = Path(tempfile.mkdtemp())
        self.store = SQLiteStore(f"sqlite://{self.folder}/queue.db?durability=normal")
        self.members: dict[str, WorkerSession] = {name: self.store.join(worker(name, QUEUES)) for name in WORKERS}
        self.jobs: dict[str, Model] = {}
        self.paused: set[str] = set()
        self.numbers = itertools.count()
        self.late: list[tuple[str, Claim]] = []

    def teardown(self) -> None:
        """Take everything away."""
        for member in self.members.values():
            member.leave()
        self.store.close()
        shutil.rmtree(self.folder)

    # -- what clients do

    @rule(wanted=st.lists(PLAIN, min_size=2, max_size=5))
    def put_some(self, wanted: list[tuple[str, int]]) -> None:
        """Submit several jobs at once."""
        numbers = [next(self.numbers) for _ in wanted]
        names = [f"j{number}" for number in numbers]
        new = [job(name, queue=queue, priority=rank) for name, (queue, rank) in zip(names, wanted, strict=True)]
        assert self.store.put(new) == names
        for name, number, (queue, rank) in zip(names, numbers, wanted, strict=True):
            self.jobs[name] = Model(number, queue, rank, None, ())

    @rule(plain=PLAIN, key=st.sampled_from((None, *KEYS)), data=st.data())
    def put(self, plain: tuple[str, int], key: str | None, data: st.DataObject) -> None:
        """Submit a job; one whose key is taken is the other one."""
        number, (queue, rank) = next(self.numbers), plain
        known = sorted(self.jobs)
        depends_on = tuple(data.draw(st.lists(st.sampled_from(known), max_size=2, unique=True))) if known else ()
        name = f"j{number}"
        kept = self.store.put([job(name, queue=queue, priority=rank, key=key, depends_on=depends_on)])
        taken = [one for one, model in self.jobs.items() if key and model.key == key and model.state not in TERMINAL]
        assert kept == (taken or [name])
        if not taken:
            self.jobs[name] = Model(number, queue, rank, key, depends_on)
            self._block(self.jobs[name])

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), what=st.sampled_from(("put_again", "cancel", "retry", "remove")))
    def change(self, data: st.DataObject, what: str) -> None:
        """Do something to a job."""
        getattr(self, what)(data.draw(st.sampled_from(sorted(self.jobs))))

    def put_again(self, name: str) -> None:
        """Submit a job a second time: nothing happens."""
        assert self.store.put([job(name)]) == [name]

    def cancel(self, name: str) -> None:
        """Cancel a job: it ends if it waits, and is wished to end if it runs."""
        model = self.jobs[name]
        if model.state is State.RUNNING:
            model.wished = True
        elif model.state not in TERMINAL:
            self._end(name, State.CANCELLED)
        assert self.store.cancel([name]) == [model.state]

    def retry(self, name: str) -> None:
        """Queue a job anew that did not succeed."""
        model = self.jobs[name]
        rivals = (one for one in self.jobs.values() if model.key and one.key == model.key and one.state not in TERMINAL)
        may = model.state in {State.FAILED, State.CANCELLED} and next(rivals, None) is None
        assert self.store.retry([name]) == [may]
        if may:
            fresh = Model(next(self.numbers), model.queue, model.priority, model.key, model.depends_on)
            fresh.claims = model.claims
            self.jobs[name] = fresh
            self._block(fresh)

    def remove(self, name: str) -> None:
        """Forget a job that does not run; what needs it fails."""
        model = self.jobs[name]
        may = model.state is not State.RUNNING
        assert self.store.remove([name]) == [may]
        if may:
            if model.state not in TERMINAL:
                self._end(name, State.CANCELLED)
            del self.jobs[name]

    @rule(queue=st.sampled_from(QUEUES))
    def pause(self, queue: str) -> None:
        """Pause or resume a queue."""
        if queue in self.paused:
            self.paused.remove(queue)
            self.store.resume(queue)
        else:
            self.paused.add(queue)
            self.store.pause(queue)

    # -- what workers do

    @precondition(lambda self: any(model.state is State.QUEUED for model in self.jobs.values()))
    @rule(name=st.sampled_from(WORKERS), want=st.integers(1, 4), begins=st.booleans())
    def claim(self, name: str, want: int, begins: bool) -> None:
        """Take jobs: in the order of the queues, of priority, of submits; one that has crashed twice alone."""
        waiting = [one for one in self.jobs if self.jobs[one].state is State.QUEUED]
        ready = [one for one in waiting if self.jobs[one].queue not in self.paused]
        ready.sort(
            key=lambda one: (QUEUES.index(self.jobs[one].queue), -self.jobs[one].priority, self.jobs[one].number)
        )
        claims = take(self.members[name], want)
        assert [one.id for one in claims] == self._takeable(name, ready[:want])
        for one in claims:
            model = self.jobs[one.id]
            model.state, model.holder = State.RUNNING, name
            model.attempts += 1
            model.claims.append(one)
            model.begun = begins or (False if model.suspect or model.crashes else None)
            is_suspect, model.suspect = model.suspect, model.suspect and not begins
            if begins:
                assert self.members[name].begin([(one.id, one.token)]) == []
            assert (one.attempt, one.crashes, one.retries) == (model.attempts, model.crashes, model.retries)
            assert one.suspect >= is_suspect

    def _takeable(self, name: str, ready: list[str]) -> list[str]:
        at = next((n for n, one in enumerate(ready) if self.jobs[one].crashes == 2), None)
        if at is None:
            return ready
        busy = any(model.holder == name and model.state is State.RUNNING for model in self.jobs.values())
        return ready[:at] if at or busy else ready[:1]

    @precondition(lambda self: any(model.claims for model in self.jobs.values()))
    @rule(
        data=st.data(), how=st.sampled_from(("succeeded", "failed", "cancelled", "retry", "back")), twice=st.booleans()
    )
    def tell(self, data: st.DataObject, how: str, twice: bool) -> None:
        """Tell how a claimed job ended, by its newest token or by an old one, once or twice."""
        name = data.draw(st.sampled_from(sorted(one for one in self.jobs if self.jobs[one].claims)))
        model = self.jobs[name]
        claim = data.draw(st.sampled_from(model.claims))
        is_newest = claim is model.claims[-1] and model.state is State.RUNNING
        member = self.members[model.holder or WORKERS[0]]
        failure = Failure.from_exception(ValueError("no"))
        outcome = {
            "succeeded": said(claim),
            "failed": said(claim, State.FAILED, failure=failure),
            "cancelled": said(claim, State.CANCELLED),
            "retry": said(claim, State.SCHEDULED, failure=failure),
            "back": said(claim, State.QUEUED, started=False),
        }[how]
        fenced = member.poll([outcome], [], 0).fenced
        if twice:
            assert list(member.poll([outcome], [], 0).fenced) == list(fenced)
        if not is_newest:
            return
        assert not fenced
        model.retries += how == "retry"
        model.attempts -= how == "back"
        if how in {"retry", "back"}:
            model.state = State.QUEUED
            if model.wished:
                model.retries -= how == "retry"
                self._end(name, State.CANCELLED)
        else:
            self._end(name, State(how))

    @rule(name=st.sampled_from(WORKERS), dies=st.booleans())
    def end_worker(self, name: str, dies: bool) -> None:
        """Let a worker die, or sign off."""
        if dies:
            self.die(name)
        else:
            self.leave(name)

    def die(self, name: str) -> None:
        """Let a worker die with its jobs: those that had begun count one crash, and the third one ends it."""
        self.members[name].fifo.after_fork_in_child()  # type: ignore[attr-defined]
        held = [one for one in self.jobs if self.jobs[one].holder == name and self.jobs[one].state is State.RUNNING]
        other = self.members[next(one for one in WORKERS if one != name)]
        assert other.run_maintenance() == len(held)
        for one in held:
            model = self.jobs[one]
            model.crashes += model.begun is True
            model.attempts -= model.begun is False
            model.suspect |= model.begun is None
            model.state = State.QUEUED
            if model.wished:
                self._end(one, State.CANCELLED)
            elif model.crashes == 3:
                self._end(one, State.FAILED)
        self.members[name] = self.store.join(worker(name, QUEUES))

    def leave(self, name: str) -> None:
        """Sign a worker off and on: its jobs wait again, and their attempts were none."""
        self.members[name].leave()
        for one, model in self.jobs.items():
            if model.holder == name and model.state is State.RUNNING:
                model.state = State.QUEUED
                model.attempts -= not model.wished
                if model.wished:
                    self._end(one, State.CANCELLED)
        self.members[name] = self.store.join(worker(name, QUEUES))

    # -- the model's own rules

    def _block(self, model: Model) -> None:
        found = [self.jobs.get(one) for one in model.depends_on]
        if any(one is None or one.state in {State.FAILED, State.CANCELLED} for one in found):
            model.state = State.FAILED
        elif any(one is not None and one.state is not State.SUCCEEDED for one in found):
            model.state = State.BLOCKED

    def _end(self, name: str, state: State) -> None:
        model = self.jobs[name]
        model.state, model.wished = state, False
        for one, other in self.jobs.items():
            if name in other.depends_on and other.state is State.BLOCKED:
                if state is not State.SUCCEEDED:
                    self._end(one, State.FAILED)
                elif all(self.jobs[need].state is State.SUCCEEDED for need in other.depends_on if need in self.jobs):
                    other.state = State.QUEUED

    @invariant()
    def same(self) -> None:
        """Every job is as the model says, and there are no others."""
        if not hasattr(self, "store"):
            return
        records = {record.id: record for record in self.store.list(limit=1000)}
        assert set(records) == set(self.jobs)
        for name, model in self.jobs.items():
            record = records[name]
            seen = (record.state, record.attempts, record.crashes, record.retries, record.queue, record.priority)
            assert seen == (model.state, model.attempts, model.crashes, model.retries, model.queue, model.priority), (
                name
            )
        counts = {(queue.name, state): count for queue in self.store.queues() for state, count in queue.counts.items()}
        for (queue, state), count in counts.items():
            assert count == sum(one.queue == queue and one.state is state for one in self.jobs.values())


TestQueueFile = QueueFile.TestCase
TestQueueFile.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
