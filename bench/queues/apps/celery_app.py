"""Celery: broker and results in Redis, as JSON."""

from __future__ import annotations

from celery import Celery

from bench.queues import jobs
from bench.queues.system import address

app = Celery("bench", broker=address(), backend=address())
app.conf.broker_connection_retry_on_startup = True
noop = app.task(name="noop")(jobs.noop)
burn = app.task(name="burn")(jobs.burn)
