"""taskiq: a list in Redis as broker, results in Redis."""

from __future__ import annotations

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from bench.queues import jobs
from bench.queues.system import address

broker = ListQueueBroker(address()).with_result_backend(RedisAsyncResultBackend(address()))
noop = broker.task(task_name="noop")(jobs.noop)
burn = broker.task(task_name="burn")(jobs.burn)
