"""One measurement. bench/measure.py starts this as a script: MODULE CLASS WAY TEST SCALE PROCESSES FILE.

The test `start` counts what this file imports, so it imports the rest only where it is needed.
"""

from __future__ import annotations

import os
import sys

#: Seconds that a system has to close after its measurement: some hang.
CLOSE_S = 3


def main() -> None:
    """Measure, write the figures as JSON, close the system."""
    module, name, way, test, scale, processes, path = sys.argv[1:]
    from bench.system import load

    system = load(module, name)(int(processes))
    figures = system.measure(way, test, scale)
    import json
    import signal
    from pathlib import Path

    new = Path(path + ".new")
    new.write_text(json.dumps(figures), encoding="utf-8")
    new.replace(path)
    if not system.usable:
        os._exit(0)  # a broken pool may not close; the driver ends what it leaves
    signal.alarm(CLOSE_S)  # without a handler this ends the process
    system.close()


if __name__ == "__main__":
    main()
