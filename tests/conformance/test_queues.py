"""Named queues: their order, priority inside each, and their pauses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from taskq import State
from taskq.errors import ConfigError
from tests.sample_tasks import hold, note_item, queue_of_job, square
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger

#: The queues of these tests, the first one first.
QUEUES = ("high", "default", "low")


@pytest.fixture
def queues(make_queue: Callable[..., TaskQueue]) -> TaskQueue:
    """Give a queue whose one process takes jobs from three named ones in their order."""
    return make_queue(processes=1, queues=QUEUES)


@pytest.fixture
def busy_queues(queues: TaskQueue, gate: Gate) -> TaskQueue:
    """Give the same, with its process busy until the gate is opened."""
    busy = queues.options(queue="high").submit(hold, gate.path)
    assert eventually(busy.running, "the only process to be busy")
    return queues


def submit(queue: TaskQueue, ledger: Ledger, name: str, text: str, **options: Any) -> Any:
    """Submit a job that notes a text to a named queue."""
    return queue.options(queue=name, **options).submit(note_item, ledger.path, text)


@contextmanager
def paused(queue: TaskQueue) -> Iterator[None]:
    """Pause all queues in the block: a worker would take the first job ahead, whatever comes behind it."""
    for name in QUEUES:
        queue.pause(name)
    yield
    for name in QUEUES:
        queue.resume(name)


def test_order_of_queues(busy_queues: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """All jobs of an earlier queue start before those of a later one, and inside each the first comes first."""
    names = [QUEUES[(7 * number) % 3] for number in range(60)]
    with paused(busy_queues):
        jobs = [submit(busy_queues, ledger, name, f"{name} {number}") for number, name in enumerate(names)]
    gate.open()
    for job in jobs:
        job.result(timeout=PATIENCE)
    expected = [f"{name} {number}" for wanted in QUEUES for number, name in enumerate(names) if name == wanted]
    assert ledger.texts() == expected


def test_priority_counts_inside_a_queue(busy_queues: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """The highest priority in a later queue comes behind the lowest in an earlier one."""
    with paused(busy_queues):
        jobs = [
            submit(busy_queues, ledger, "low", "low 9", priority=9),
            submit(busy_queues, ledger, "default", "default -9", priority=-9),
            submit(busy_queues, ledger, "default", "default 9", priority=9),
            submit(busy_queues, ledger, "low", "low -9", priority=-9),
        ]
    gate.open()
    for job in jobs:
        job.result(timeout=PATIENCE)
    assert ledger.texts() == ["default 9", "default -9", "low 9", "low -9"]


def test_a_job_knows_its_queue(queues: TaskQueue) -> None:
    """A job knows from which queue it was taken, also one of a map."""
    assert queues.submit(queue_of_job).result(timeout=PATIENCE) == "default"
    assert queues.options(queue="low").submit(queue_of_job).result(timeout=PATIENCE) == "low"


def test_map_in_a_named_queue(queues: TaskQueue) -> None:
    """Maps run in named queues as single jobs do."""
    for name in QUEUES:
        assert list(queues.options(queue=name).map(square, range(200))) == [number**2 for number in range(200)]


@pytest.mark.needs("start_methods", why="a worker takes jobs only from the queues that it was given")
def test_unlisted_queues_come_last(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """Queues that the setting does not name come behind those that it names, in the order of their first jobs."""
    queue = make_queue(processes=1, queues=("high",))
    busy = queue.submit(hold, gate.path)
    assert eventually(busy.running, "the only process to be busy")
    jobs = [submit(queue, ledger, name, name) for name in ("third", "second", "high", "third")]
    gate.open()
    for job in jobs:
        job.result(timeout=PATIENCE)
    assert ledger.texts() == ["high", "third", "third", "second"]


@pytest.mark.parametrize("name", ["", "two words", "a,b", "x" * 200, 5])
def test_senseless_names(queues: TaskQueue, name: Any) -> None:
    """A name that could not be told apart in a list of queues is refused, wherever it is given."""
    with pytest.raises(ConfigError, match="queue"):
        queues.options(queue=name)
    with pytest.raises(ConfigError, match="queue"):
        queues.pause(name)


# --- pause and resume


def test_pause(queues: TaskQueue, ledger: Ledger) -> None:
    """No job of a paused queue starts, even where it would be the next; other queues go on; `resume` ends it."""
    queues.pause("high")
    jobs = [submit(queues, ledger, "high", f"high {number}") for number in range(5)]
    others = [submit(queues, ledger, "low", f"low {number}") for number in range(20)]
    for job in others:
        job.result(timeout=PATIENCE)
    assert ledger.texts() == [f"low {number}" for number in range(20)]
    assert {job.state for job in jobs} == {State.QUEUED}
    queues.resume("high")
    for job in jobs:
        job.result(timeout=PATIENCE)
    assert ledger.texts()[20:] == [f"high {number}" for number in range(5)]


def test_pause_leaves_running_jobs_alone(queues: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """What runs when its queue is paused goes on to its end."""
    job = queues.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    queues.pause("default")
    gate.open()
    assert job.result(timeout=PATIENCE) == "held"
    queues.resume("default")


def test_pause_holds_due_jobs(queues: TaskQueue, ledger: Ledger) -> None:
    """A delayed job of a paused queue does not start when its time comes, but after `resume`."""
    queues.pause("default")
    late = submit(queues, ledger, "default", "late", delay=0.1)
    assert submit(queues, ledger, "low", "marker", delay=0.5).result(timeout=PATIENCE) == "marker"
    assert ledger.texts() == ["marker"]
    queues.resume("default")
    assert late.result(timeout=PATIENCE) == "late"


def test_pause_holds_a_map(queues: TaskQueue, ledger: Ledger) -> None:
    """A map into a paused queue waits as single jobs do."""
    queues.pause("default")
    results = queues.map(note_item, [ledger.path] * 10, range(10))
    assert submit(queues, ledger, "low", "marker").result(timeout=PATIENCE) == "marker"
    assert ledger.texts() == ["marker"]
    queues.resume("default")
    assert list(results) == list(range(10))


def test_cancel_in_a_paused_queue(queues: TaskQueue, ledger: Ledger) -> None:
    """A job of a paused queue can be cancelled, and does not run after `resume`."""
    queues.pause("default")
    victim, other = (submit(queues, ledger, "default", text) for text in ("victim", "other"))
    assert victim.cancel() is True
    assert victim.state is State.CANCELLED
    queues.resume("default")
    assert other.result(timeout=PATIENCE) == "other"
    assert ledger.texts() == ["other"]


def test_pauses_do_not_add_up(queues: TaskQueue) -> None:
    """Pausing twice is pausing once, and resuming what is not paused changes nothing."""
    queues.resume("default")
    queues.pause("default")
    queues.pause("default")
    queues.resume("default")
    assert queues.submit(square, 3).result(timeout=PATIENCE) == 9


@pytest.mark.needs("durable", why="the pause of a queue in memory ends with its program")
def test_a_pause_is_everybodys(queues: TaskQueue, make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """A pause made through one queue object holds for jobs of another, and outlives the object that made it."""
    other = make_queue(processes=1, queues=QUEUES)
    other.pause("default")
    other.shutdown()
    job = submit(queues, ledger, "default", "held back")
    assert submit(queues, ledger, "low", "marker").result(timeout=PATIENCE) == "marker"
    assert ledger.texts() == ["marker"]
    queues.resume("default")
    assert job.result(timeout=PATIENCE) == "held back"
