"""Tests of RQ's that call a worker but say nothing about another one, and those that differ on purpose."""

from __future__ import annotations

from typing import Final

__all__ = ["DIFFERENT", "NOT_APPLICABLE"]

_CLASSES: Final = "classes of workers, jobs and queues, and local handlers, that are objects of the test's own process"
_SPAWN: Final = "how RQ's SpawnWorker hands its configuration to its processes"
_MOCKS: Final = "replaces parts of RQ's worker inside the test's own process"
_SIMPLE: Final = "asserts that SimpleWorker runs jobs in the test's own process, where it cannot renew its lease"
_SCHEDULER: Final = "asks RQ's worker object for the process of its scheduler"
_SIGNALS: Final = "signals to the test's own process, which RQ's worker pool handles"

#: A pattern of their names, and why they cannot apply.
NOT_APPLICABLE: Final[dict[str, str]] = {
    r"test_cli_enqueue_with_job_class|test_queue_class_(argument|propagated)|test_custom_exc_handling": _CLASSES,
    r"test_horse_(receives|uses)_": _CLASSES,
    r"test_spawn_worker\.py::TestWorker::test_rejects_": _SPAWN,
    r"WorkerWebhookTestCase": _MOCKS,
    r"test_intermediate_queue$|test_cleanup_intermediate_queue|test_no_cleanup_while_in_started_queue": _MOCKS,
    r"TestWorker::test_horse_fails$|test_job_dependency_race_condition": _MOCKS,
    r"survives_transaction_retry|after_aborted_immediate_repeat": _MOCKS,
    r"test_work_via_simpleworker|test_simpleworker_heartbeat_ttl": _SIMPLE,
    r"test_scheduler\.py::TestWorker": _SCHEDULER,
    r"test_pool_ignores_consecutive_shutdown_signals": _SIGNALS,
}

#: A pattern of their names, and what is not as in RQ: each stands in docs/moving-from-rq.md.
DIFFERENT: Final[dict[str, str]] = {
    r"test_worker_with_scheduler": "every worker promotes what is due",
    r"test_execution_added_to_started_job_registry": "the record of an execution lives longer",
}
