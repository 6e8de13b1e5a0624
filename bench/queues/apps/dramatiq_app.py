"""Dramatiq: broker and results in Redis."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend

from bench.queues import jobs
from bench.queues.system import address

results = RedisBackend(url=address())
broker = RedisBroker(url=address())
broker.add_middleware(Results(backend=results))
dramatiq.set_broker(broker)
noop = dramatiq.actor(jobs.noop, actor_name="noop", store_results=True)
burn = dramatiq.actor(jobs.burn, actor_name="burn", store_results=True)
