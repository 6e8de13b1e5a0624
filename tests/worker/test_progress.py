"""What jobs say besides their results: print, log, progress, meta."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from taskq.codec import decode
from taskq.states import State
from taskq.store import ProgressUpdate
from tests.waiting import eventually
from tests.worker.conftest import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.worker.conftest import Running
    from tests.worker.double import StoreDouble

    Serve = Callable[..., Running]

ALL_WAYS = b"from print\nfrom log\nfrom stderr\nfrom write\nfrom C\nfrom a program\n"


def test_words_are_told_while_it_runs(store: StoreDouble, serve: Serve, tmp_path: Path) -> None:
    """All that a job says, by whichever way, is told in its order while it runs, and once."""
    job_id = store.call(f"{SAMPLE}:speak", str(tmp_path / "gate"))
    serve()
    eventually(lambda: any(update.meta for update in store.updates), "the notes")
    eventually(lambda: store.log_of(job_id) == ALL_WAYS, "the output")
    assert store.state(job_id) is State.RUNNING
    assert [update.progress for update in store.updates if update.progress] == [(3, 9)]
    told = [update.meta for update in store.updates if update.meta]
    assert decode(told[-1]) == {"page": 7, "size": (640, 480)}
    (tmp_path / "gate").touch()
    eventually(lambda: store.ended() == 1, "the job to end")
    assert store.log_of(job_id) == ALL_WAYS


def test_last_words_come_with_the_outcome(store: StoreDouble, serve: Serve) -> None:
    """What a short job says comes with its outcome."""
    job_id = store.call(f"{SAMPLE}:speak", "")
    assert serve(burst=True).wait() == 0
    assert store.log_of(job_id) == ALL_WAYS
    outcome = store.last(job_id)
    assert outcome.progress == (3, 9) or any(update.progress == (3, 9) for update in store.updates)
    told = [update.meta for update in (*store.updates, outcome) if update.meta]
    assert decode(told[-1]) == {"page": 7, "size": (640, 480)}


def test_each_job_has_its_own_words(store: StoreDouble, serve: Serve) -> None:
    """Among many short jobs each gets what it printed itself, and silent ones nothing."""
    loud = [store.call(f"{SAMPLE}:print_number", n) for n in range(500)]
    calm = [store.call(f"{SAMPLE}:quiet", n) for n in range(500)]
    mixed = [store.call(f"{SAMPLE}:{'print_number' if n % 3 else 'quiet'}", n) for n in range(300)]
    assert serve(burst=True).wait() == 0
    assert [store.log_of(job_id) for job_id in loud] == [b"number %d\n" % n for n in range(500)]
    assert {store.log_of(job_id) for job_id in calm} == {b""}
    assert [store.log_of(job_id) for job_id in mixed] == [b"number %d\n" % n if n % 3 else b"" for n in range(300)]


def test_words_of_a_failing_job(store: StoreDouble, serve: Serve) -> None:
    """What a job printed before it failed is kept."""
    job_id = store.call(f"{SAMPLE}:print_and_fail")
    assert serve(burst=True).wait() == 0
    assert store.state(job_id) is State.FAILED
    assert store.log_of(job_id) == b"before the end"


def test_last_words_of_a_dead_process(store: StoreDouble, serve: Serve) -> None:
    """What a job printed before it took its process down is kept, of each of its runs."""
    job_id = store.call(f"{SAMPLE}:speak_and_die")
    assert serve(burst=True).wait() == 0
    assert store.log_of(job_id) == b"last words\n" * 3


@pytest.mark.parametrize("size", [900_000, 50_000_000])
def test_flood(store: StoreDouble, serve: Serve, size: int) -> None:
    """Of a job that prints without measure the first mebibyte is kept, with a line that says what was left out."""
    job_id = store.call(f"{SAMPLE}:flood", size)
    after = store.call(f"{SAMPLE}:print_number", 1)
    assert serve(burst=True, processes=1).wait() == 0
    log = store.log_of(job_id)
    assert len(log) <= 1024 * 1024
    assert (b"left out" in log[-100:]) == (size > 1024 * 1024)
    assert store.log_of(after) == b"number 1\n"


def test_flood_takes_no_memory(store: StoreDouble, serve: Serve, tmp_path: Path) -> None:
    """The memory behind what a job prints beyond the limit is given back while it runs."""
    job_id = store.call(f"{SAMPLE}:flood_and_hold", 200_000_000, str(tmp_path / "gate"))
    running = serve(processes=1)
    eventually(lambda: running.worker.loop is not None, "the worker to be there")
    children = running.worker.loop.runner.pool.dispatcher.supervisor.children  # type: ignore[union-attr]

    def sizes() -> tuple[int, int]:
        (child,) = children.values()
        found = os.fstat(child.connection.output)  # type: ignore[arg-type]
        return found.st_size, found.st_blocks * 512

    eventually(lambda: sizes()[0] > 190_000_000, "the flood to be over")
    eventually(lambda: sizes()[1] < 8_000_000, "its memory to be given back")
    (tmp_path / "gate").touch()
    eventually(lambda: store.ended() == 1, "the job to end")
    assert b"left out" in store.log_of(job_id)[-100:]


def test_without_capture(store: StoreDouble, serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    """A worker that captures nothing lets output through, and still keeps what is logged."""
    job_id = store.call(f"{SAMPLE}:print_and_log")
    assert serve(burst=True, capture=False).wait() == 0
    assert store.log_of(job_id) == b"logged\n"


def test_big_updates(store: StoreDouble, serve: Serve) -> None:
    """A meta that is too large is refused in the job, with its path, and leaves the last one as it was."""
    job_id = store.call(f"{SAMPLE}:note_too_much")
    assert serve(burst=True).wait() == 0
    assert "meta" in store.value(job_id)
    # Where the job took long, the meta came in a note before its outcome.
    told = [update.meta for update in (*store.updates, store.last(job_id)) if update.meta]
    assert decode(told[-1]) == {"small": 1}


def test_unreadable_meta(store: StoreDouble, serve: Serve) -> None:
    """A meta that cannot be read is the error of a job that reads it, and nothing to others; no process dies of it."""
    reads, ignores = store.call(f"{SAMPLE}:meta_of_attempts"), store.call(f"{SAMPLE}:quiet", 2)
    for job_id in (reads, ignores):
        store.updates.append(ProgressUpdate(id=job_id, token="", meta=b"\x91" * 3000 + b"\x01"))
    assert serve(burst=True).wait() == 0
    failure = store.last(reads).failure
    assert failure is not None
    assert failure.type == "taskq.errors.DecodeError"
    assert store.last(reads).crashes == 0
    assert store.value(ignores) == 2
