"""Tests of RQ's that call a worker, but say nothing about another one: a pattern of their names, and why."""

from __future__ import annotations

from typing import Final

__all__ = ["NOT_APPLICABLE"]

_POOL: Final = "RQ's worker pool and its command line start RQ's own worker processes"
_FLAGS: Final = "flags of `rq worker` that are read by RQ's own worker: see docs/moving-from-rq.md"
_CLASSES: Final = "worker, job, queue and timeout classes, and exception handlers, of the program that runs the worker"
_ORDER: Final = "other orders of queues than the given one"
_SPAWN: Final = "how RQ's SpawnWorker starts its processes"
_MOCKS: Final = "replaces parts of RQ's worker inside the test's own process"
_FORK: Final = "asserts that SimpleWorker runs jobs in the test's own process"
_LONGER: Final = "an execution's record lives longer here, on purpose: see docs/moving-from-rq.md"
_SCHEDULER: Final = "RQ's scheduler process, which a taskq worker does not need"

NOT_APPLICABLE: Final[dict[str, str]] = {
    r"test_worker_pool\.py": _POOL,
    r"WorkerPoolCLITestCase": _POOL,
    r"test_worker_and_worker_pool_serializer_json_alias": _POOL,
    r"TestRQCli::test_(config_file_logging|worker_logging_options|worker_pid|worker_with_scheduler|worker)$": _FLAGS,
    r"TestRQCli::test_(exception_handlers|cli_enqueue_with_job_class)$": _CLASSES,
    r"TestDecorator::test_decorator_accepts_result_ttl_as_argument": _FLAGS,
    r"dequeue_strategy|RandomWorker|RoundRobinWorker|test_dequeue_(random|round_robin)": _ORDER,
    r"test_spawn_worker\.py": _SPAWN,
    r"test_scheduler\.py::TestWorker": _SCHEDULER,
    r"test_timer_death_penalty|test_custom_exc_handling|test_disable_default_exception_handler": _CLASSES,
    r"WorkerWebhookTestCase": _MOCKS,
    r"heartbeat_ttl|worker_calls_clean_registries|test_monitor_work_horse_handles": _MOCKS,
    r"test_intermediate_queue$|test_cleanup_intermediate_queue|test_no_cleanup_while_in_started_queue": _MOCKS,
    r"TestWorker::test_horse_fails$": _MOCKS,
    r"test_work_via_simpleworker": _FORK,
    r"test_execution_added_to_started_job_registry": _LONGER,
    r"test_job_dependency_race_condition|survives_transaction_retry|after_aborted_immediate_repeat": _MOCKS,
}
