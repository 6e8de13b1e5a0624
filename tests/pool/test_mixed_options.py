"""Jobs of one function with different options, in one flood: each is run by its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq import Retry, TaskQueue
from tests.ledger import note
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.ledger import Ledger


def fail_if_told(path: str) -> None:
    """Note the start and raise, where there is a path to note it at."""
    if path:
        note(path, "start")
        raise OSError("as told")


def test_policy_of_a_job_behind_others(ledger: Ledger) -> None:
    """A job that follows thousands of short ones without a retry policy is still retried by its own."""
    with TaskQueue("local://", processes=1, start_method="fork") as queue:
        queue.submit_many(fail_if_told, [("",)] * 3000)[-1].result(timeout=PATIENCE)
        before = [queue.submit(fail_if_told, "") for _ in range(3000)]
        job = queue.options(retry=Retry(2, delay=0.01)).submit(fail_if_told, ledger.path)
        after = [queue.submit(fail_if_told, "") for _ in range(300)]
        assert isinstance(job.exception(timeout=PATIENCE), OSError)
        assert [each.result(timeout=PATIENCE) for each in (*before, *after)] == [None] * 3300
    assert ledger.counts() == {"start": 3}
