"""Signing on both stores: what is not signed, or not by a known key, is neither run nor believed."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from taskq import Retry, TaskQueue, codec
from taskq.codec.wire import SEALED
from taskq.connect import open_store
from taskq.envelope import CALL, Template
from taskq.errors import NotSigned
from taskq.failure import Failure
from taskq.ids import new_id
from taskq.options import JobOptions
from taskq.signed import SignedStore
from taskq.states import Reason, State
from taskq.store import JobOutcome, NewJob, WorkerRecord
from tests.cli.command import taskq
from tests.sample_tasks import add, divide, fail_until, identity, keys_in_sight, square, submit_to_own_queue
from tests.waiting import PATIENCE, eventually
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from taskq.store import Claim, Store

VARIABLE = "TASKQ_SIGNING_KEYS"
ONE, TWO = "first-key-" * 4, "second-key-" * 4


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, fresh_url: Callable[[str, str], str]) -> str:
    """Give the URL of an empty store."""
    return fresh_url(request.param, "")


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process, and the workers that it starts, know a key."""
    monkeypatch.setenv(VARIABLE, ONE)


@contextlib.contextmanager
def bare(url: str) -> Iterator[Store]:
    """Open a store as somebody does who knows no key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(VARIABLE, raising=False)
        store = open_store(url)
    assert not isinstance(store, SignedStore)
    with contextlib.closing(store):
        yield store


def new_job(value: int, **options: Any) -> NewJob:
    """Return a job that squares."""
    chosen = JobOptions(**options)
    envelope = Template(CALL, "tests.sample_tasks:square", chosen).pack(codec.encode([value]), codec.encode({}))
    return NewJob(id=new_id(), task="tests.sample_tasks:square", envelope=envelope, options=chosen)


def claimed(store: Store, count: int = 1) -> tuple[Any, list[Claim]]:
    """Return a worker on a store, and the jobs that it takes."""
    member = store.join(WorkerRecord(name="hand", host="h", pid=1, queues=("default", "other"), processes=4))
    return member, list(member.poll([], [], count).claims)


# --- honest use


@pytest.mark.usefixtures("signed")
def test_everything_goes_its_way(url: str, tmp_path: Path) -> None:
    """Values, errors, retries, dependencies, maps, progress, meta and jobs out of jobs work as without keys."""
    with WorkerProcess(url, tmp_path), TaskQueue(url) as queue:
        first = queue.submit(square, 3)
        assert queue.submit(add, first, first).result(PATIENCE) == 18
        assert queue.submit(identity, None).result(PATIENCE) is None
        assert queue.options(retry=Retry(2, delay=0.1)).submit(fail_until, str(tmp_path / "tries"), 2).result(PATIENCE)
        assert list(queue.imap(square, range(300))) == [number**2 for number in range(300)]
        assert queue.submit(submit_to_own_queue, 7).result(PATIENCE)[1] == 49
        failed = queue.submit(divide, 1, 0)
        assert isinstance(failed.exception(PATIENCE), ZeroDivisionError)
        assert failed.reason is Reason.ERROR
        below = queue.submit(identity, failed)
        assert type(below.exception(PATIENCE)).__name__ == "DependencyFailed"
        assert queue.options(expires=0.01, delay=0.2).submit(square, 1).exception(PATIENCE) is not None
        with bare(url) as store:
            (record,) = store.get([first.id], payload=True)
        assert record is not None
        assert record.envelope.startswith(SEALED)
        assert (record.result or b"").startswith(SEALED)


@pytest.mark.usefixtures("signed")
def test_commands_and_flags(url: str, tmp_path: Path) -> None:
    """The command line signs and checks as well: submit --wait here and elsewhere, result, status, doctor."""
    shown = ("--url", url)
    said = {VARIABLE: ONE}
    done = taskq(tmp_path, "submit", *shown, "--wait", "textwrap:dedent", "text= x", **said)
    assert (done.code, done.out) == (0, '"x"\n'), done
    done = taskq(tmp_path, "submit", *shown, "--wait", "--", "sh", "-c", f"echo ${{{VARIABLE}-none}}", **said)
    assert (done.code, done.out) == (0, "none\n"), done
    assert "signed; 1 key is known" in " ".join(taskq(tmp_path, "doctor", *shown, **said).out.split())
    assert ONE not in taskq(tmp_path, "config", "show", **said).out


@pytest.mark.usefixtures("signed")
def test_jobs_do_not_see_the_keys(url: str, tmp_path: Path) -> None:
    """A worker's processes do not have them in their environment, and none is in its log."""
    with WorkerProcess(url, tmp_path) as worker, TaskQueue(url) as queue:
        assert queue.submit(keys_in_sight).result(PATIENCE) == []
        assert queue.submit(submit_to_own_queue, 2).result(PATIENCE)[1] == 4
        assert ONE not in worker.log()


def test_keys_change_under_way(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs and results that one key has signed are good for those who know it as their second one."""
    with WorkerProcess(url, tmp_path, variables={VARIABLE: f"{TWO},{ONE}"}):
        for keys in (ONE, f"{ONE},{TWO}", f"{TWO},{ONE}", TWO):
            monkeypatch.setenv(VARIABLE, keys)
            with TaskQueue(url) as queue:
                job = queue.submit(square, 4)
                if keys == ONE:
                    assert isinstance(job.exception(PATIENCE), NotSigned)
                else:
                    assert job.result(PATIENCE) == 16


# --- jobs that are refused


@pytest.mark.usefixtures("signed")
def test_unsigned_jobs_are_set_aside(url: str, tmp_path: Path) -> None:
    """Jobs without a signature, of another key, or moved, are not run, which is said; a good one behind them runs."""
    good, moved, stale = new_job(5), new_job(6, queue="other"), new_job(7)
    other = Template(CALL, "tests.sample_tasks:square", JobOptions()).pack(codec.encode([9]), codec.encode({}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, TWO)
        with contextlib.closing(open_store(url)) as strange:
            strange.put([stale])
    with contextlib.closing(open_store(url)) as store:
        store.put([moved])
        assert not (good.envelope.startswith(SEALED))
    unsigned = new_job(8)
    with bare(url) as store:
        replay = new_job(1)
        replay.envelope = moved.envelope  # a signed envelope under another id, and in another queue
        forged = new_job(2)
        forged.envelope = moved.envelope[:46] + other
        store.put([unsigned, replay, forged])
    bad = [unsigned.id, replay.id, forged.id, stale.id]
    with contextlib.closing(open_store(url)) as store, WorkerProcess(url, tmp_path) as worker:
        store.put([good])
        eventually(lambda: _states(store, [good.id]) == [State.SUCCEEDED], "the good job to run")
        eventually(lambda: all(_refusal(store, job_id) for job_id in bad), "the others to be set aside")
        assert State.SUCCEEDED not in _states(store, bad)
        for job_id in bad:
            refusal = _refusal(store, job_id)
            assert refusal is not None
            assert refusal.reason is Reason.UNSIGNED
            assert job_id in worker.log()
        assert "must not be run" in worker.log()
        shown = taskq(tmp_path, "status", "--url", url, unsigned.id, **{VARIABLE: ONE}).out
        assert "it is not signed" in " ".join(shown.split())
        told = " ".join(taskq(tmp_path, "doctor", "--url", url, **{VARIABLE: ONE}).out.split())
        assert "must not be run" in told
        assert VARIABLE in told


def _states(store: Store, ids: list[str]) -> list[State]:
    return [record.state for record in store.get(ids) if record is not None]


def _refusal(store: Store, job_id: str) -> Failure | None:
    (record,) = store.get([job_id])
    assert record is not None
    return record.refusal or record.failure


@pytest.mark.usefixtures("signed")
def test_old_jobs_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that waits for longer than its signature holds is not run; the time of a delay comes on top."""
    query = f"{url}{'&' if '?' in url else '?'}signed_for=60"
    with contextlib.closing(open_store(query)) as store:
        store.put([new_job(1), new_job(2, delay=0.01)])
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 61)
        member, claims = claimed(store, 2)
        try:
            assert "holds no longer" in str(claims[0].refusal)
        finally:
            monkeypatch.undo()
            member.leave()


@pytest.mark.usefixtures("signed")
def test_a_forged_result_is_no_argument(url: str) -> None:
    """A job that depends_on another one is refused when that one's result is not signed."""
    first = new_job(3)
    second = new_job(4)
    second.depends_on = (first.id,)
    with contextlib.closing(open_store(url)) as store, bare(url) as stranger:
        store.put([first, second])
        member, claims = claimed(stranger)
        member.poll([_succeeded(claims[0], 666)], [], 0)
        member.leave()
        member, claims = claimed(store)
        assert [claim.id for claim in claims] == [second.id]
        assert first.id in str(claims[0].refusal)
        member.leave()


# --- outcomes that are refused


def _succeeded(claim: Claim, value: object) -> JobOutcome:
    return JobOutcome(id=claim.id, token=claim.token, state=State.SUCCEEDED, result=codec.encode(value))


def _failed(claim: Claim) -> JobOutcome:
    failure = Failure.from_exception(ValueError("forged"))
    return JobOutcome(id=claim.id, token=claim.token, state=State.FAILED, failure=failure)


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("outcome", [lambda claim: _succeeded(claim, "FORGED"), _failed], ids=["result", "failure"])
def test_forged_outcomes_are_not_believed(url: str, outcome: Callable[[Claim], JobOutcome]) -> None:
    """Whoever waits, looks later, or lists: the job has failed for want of a signature."""
    with TaskQueue(url) as queue, bare(url) as stranger:
        job = queue.submit(square, 3)
        with contextlib.closing(open_store(url)) as store:
            member, claims = claimed(stranger)
            member.poll([outcome(claims[0])], [], 0)
            member.leave()
            assert isinstance(job.exception(PATIENCE), NotSigned)
            assert job.reason is Reason.UNSIGNED
            (record,) = store.get([job.id], payload=True)
            assert record is not None
            assert (record.state, record.reason, record.result) == (State.FAILED, Reason.UNSIGNED, None)


@pytest.mark.usefixtures("signed")
def test_meta_and_notes_are_signed(url: str) -> None:
    """What a job has noted reaches its next attempt only with a signature."""
    with contextlib.closing(open_store(url)) as store, bare(url) as stranger:
        store.put([new_job(3)])
        for where, kept in ((store, codec.encode({"step": 3})), (stranger, b"")):
            member, claims = claimed(where)
            told = JobOutcome(
                id=claims[0].id,
                token=claims[0].token,
                state=State.QUEUED,
                meta=codec.encode({"step": 3}),
            )
            member.poll([told], [], 0)
            member.leave()
            member, claims = claimed(store)
            assert claims[0].meta == kept
            member.leave()


# --- control


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("kill", [False, True])
def test_only_signed_requests_are_obeyed(url: str, kill: bool) -> None:
    """A cancel of somebody without a key ends no running job; one of somebody with a key does."""
    with contextlib.closing(open_store(url)) as store, bare(url) as stranger:
        store.put([new_job(3)])
        member, claims = claimed(store)
        held = [(claims[0].id, claims[0].token)]
        for who, obeyed in ((stranger, False), (store, True)):
            who.cancel([claims[0].id], kill=kill)
            control_requests = list(member.poll([], [], 0).control_requests)
            member.heartbeat(WorkerRecord(name="hand", host="h", pid=1, queues=("default",), processes=4), held)
            control_requests += member.poll([], [], 0).control_requests
            assert bool(control_requests) is obeyed
            assert all((request.job_id, request.kill) == (claims[0].id, kill) for request in control_requests)
        member.leave()
