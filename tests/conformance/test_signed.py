"""Conformance tests with all of it signed: those in which another thing is signed, and some of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance import test_cancel, test_durable, test_queues, test_retries
from tests.seams import executor_of
from tests.variants import VARIANTS, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Jobs, results, failures, requests, meta, arguments that are jobs, forks and other programs that know the keys, sizes.
ALWAYS = (
    *("test_it_is_signed", "test_running_job_is_asked_to_stop", "test_kill_of_a_running_job"),
    *("test_job_outlives_its_queue", "test_queue_in_a_job", "test_jobs_wait_for_a_worker", "test_fork_of_a_client"),
    *(
        "test_result_of_another_program",
        "test_too_big_an_argument",
        "test_too_big_a_result",
        "test_map_in_a_named_queue",
    ),
    *("test_job_as_argument_by_id", "test_retry_until_it_succeeds", "test_success_after_crashes"),
)

MODULES = (test_cancel, test_durable, test_queues, test_retries)

#: Two keys: the second one verifies only.
KEYS = "signs-and-verifies-" * 2 + "," + "verifies-only-----" * 2

WORKER_IMPORTS = tuple(dict.fromkeys(name for module in MODULES for name in getattr(module, "WORKER_IMPORTS", ())))

DURABLE = [row for row in VARIANTS if "durable" in row.capabilities]

#: Fixtures of theirs.
FIXTURES = ("busy_queues", "lonely_url", "queues")

globals().update(
    {
        name: found
        for module in MODULES
        for name, found in vars(module).items()
        if name.startswith("test_") or name in FIXTURES
    }
)


@pytest.fixture(scope="module", params=DURABLE, ids=[f"{row.name}-signed" for row in DURABLE])
def variant(request: pytest.FixtureRequest, open_variant: Callable[[Variant], Variant]) -> Iterator[Variant]:
    """Give each durable executor, with keys in the environment of this process and of the workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASKQ_SIGNING_KEYS", KEYS)
        found = open_variant(request.param)
        yield found
        if found.places is not None:
            found.places.close()


def test_it_is_signed(variant: Variant) -> None:
    """Otherwise this module would prove nothing."""
    with variant.open() as queue:
        assert type(executor_of(queue).store).__name__ == "SignedStore"
