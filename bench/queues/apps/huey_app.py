"""Huey: in Redis or in a SQLite file, by what the address is."""

from __future__ import annotations

import os

from huey import RedisHuey, SqliteHuey

from bench.queues import jobs
from bench.queues.system import address, way

if address().startswith("redis:"):
    huey = RedisHuey("bench", url=address(), notify_result="notify" in way())
else:
    # without a word it is FULL: each commit is synchronised
    relaxed = {"fsync": False} if os.environ["BENCH_DURABILITY"] == "normal" else {}
    huey = SqliteHuey("bench", filename=address(), **relaxed)
noop = huey.task(name="noop")(jobs.noop)
burn = huey.task(name="burn")(jobs.burn)
