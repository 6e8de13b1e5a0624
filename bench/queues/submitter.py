"""One of several processes that submit at once: MODULE CLASS COUNT. Says "ready", waits for a line, says "done"."""

from __future__ import annotations

import os
import sys

from bench.queues.system import QueueSystem, address
from bench.system import load


def main() -> None:
    """Open, wait for the others, submit."""
    module, name, count = sys.argv[1:]
    system = load(module, name)(1)
    assert isinstance(system, QueueSystem)
    system.address = address()
    system.open()
    system.enqueue("noop", range(10))
    print("ready", flush=True)
    sys.stdin.readline()
    system.enqueue("noop", range(int(count)))
    print("done", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
