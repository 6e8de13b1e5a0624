"""The worker's loop: what it takes, runs, and tells its store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import BackendUnavailable, ConfigError
from taskq.executors.worker.claims import ClaimTable
from taskq.options import JobOptions
from taskq.states import Reason, State
from taskq.store import ControlRequest
from tests.waiting import eventually
from tests.worker.conftest import SAMPLE
from tests.worker.sample import hold, note_and_return, quiet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taskq.executors.worker.runs import Run
    from taskq.store import Claim, Order
    from tests.ledger import Ledger
    from tests.worker.double import StoreDouble

Serve = "Callable[..., Running]"


def test_burst_runs_everything_once(store: StoreDouble, serve: Serve, ledger: Ledger) -> None:
    """Each of many jobs runs once, its value is told, and a burst ends cleanly when nothing is left."""
    ids = [store.call(f"{SAMPLE}:note_and_return", ledger.path, f"job {n}") for n in range(2000)]
    assert serve(burst=True).wait() == 0
    assert [store.value(job_id) for job_id in ids] == [f"job {n}" for n in range(2000)]
    assert set(ledger.counts().values()) == {1}
    assert len(ledger.texts()) == 2000
    assert store.left


def test_jobs_start_in_their_order(store: StoreDouble, serve: Serve, ledger: Ledger) -> None:
    """With one process, jobs start in the order in which the store gave them."""
    for n in range(300):
        store.call(f"{SAMPLE}:note_and_return", ledger.path, str(n))
    assert serve(burst=True, processes=1).wait() == 0
    assert ledger.texts() == [str(n) for n in range(300)]


def test_work_is_taken_in_few_exchanges(store: StoreDouble, serve: Serve) -> None:
    """Short jobs are taken and told many at a time."""
    for n in range(5000):
        store.call(f"{SAMPLE}:quiet", n)
    assert serve(burst=True).wait() == 0
    assert store.polls < 500


def test_long_jobs_are_not_hoarded(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """Of jobs that run long, a worker does not keep more than it runs: what waits is left to others."""
    gate = str(tmp_path / "gate")
    for n in range(50):
        store.call(f"{SAMPLE}:hold", ledger.path, gate, str(n))
    serve()
    eventually(lambda: len(ledger.texts()) == 2, "two jobs to begin")
    eventually(lambda: len(store.held) == 2, "what cannot begin to be given back")
    assert len(store.waiting) == 48
    (tmp_path / "gate").touch()
    eventually(lambda: store.ended() == 50, "all jobs to end")
    assert set(ledger.counts().values()) == {1}
    assert all(store.claims[job_id]["attempt"] == 1 for job_id in store.claims)


def test_max_jobs(store: StoreDouble, serve: Serve) -> None:
    """A worker with max_jobs runs so many jobs and leaves the rest."""
    for n in range(100):
        store.call(f"{SAMPLE}:quiet", n)
    assert serve(max_jobs=7).wait() == 0
    assert store.ended() == 7
    assert len(store.waiting) == 93


def test_only_one_job(store: StoreDouble, serve: Serve) -> None:
    """A worker for one job runs it, whatever waits before it, and ends."""
    store.call(f"{SAMPLE}:quiet", 1)
    wanted = store.call(f"{SAMPLE}:quiet", 2)
    assert serve(only=wanted).wait() == 0
    assert store.value(wanted) == 2
    assert store.ended() == 1


def test_only_one_job_with_a_retry(store: StoreDouble, serve: Serve) -> None:
    """A worker for one job sees it through its retries."""
    wanted = store.call(f"{SAMPLE}:meta_of_attempts", options=JobOptions(retry=1))
    assert serve(only=wanted).wait() == 0
    assert store.value(wanted) == [1, 2]


def test_only_a_job_that_is_not_there(store: StoreDouble, serve: Serve) -> None:
    """A worker for a job that has gone ends at once."""
    assert serve(only="nobody").wait() == 0


def test_idle_worker_starts_a_job_at_once(store: StoreDouble, serve: Serve) -> None:
    """A job that comes to an idle worker is run although nobody turns the loop."""
    serve()
    eventually(lambda: store.polls > 0, "the worker to be idle")
    assert store.ended() == 0
    job_id = store.call(f"{SAMPLE}:quiet", 5)
    eventually(lambda: store.ended() == 1, "the job to end")
    assert store.value(job_id) == 5


def test_idle_worker_is_idle(store: StoreDouble, serve: Serve) -> None:
    """A worker that has nothing to do asks its store a few times in a lease, not all the time."""
    serve()
    eventually(lambda: len(store.records) > 5, "the worker to send some heartbeats")
    assert store.polls < 10 * len(store.records)


def test_failure_is_told(store: StoreDouble, serve: Serve) -> None:
    """A job's error is told with class, text and traceback."""
    job_id = store.call(f"{SAMPLE}:fail", "no such size")
    assert serve(burst=True).wait() == 0
    failure = store.last(job_id).failure
    assert store.state(job_id) is State.FAILED
    assert failure is not None
    assert (failure.reason, failure.type, failure.message) == (Reason.ERROR, "ValueError", "no such size")
    assert "sample.py" in failure.traceback


def test_retries_by_the_policy(store: StoreDouble, serve: Serve) -> None:
    """A job with a policy is scheduled again until its retries are used up."""
    job_id = store.call(f"{SAMPLE}:fail", "again", options=JobOptions(retry=2))
    store.claims[job_id]["retries"] = 0
    serve()
    eventually(lambda: store.state(job_id) is State.FAILED, "the last retry")
    assert [outcome.state for outcome in store.outcomes[job_id]] == [State.SCHEDULED, State.SCHEDULED, State.FAILED]
    assert all(outcome.failure is not None for outcome in store.outcomes[job_id])


def test_timeout_kills(store: StoreDouble, serve: Serve) -> None:
    """A job past its timeout is killed, also in the midst of work, and fails as timed out."""
    job_id = store.call(f"{SAMPLE}:spin", 60.0, options=JobOptions(timeout=0.1))
    after = store.call(f"{SAMPLE}:quiet", 1)
    assert serve(burst=True).wait() == 0
    failure = store.last(job_id).failure
    assert failure is not None
    assert failure.reason is Reason.TIMEOUT
    assert store.value(after) == 1


def test_seconds_are_measured(store: StoreDouble, serve: Serve) -> None:
    """An outcome says how long the job ran."""
    job_id = store.call(f"{SAMPLE}:work", 0.2)
    assert serve(burst=True).wait() == 0
    assert store.last(job_id).seconds >= 0.2


def test_context_names_the_durable_job(store: StoreDouble, serve: Serve) -> None:
    """A job knows itself by its durable id and attempt."""
    ids = [store.call(f"{SAMPLE}:facts") for _ in range(50)]
    store.claims[ids[3]]["attempt"] = 4
    assert serve(burst=True).wait() == 0
    assert store.value(ids[0]) == (ids[0], 1, "default")
    assert store.value(ids[3]) == (ids[3], 5, "default")
    assert len({store.value(job_id)[0] for job_id in ids}) == 50


# --- what cannot be run


def test_unknown_task_is_handed_back(store: StoreDouble, serve: Serve) -> None:
    """A task of no trusted module is left to other workers, its attempt not counted."""
    job_id = store.call("tests.sample_tasks:square", 2)
    assert serve(burst=True).wait() == 0
    outcome = store.last(job_id)
    assert (outcome.state, outcome.refused, outcome.started) == (State.QUEUED, True, False)


@pytest.mark.parametrize(("waited", "delay"), [(0.0, 1.0), (0.5, 1.0), (6.0, 6.0), (60.0, 15.0)])
def test_unknown_task_is_looked_at_again(store: StoreDouble, serve: Serve, waited: float, delay: float) -> None:
    """It is offered again after as long as it has waited: soon at first, for who knows it, then less often."""
    job_id = store.call("tests.sample_tasks:square", 2, refused_for=waited)
    assert serve(burst=True).wait() == 0
    assert store.last(job_id).delay == delay


def test_task_that_raises_such_an_error_itself(store: StoreDouble, serve: Serve) -> None:
    """A task whose own code raises UnknownTask or DecodeError has failed: it is not handed back, nor run again."""
    ids = [store.call(f"{SAMPLE}:raise_by_name", name) for name in ("UnknownTask", "DecodeError")]
    ids += [store.call(f"{SAMPLE}:{name}", "no:thing") for name in ("resolve_by_name", "raise_what_kept_another")]
    assert serve(burst=True).wait() == 0
    assert [store.state(job_id) for job_id in ids] == [State.FAILED] * 4
    assert {store.last(job_id).failure.reason for job_id in ids} == {Reason.ERROR}  # type: ignore[union-attr]


def test_burst_whose_store_stays_away(
    store: StoreDouble, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst ends with 3 when its store does not come back: nobody would ever learn that it waits."""
    monkeypatch.setattr("taskq.executors.worker.loop._AWAY", 0.2)
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    store.call(f"{SAMPLE}:hold", str(ledger), str(gate), "began")
    running = serve(burst=True)
    eventually(ledger.exists, "the job to begin")
    store.away = True
    gate.touch()
    assert running.wait() == 3


def test_thousands_of_an_unknown_task(store: StoreDouble, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of jobs that cannot run here are passed over without asking a child about each: what is behind runs."""
    asked: list[str] = []
    plain = ClaimTable.accept_one

    def accept(claims: ClaimTable, claim: Claim, runs: list[Run]) -> int:
        asked.append(claim.id)
        return plain(claims, claim, runs)

    monkeypatch.setattr(ClaimTable, "accept_one", accept)
    for _ in range(5000):
        store.call("tests.sample_tasks:square", 2)
    good = store.call(f"{SAMPLE}:quiet", 1)
    running = serve(processes=1)
    eventually(lambda: store.state(good) is State.SUCCEEDED, "the good one to run")
    assert len(asked) < 2500
    assert running.stop() == 0


def test_unknown_task_fails_in_the_end(store: StoreDouble, serve: Serve) -> None:
    """A task that no worker has known for ten minutes fails, and the message has name and cure."""
    job_id = store.call("tests.sample_tasks:square", 2, refused_for=601.0)
    assert serve(burst=True).wait() == 0
    failure = store.last(job_id).failure
    assert failure is not None
    assert failure.reason is Reason.UNKNOWN_TASK
    assert "tests.sample_tasks:square" in failure.message
    assert "--import tests.sample_tasks" in failure.message


@pytest.mark.parametrize("junk", [b"", b"\x80\x04\x95", b"\x96\x01\x00\xa1x\xc4\x01\x80\xc4\x00\xc4\x00", b"\xdf" * 50])
def test_hostile_bytes(store: StoreDouble, serve: Serve, junk: bytes) -> None:
    """Bytes that are no job fail as undecodable, and the jobs behind them run."""
    bad = store.put(junk)
    good = store.call(f"{SAMPLE}:quiet", 1)
    assert serve(burst=True).wait() == 0
    failure = store.last(bad).failure
    assert failure is not None
    assert failure.reason in (Reason.UNDECODABLE, Reason.UNKNOWN_TASK)
    assert store.state(bad) is State.FAILED or store.last(bad).refused
    assert store.value(good) == 1


def test_commands_need_leave(store: StoreDouble, serve: Serve) -> None:
    """Shell commands are refused unless the worker was told to run them."""
    job_id = store.call("taskq.shell:run_command", ["true"])
    assert serve(burst=True).wait() == 0
    assert store.last(job_id).refused


def test_commands_with_leave(store: StoreDouble, serve: Serve) -> None:
    """A worker that may runs shell commands, and their exit code is in the value."""
    job_id = store.call("taskq.shell:run_command", ["true"])
    assert serve(burst=True, allow_commands=True).wait() == 0
    assert store.value(job_id)["exit_code"] == 0


def test_import_that_fails(store: StoreDouble, serve: Serve) -> None:
    """A module that cannot be imported ends the worker before it joins its store, in one sentence."""
    with pytest.raises(ConfigError, match=r"--import tests\.nowhere failed: ModuleNotFoundError") as caught:
        serve(imports=("tests.nowhere",)).wait()
    assert "\n" not in str(caught.value)
    assert not store.records


def test_store_away_at_the_start(store: StoreDouble, serve: Serve) -> None:
    """A store that is away at the start is the caller's to deal with."""
    store.away = True
    with pytest.raises(BackendUnavailable):
        serve().wait()


# --- jobs that are not taskq's


class Stranger:
    """A job of another library, as its store brings it."""

    task = "elsewhere.quiet"

    def __init__(self, *args: Any, function: Callable[..., Any] = quiet, after: Order | None = None) -> None:
        self.function = function
        self.args = args
        self.after = after

    def order(self, *, last: bool) -> Order:
        if not self.args:
            raise ValueError("cannot be read")
        return self.function, self.args, JobOptions()

    def after_stop(self) -> Order | None:
        return self.after


def test_foreign_jobs(store: StoreDouble, serve: Serve) -> None:
    """A foreign job runs the function that its order names, and what that returns is the result as it is."""
    good = store.put(b"", foreign=Stranger(b"bytes of another kind"))
    bad = store.put(b"", foreign=Stranger())
    assert serve(burst=True).wait() == 0
    assert store.last(good).result == b"bytes of another kind"
    failure = store.last(bad).failure
    assert failure is not None
    assert failure.message == "cannot be read"


def test_what_a_foreign_job_calls_when_stopped(store: StoreDouble, serve: Serve, ledger: Ledger) -> None:
    """What a killed foreign job wants called runs before its end is told, and may fail."""
    after = (note_and_return, (ledger.path, "called"), JobOptions())
    ended = store.put(b"", foreign=Stranger(b"quick", after=after))
    killed = store.put(b"", foreign=Stranger(ledger.path, "/nowhere", "began", function=hold, after=after))
    failing = (hold, (), JobOptions())
    other = store.put(b"", foreign=Stranger(ledger.path, "/nowhere", "began", function=hold, after=failing))
    serve()
    eventually(lambda: ledger.counts() == {"began": 2} and store.ended() == 1, "two to begin, one to end")
    store.control_requests = [
        ControlRequest(job_id=killed, kill=True),
        ControlRequest(job_id=other, kill=True),
        ControlRequest(job_id=ended, kill=True),
    ]
    eventually(lambda: store.ended() == 3, "all to be told")
    assert store.state(killed) is store.state(other) is State.CANCELLED
    assert store.state(ended) is State.SUCCEEDED
    assert ledger.counts() == {"began": 2, "called": 1}


def test_stop_while_a_foreign_job_calls(store: StoreDouble, serve: Serve, ledger: Ledger) -> None:
    """A job that was killed stays so when the worker is ended in the midst of what it wanted called."""
    after = (hold, (ledger.path, "/nowhere", "called"), JobOptions())
    job_id = store.put(b"", foreign=Stranger(ledger.path, "/nowhere", "began", function=hold, after=after))
    running = serve(grace=0.1)
    eventually(ledger.texts, "the job to begin")
    store.control_requests = [ControlRequest(job_id=job_id, kill=True)]
    eventually(lambda: ledger.texts() == ["began", "called"], "the call to begin")
    running.stop()
    assert store.state(job_id) is State.CANCELLED
    assert len(store.outcomes[job_id]) == 1


# --- control requests


def test_cancel_asks(store: StoreDouble, serve: Serve, ledger: Ledger) -> None:
    """A running job that is asked to stop, and does, ends as cancelled."""
    job_id = store.call(f"{SAMPLE}:hold_until_cancelled", ledger.path)
    serve()
    eventually(ledger.texts, "the job to begin")
    store.control_requests = [ControlRequest(job_id=job_id)]
    eventually(lambda: store.state(job_id) is State.CANCELLED, "the job to stop")


def test_cancel_kills(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """A running job that is to be killed ends as cancelled, and its neighbours go on."""
    gate = str(tmp_path / "gate")
    job_id = store.call(f"{SAMPLE}:hold", ledger.path, gate, "one")
    other = store.call(f"{SAMPLE}:hold", ledger.path, gate, "two")
    serve()
    eventually(lambda: len(ledger.texts()) == 2, "both to begin")
    store.control_requests = [ControlRequest(job_id=job_id, kill=True)]
    eventually(lambda: store.state(job_id) is State.CANCELLED, "the job to be killed")
    (tmp_path / "gate").touch()
    eventually(lambda: store.state(other) is State.SUCCEEDED, "the other one to end")
    assert ledger.counts() == {"one": 1, "two": 1}


def test_cancel_of_a_job_that_fails_otherwise(store: StoreDouble, serve: Serve) -> None:
    """A job that is not held is no matter, and the worker lives."""
    serve()
    store.control_requests = [ControlRequest(job_id="nobody", kill=True)]
    job_id = store.call(f"{SAMPLE}:quiet", 5)
    eventually(lambda: store.ended() == 1, "the job to end")
    assert store.value(job_id) == 5


def test_request_to_stop(store: StoreDouble, serve: Serve) -> None:
    """The store can tell a worker to stop."""
    running = serve()
    store.control_requests = [ControlRequest(stop=True)]
    assert running.wait() == 0
    assert store.left


@pytest.mark.parametrize("facts", [{"suspect": True}, {"crashes": 1}], ids=["suspect", "crashed"])
def test_suspects_are_told_first_and_not_overtaken(
    store: StoreDouble, serve: Serve, ledger: Ledger, facts: dict[str, Any]
) -> None:
    """A job that may have killed a worker starts only when the store knows it, and before most that come after it."""
    for n in range(20):
        store.call(f"{SAMPLE}:note_and_return", ledger.path, f"before {n}")
    suspect = store.call(f"{SAMPLE}:note_and_return", ledger.path, "suspect", **facts)
    for n in range(3000):
        store.call(f"{SAMPLE}:note_and_return", ledger.path, str(n))
    assert serve(burst=True, processes=1).wait() == 0
    assert suspect in store.begun
    assert ledger.texts().index("suspect") < 1500
    assert len(ledger.texts()) == 3021


def test_what_runs_is_told_to_have_begun(store: StoreDouble, serve: Serve, tmp_path: Path, ledger: Ledger) -> None:
    """The store hears once of each job that is seen to run, and not of those that wait."""
    gate = tmp_path / "gate"
    ids = [store.call(f"{SAMPLE}:hold", ledger.path, str(gate), str(n)) for n in range(5)]
    running = serve(processes=2)
    eventually(lambda: len(store.begun) == 2, "the store to hear of two")
    told = len(store.records)
    eventually(lambda: len(store.records) > told + 3, "some heartbeats more")
    assert sorted(store.begun) == sorted(ids[int(text)] for text in ledger.texts())
    gate.touch()
    running.stop()
