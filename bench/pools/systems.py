"""The pools under test."""

from __future__ import annotations

#: Key on the command line -> module and class. The order is that of the rounds.
SYSTEMS = {
    "taskq": ("bench.pools.taskq_local", "TaskqForkserver"),
    "taskq-fork": ("bench.pools.taskq_local", "TaskqFork"),
    "pool": ("bench.pools.pool", "Pool"),
    "executor": ("bench.pools.process_pool_executor", "Executor"),
    "joblib": ("bench.pools.joblib_parallel", "Joblib"),
    "loky": ("bench.pools.loky_executor", "Loky"),
    "mpire": ("bench.pools.mpire_pool", "Mpire"),
    "pebble": ("bench.pools.pebble_pool", "Pebble"),
}

#: All that are not taskq.
PEERS = tuple(key for key in SYSTEMS if not key.startswith("taskq"))
