"""A job that waits for another one, in whichever way, is named in its log: by that a full worker is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq.context import WAITED, WAITS, awaited_in
from tests.sample_tasks import wait_in_each_way
from tests.waiting import PATIENCE, eventually
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taskq import TaskQueue
    from tests.variants import Variant

#: `result`, `exception`, `wait`, `as_completed` and `await`; then `map`, `imap` and `imap_unordered`.
BY_HANDLE, BY_MAP = 5, 3


def test_every_wait_for_a_job_is_named(
    queue: TaskQueue, variant: Variant, fresh_url: Callable[[str, str], str], tmp_path: Path
) -> None:
    """Each way to wait for a stored job names it in the log of the job that waits, and says when that is over."""
    url = fresh_url(variant.scheme if variant.places is not None else "sqlite", "")
    job = queue.submit(wait_in_each_way, url)

    def named() -> set[str]:
        return {line.removeprefix(WAITS) for line in job.logs().splitlines() if line.startswith(WAITS)}

    found = eventually(lambda: len(named()) == BY_HANDLE + BY_MAP and named(), "each awaited job to be named")
    assert awaited_in(job.logs().encode()) in found
    with WorkerProcess(url, tmp_path, processes=1):
        known = job.result(timeout=PATIENCE)
    assert set(known) <= found
    assert {line.removeprefix(WAITED) for line in job.logs().splitlines() if line.startswith(WAITED)} == found
    assert awaited_in(job.logs().encode()) == ""
