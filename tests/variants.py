"""The table of executors and their variants: the one place in which tests know them by name.

A new executor is one more row. Tests take the fixtures `queue` and `make_queue`, and ask a queue's `capabilities`
for what not every executor can do; `@pytest.mark.needs(...)` says so for a whole test, with the reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from taskq import TaskQueue
from tests.redis_server import bundled, installed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.places import Places

#: `processes` of the queues that tests share: two show order, overtaking and neighbours, and start fast.
PROCESSES = 2

#: How a script that is given the two arguments of `Variant.for_script` opens its queue; `sys.argv[3:]` are its own.
OPEN = "TaskQueue(sys.argv[1], **json.loads(sys.argv[2]))"

#: What an executor can do that has its processes and its jobs in the memory of the program.
IN_MEMORY = frozenset({"pickle", "start_methods"})

#: What one can do that keeps its jobs in a store, where workers take them.
IN_A_STORE = frozenset({"durable"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to run jobs. `places`: of a durable executor, the stores and workers of the module that is tested."""

    name: str
    scheme: str = "local"
    settings: Mapping[str, object] = field(default_factory=dict)
    capabilities: frozenset[str] = IN_MEMORY
    places: Places | None = None

    @property
    def url(self) -> str:
        """Return the URL of `TaskQueue`, with a worker of two processes behind it where it needs one."""
        return "local://" if self.places is None else self.places.get().url

    def open(self, **settings: Any) -> TaskQueue:
        """Open a queue; settings of the test's own come on top. A durable one has a worker with these processes."""
        chosen: dict[str, Any] = {**self.settings, **settings}
        if self.places is None:
            own = {} if "max_workers" in chosen else {"processes": PROCESSES}
            return TaskQueue(self.url, **{**own, **chosen})
        processes = chosen.pop("max_workers", None) or chosen.pop("processes", PROCESSES)
        return TaskQueue(self.places.get(processes, chosen.pop("queues", ())).url, **chosen)

    def for_script(self) -> tuple[str, str]:
        """Return URL and settings as two command line arguments; see `OPEN`."""
        own = {} if self.places is not None else {"processes": PROCESSES}
        return self.url, json.dumps({**own, **self.settings})


#: Valkey has a row of its own where Redis is there too; where it is not, Valkey is what the row of Redis runs on.
VARIANTS = (
    Variant(name="local-fork", settings={"start_method": "fork"}),
    Variant(name="local-forkserver", settings={"start_method": "forkserver"}),
    Variant(name="local-spawn", settings={"start_method": "spawn"}),
    Variant(name="sqlite", scheme="sqlite", capabilities=IN_A_STORE),
    Variant(name="redis", scheme="redis", capabilities=IN_A_STORE),
    *([Variant(name="valkey", scheme="redis", capabilities=IN_A_STORE)] if installed() and bundled() else []),
)

#: The modules that run on Valkey where Redis is there too, beside the whole suite of stores: what goes through most of
#: the scripts. What the executors do above their store is the same on both. `--whole` runs all.
ON_VALKEY = frozenset({"test_queues", "test_retries", "test_context"})

#: The modules whose properties do not depend on how a child of the local pool was started: each test runs by one of the
#: start methods, which its name draws.
BY_ONE_METHOD = frozenset(
    {
        *("test_cancel", "test_context", "test_cpython", "test_errors", "test_imap", "test_map", "test_map_input"),
        *("test_options", "test_pool", "test_queues", "test_retries", "test_retry_later", "test_submit"),
        "test_timeouts",
    }
)
