"""Measure the standard library on whatever machines serve the queue, and show which of them did how much.

    TASKQ_URL=redis://queue-host/0 taskq worker --import examples.survey       # on each machine
    TASKQ_URL=redis://queue-host/0 python -m examples.fleet                    # on any

Without TASKQ_URL it runs on this machine alone. docker-compose.yml starts the same with one command.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from examples.stdlib_metrics import standard_library
from examples.survey import survey
from taskq import TaskQueue

#: Modules shown.
SHOWN = 10


def main() -> int:
    """Have the files measured; print the hardest functions, and who has found them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else standard_library()
    paths = [str(path) for path in sorted(folder.rglob("*.py")) if "site-packages" not in path.parts]
    began = time.perf_counter()
    with TaskQueue() as queue:  # what TASKQ_URL says
        outcomes: list[Any] = list(queue.imap_unordered(survey, paths, progress=True, return_exceptions=True))
    seconds = time.perf_counter() - began
    found = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    for module, complexity, name, _ in sorted(found, key=lambda row: row[1], reverse=True)[:SHOWN]:
        print(f"{complexity:5}  {module}: {name}")
    print(f"\n{len(found)} files in {seconds:.1f} s; {len(outcomes) - len(found)} are no Python")
    for host, count in sorted(Counter(host for *_, host in found).items()):
        print(f"{count:5}  on {host}")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
