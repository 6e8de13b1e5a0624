"""Conformance tests, the client as `taskq-producer` and the worker as `taskq-worker` of contrib/acl.

Those in which other commands of Redis are called, and some of the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.conformance import test_cancel, test_durable, test_queues, test_retries
from tests.places import QUERY, Places
from tests.project.commands import ROOT
from tests.redis_server import RedisServer
from tests.variants import VARIANTS, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Each way into the queue, out of it and back, and each order to a worker.
ALWAYS = (
    *("test_it_runs_as_these_users", "test_cancel_of_a_waiting_job", "test_running_job_is_asked_to_stop"),
    *("test_kill_of_a_running_job", "test_job_outlives_its_queue", "test_jobs_wait_for_a_worker"),
    *("test_cancel_without_a_worker", "test_same_key_from_two_clients", "test_job_as_argument_by_id"),
    *("test_priority_counts_inside_a_queue", "test_map_in_a_named_queue", "test_pause", "test_pause_holds_due_jobs"),
    *("test_cancel_in_a_paused_queue", "test_retry_until_it_succeeds", "test_success_after_crashes"),
)

MODULES = (test_cancel, test_durable, test_queues, test_retries)

WORKER_IMPORTS = tuple(dict.fromkeys(name for module in MODULES for name in getattr(module, "WORKER_IMPORTS", ())))

#: Tests whose jobs submit jobs: their worker's user needs the commands of both files.
SUBMITTING = ("test_queue_in_a_job", "test_jobs_that_wait_for_their_own_queue")

#: Fixtures of theirs.
FIXTURES = ("busy_queues", "queues")

globals().update(
    {
        name: found
        for module in MODULES
        for name, found in vars(module).items()
        if (name.startswith("test_") and name not in SUBMITTING) or name in FIXTURES
    }
)

PRODUCER, WORKER, BOTH = "taskq-producer", "taskq-worker", "taskq-both"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give a Redis with both users, and the one without a name switched off."""
    files = [ROOT / "contrib" / "acl" / f"{role}.conf" for role in ("producer", "worker")]
    options = [word for path in files for word in ("--include", str(path))]
    with RedisServer(tmp_path_factory.mktemp("acl"), options=options) as started:
        for user in (PRODUCER, WORKER):
            started.command("ACL", "SETUSER", user, ">pw")
        rules = [word for path in files for line in _rules(path) for word in line.split()[2:]]
        started.command("ACL", "SETUSER", BOTH, *[word for word in rules if word[0] in "+~&" or word == "on"], ">pw")
        yield started


def _rules(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8").splitlines() if line.startswith("user ")]


def as_user(server: RedisServer, user: str, query: str = "") -> str:
    """Return the URL of a fresh database for a user."""
    return server.fresh_url(query).replace("redis://", f"redis://{user}:pw@", 1)


@pytest.fixture(scope="module", params=[row for row in VARIANTS if row.name == "redis"], ids=["redis-acl"])
def variant(
    request: pytest.FixtureRequest, server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Variant]:
    """Give the executor on Redis under these users."""
    places = Places(
        lambda: as_user(server, PRODUCER, QUERY),
        tmp_path_factory.mktemp("workers"),
        WORKER_IMPORTS,
        lambda url: url.replace(PRODUCER, WORKER),
    )
    yield replace(request.param, places=places)
    places.close()


@pytest.fixture
def lonely_url(server: RedisServer) -> str:
    """Give the URL of a store of its own, without a worker; the test starts one there."""
    return as_user(server, BOTH)


@pytest.fixture(scope="module", autouse=True)
def nothing_was_refused(server: RedisServer) -> Iterator[None]:
    """See that Redis has refused neither of them anything: not even what was tried in vain."""
    yield
    with server.client() as client:
        refused: object = client.acl_log()
    assert refused == []


def test_it_runs_as_these_users(variant: Variant) -> None:
    """Otherwise this module would prove nothing."""
    assert PRODUCER in variant.url
