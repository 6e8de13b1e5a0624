"""What a queue with a store behind it can do beyond the common promises: jobs that outlive programs and workers."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from taskq import State, TaskQueue
from taskq.cli.doctor import _of_work
from taskq.connect import open_store
from taskq.errors import ConfigError, EncodeError, JobNotFound, TaskRefused
from tests.sample_tasks import add, divide, hold, identity, note_item, square, submit_to_own_queue, zeros
from tests.scripts import Script, run
from tests.seams import executor_of
from tests.waiting import PATIENCE, eventually
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Gate
    from tests.ledger import Ledger
    from tests.variants import Variant

pytestmark = pytest.mark.needs("durable", why="its jobs end with the program")


@pytest.fixture
def lonely_url(variant: Variant, fresh_url: Callable[[str, str], str]) -> str:
    """Give the URL of a store of the same kind, of its own, without a worker."""
    return fresh_url(variant.name, "")


def test_capabilities(queue: TaskQueue, variant: Variant) -> None:
    """A queue declares what the table of variants says that it can do."""
    assert queue.capabilities == variant.capabilities
    assert queue.processes is None


# --- jobs outlive the objects and programs that submitted them


def test_job_outlives_its_queue(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """A job runs on when the queue object that submitted it is closed; another one finds it and its result."""
    first = make_queue()
    job_id = first.submit(hold, gate.path, ledger.path).id
    eventually(ledger.texts, "the job to start")
    first.shutdown(wait=False)
    second = make_queue()
    assert second.job(job_id).state is State.RUNNING
    gate.open()
    assert second.job(job_id).result(timeout=PATIENCE) == "held"


def test_queue_in_a_job(queue: TaskQueue) -> None:
    """A `TaskQueue()` in a job is the queue that runs the job, though no variable of the worker says so."""
    url, result = queue.submit(submit_to_own_queue, 7).result(timeout=PATIENCE)
    assert (url, result) == (executor_of(queue).url, 49)


def test_jobs_that_wait_for_their_own_queue(lonely_url: str, tmp_path: Path) -> None:
    """A worker whose processes are all taken by jobs that wait for others says so, in its log and to the doctor."""
    with TaskQueue(lonely_url) as queue, WorkerProcess(lonely_url, tmp_path, processes=1) as full:
        job = queue.submit(submit_to_own_queue, 7)
        eventually(lambda: "jobs_wait_for_jobs" in full.log(), "a word in the worker's log")
        store = open_store(lonely_url)
        eventually(
            lambda: [
                found for found in _of_work(store, ()) if "wait for other jobs" in found.text and job.id in found.text
            ],
            "the doctor's word",
        )
        with WorkerProcess(lonely_url, tmp_path, processes=1):
            assert job.result(timeout=PATIENCE)[1] == 49
        assert not [found for found in _of_work(store, ()) if "wait for other jobs" in found.text]
        store.close()


def test_shutdown_does_not_wait_for_what_nobody_holds(make_queue: Callable[..., TaskQueue], gate: Gate) -> None:
    """Jobs whose handles were dropped are safe in the store: `shutdown` does not wait for them."""
    queue = make_queue()
    job_id = queue.submit(hold, gate.path).id
    queue.shutdown()
    other = make_queue()
    assert not other.job(job_id).done()
    gate.open()
    assert other.job(job_id).result(timeout=PATIENCE) == "held"


def test_result_of_another_program(tmp_path: Path, variant: Variant, make_queue: Callable[..., TaskQueue]) -> None:
    """A job that another program submitted is found by its id: its value, its error, its state."""
    source = """
import json, sys
from taskq import TaskQueue
from tests.sample_tasks import divide, square

queue = TaskQueue(sys.argv[1], **json.loads(sys.argv[2]))
print(queue.submit(square, 7).id, queue.submit(divide, 1, 0).id)
"""
    good, bad = run(tmp_path, source, *variant.for_script()).stdout.split()
    queue = make_queue()
    assert queue.job(good).result(timeout=PATIENCE) == 49
    error = queue.job(bad).exception(timeout=PATIENCE)
    assert isinstance(error, ZeroDivisionError)
    assert "return left / right" in str(error.__cause__)
    assert (queue.job(good).state, queue.job(bad).state) == (State.SUCCEEDED, State.FAILED)


def test_job_of_a_killed_program(tmp_path: Path, variant: Variant, ledger: Ledger) -> None:
    """A job whose program is killed right behind its submit runs."""
    source = """
import json, os, signal, sys
from taskq import TaskQueue
from tests.sample_tasks import note_item

queue = TaskQueue(sys.argv[1], **json.loads(sys.argv[2]))
queue.submit(note_item, sys.argv[3], "survivor")
os.kill(os.getpid(), signal.SIGKILL)
"""
    with Script(tmp_path, source, *variant.for_script(), ledger.path) as script:
        assert script.wait() == -signal.SIGKILL
    eventually(lambda: ledger.texts() == ["survivor"], "the job of the killed program to run")


def test_jobs_wait_for_a_worker(lonely_url: str, tmp_path: Path, ledger: Ledger) -> None:
    """Without a worker jobs wait, in their order; when one comes, it runs them, delayed and blocked ones too."""
    with TaskQueue(lonely_url) as queue:
        jobs: list[Any] = [queue.submit(note_item, ledger.path, number) for number in range(20)]
        jobs.append(queue.options(delay=0.1).submit(note_item, ledger.path, "late"))
        total = queue.submit(add, queue.submit(square, 3), queue.submit(square, 4))
        assert {job.state for job in jobs} == {State.QUEUED, State.SCHEDULED}
        assert total.state is State.BLOCKED
        with pytest.raises(TimeoutError):
            jobs[0].result(timeout=0.1)
        with WorkerProcess(lonely_url, tmp_path, processes=1):
            assert [job.result(timeout=PATIENCE) for job in jobs] == [*range(20), "late"]
            assert total.result(timeout=PATIENCE) == 25
    assert [text for text in ledger.texts() if text != "late"] == [str(number) for number in range(20)]


def test_cancel_without_a_worker(lonely_url: str) -> None:
    """What waits is cancelled in the store itself; no worker is needed."""
    with TaskQueue(lonely_url) as queue:
        jobs = [queue.submit(square, number) for number in range(3)]
        assert [job.cancel() for job in jobs] == [True] * 3
        assert {job.state for job in jobs} == {State.CANCELLED}
        assert all(job.cancelled() for job in jobs)


def test_many_clients(variant: Variant, tmp_path: Path, ledger: Ledger) -> None:
    """Several programs may submit at once: every job runs once, and each program gets its own results."""
    source = """
import json, sys
from taskq import TaskQueue
from tests.sample_tasks import note_item

with TaskQueue(sys.argv[1], **json.loads(sys.argv[2])) as queue:
    mine = [f"{sys.argv[4]}-{number}" for number in range(100)]
    jobs = [queue.submit(note_item, sys.argv[3], item) for item in mine]
    assert [job.result(timeout=40) for job in jobs] == mine
"""
    scripts = [
        Script(tmp_path, source, *variant.for_script(), ledger.path, number, name=f"client-{number}.py")
        for number in range(4)
    ]
    for script in scripts:
        script.__enter__()
    try:
        assert [script.wait() for script in scripts] == [0] * 4, [script.stderr for script in scripts]
    finally:
        for script in scripts:
            script.__exit__(None, None, None)
    assert ledger.counts() == {f"{program}-{number}": 1 for program in range(4) for number in range(100)}


def test_same_key_from_two_clients(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """A key is one job whichever client submits it, and cancelling through one handle is seen by the other."""
    one, two = (make_queue(processes=1) for _ in range(2))
    busy = one.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the only process to be busy")
    filler = [one.submit(square, number) for number in range(200)]
    first = one.options(key="shared").submit(note_item, ledger.path, "first")
    second = two.options(key="shared").submit(note_item, ledger.path, "second")
    assert first.id == second.id
    assert second.cancel() is True
    assert eventually(first.cancelled, "the cancel to be seen by the other handle")
    gate.open()
    assert busy.result(timeout=PATIENCE) == "held"
    assert [job.result(timeout=PATIENCE) for job in filler] == [number**2 for number in range(200)]
    assert ledger.texts() == ["held"]


# --- a fork has a life of its own


def test_fork_of_a_client(tmp_path: Path, variant: Variant) -> None:
    """A forked copy of a client may go on with its queue, and so may the original."""
    source = """
import json, os, signal, sys, warnings
from taskq import TaskQueue
from tests.sample_tasks import square
warnings.simplefilter("ignore", DeprecationWarning)

queue = TaskQueue(sys.argv[1], **json.loads(sys.argv[2]))
before = queue.submit(square, 2)
assert before.result(timeout=30) == 4
pid = os.fork()
if pid == 0:
    signal.alarm(40)
    jobs = [queue.submit(square, number) for number in range(50)]
    os._exit(0 if [job.result(timeout=30) for job in jobs] == [number**2 for number in range(50)] else 1)
assert list(queue.map(square, range(100))) == [number**2 for number in range(100)]
print(os.waitpid(pid, 0)[1], queue.submit(square, 5).result(timeout=30))
queue.shutdown()
"""
    script = run(tmp_path, source, *variant.for_script())
    assert (script.stdout, script.stderr) == ("0 25\n", "")


# --- what is refused


MAIN = """
import json, sys
from taskq import Retry, TaskQueue

class Two(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first}-{second}")
        self.first = first

def double(number):
    return 2 * number

def fail():
    raise Two(1, 2)

if __name__ == "__main__":
    with TaskQueue(sys.argv[1], processes=2, initializer=print) as queue:
        print(queue.submit(double, 21).result(timeout=30), list(queue.map(double, range(3))))
        failing = queue.options(retry=Retry(2, delay=0.01, on=(Two,))).submit(fail)
        try:
            failing.result(timeout=30)
        except Two as error:
            print(error.first, failing.attempts)
"""


@pytest.mark.parametrize("main", ["file", "-m"])
def test_functions_of_the_main_module(lonely_url: str, tmp_path: Path, main: str) -> None:
    """Functions and exceptions of the program's own file work where workers import that file by its name."""
    with (
        Script(tmp_path, MAIN, lonely_url, name="prog.py", main=main) as script,
        WorkerProcess(lonely_url, tmp_path, imports=["prog"]),
    ):
        assert script.wait() == 0, script.stderr
        assert script.stdout == "42 [0, 2, 4]\n1 3\n"
        assert script.stderr.count("processes, initializer are for the workers that run its jobs") == 1


def test_functions_of_a_main_without_a_file(tmp_path: Path, variant: Variant) -> None:
    """Functions of a program that no import finds are refused at once, with the cure."""
    script = run(tmp_path, MAIN, *variant.for_script(), main="-c", code=1)
    assert TaskRefused.__name__ in script.stderr
    assert "__main__:double" in script.stderr
    assert "module" in script.stderr


@pytest.mark.parametrize("query", ["?leese=5", "?lease=1", "?lease=soon", "?max_bytes=many"])
def test_senseless_queries(variant: Variant, fresh_url: Callable[[str, str], str], query: str) -> None:
    """A word in the URL's query that is unknown or senseless is refused with its name."""
    with pytest.raises(ConfigError, match=query[1:].partition("=")[0]):
        TaskQueue(fresh_url(variant.name, query)).shutdown()


def test_too_big_an_argument(lonely_url: str) -> None:
    """A job beyond the limit of a store is refused at submit, with its size, the limit and the cure."""
    with TaskQueue(lonely_url) as queue, pytest.raises(EncodeError) as raised:
        queue.submit(identity, bytes(2_000_000))
    text = str(raised.value)
    assert "2,000," in text
    assert "1,048,576" in text
    assert "max_bytes" in text


def test_too_big_a_result(lonely_url: str, tmp_path: Path) -> None:
    """A result beyond the limit fails its job, with its size and the cure, and only that job; so does an item's."""
    with WorkerProcess(lonely_url, tmp_path), TaskQueue(lonely_url) as queue:
        error = queue.submit(zeros, 2_000_000).exception(timeout=PATIENCE)
        assert isinstance(error, EncodeError)
        assert "1,048,576" in str(error)
        results = list(queue.imap(zeros, [1, 2_000_000, 3], return_exceptions=True))
        assert [len(results[0]), len(results[2])] == [1, 3]
        assert isinstance(results[1], EncodeError)
        assert queue.submit(square, 3).result(timeout=PATIENCE) == 9


def test_many_big_results_of_a_map(lonely_url: str, tmp_path: Path) -> None:
    """Items whose results together are beyond the limit, while each is within it, all come back."""
    with WorkerProcess(lonely_url, tmp_path), TaskQueue(lonely_url) as queue:
        sizes = [400_000 + number for number in range(30)]
        assert [len(found) for found in queue.map(zeros, sizes)] == sizes
        assert [len(found) for found in queue.imap(zeros, sizes, chunksize=10)] == sizes


def test_job_of_another_store(queue: TaskQueue, lonely_url: str) -> None:
    """A job of another store among the arguments is refused: no worker could fetch its result."""
    with TaskQueue(lonely_url) as other:
        job = other.submit(square, 2)
        with pytest.raises(EncodeError, match="another queue"):
            queue.submit(add, job, 1)
        job.cancel()


def test_no_such_job(queue: TaskQueue) -> None:
    """An id that never was is not found, and the error names it and the store, without its password."""
    with pytest.raises(JobNotFound, match="no-such-job"):
        queue.job("no-such-job")


def test_job_as_argument_by_id(make_queue: Callable[..., TaskQueue]) -> None:
    """A handle that was found by its id serves as an argument like the one that `submit` gave."""
    one, two = make_queue(), make_queue()
    job = one.submit(square, 6)
    assert two.submit(add, two.job(job.id), 1).result(timeout=PATIENCE) == 37
    bad = one.submit(divide, 1, 0)
    assert two.submit(add, two.job(bad.id), 1).exception(timeout=PATIENCE) is not None
