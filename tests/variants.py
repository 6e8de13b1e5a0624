"""The table of executors and their variants: the one place in which tests know them by name.

A new executor is one more row. Tests take the fixtures `queue` and `make_queue`, and ask a queue's `capabilities`
for what not every executor can do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to run jobs: the URL and the settings of `TaskQueue`."""

    name: str
    url: str
    settings: Mapping[str, object] = field(default_factory=dict)

    def for_script(self) -> tuple[str, str]:
        """Return URL and settings as two command line arguments; see `OPEN`."""
        return self.url, json.dumps(dict(self.settings))


#: How a script that is given those two arguments opens its queue; what stands behind them is `sys.argv[3:]`.
OPEN = "TaskQueue(sys.argv[1], processes=2, **json.loads(sys.argv[2]))"

#: `processes` of the queues that tests share: two show order, overtaking and neighbours, and start fast.
PROCESSES = 2

VARIANTS = (
    Variant(name="local-fork", url="local://", settings={"start_method": "fork"}),
    Variant(name="local-forkserver", url="local://", settings={"start_method": "forkserver"}),
    Variant(name="local-spawn", url="local://", settings={"start_method": "spawn"}),
)
