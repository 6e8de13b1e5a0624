"""One measurement. bench/measure.py starts this as a script: SYSTEM WAY TEST SCALE PROCESSES FILE.

The tests `start` and `import` count what this file imports, so it imports the rest only where it is needed.
"""

from __future__ import annotations

import os
import sys
import time

#: Seconds that a pool has to close after its measurement: some hang.
CLOSE_S = 3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bench.systems import System


def time_import(system: System) -> dict[str, float]:
    """Import the library of this system; return the milliseconds."""
    before = time.perf_counter()
    __import__(system.imports)
    return {"import_ms": (time.perf_counter() - before) * 1e3}


def time_first_result(system: System) -> dict[str, float]:
    """Open the pool and run one call; return the milliseconds since the driver started this process."""
    from bench import work

    system.open()
    result = system.submit(work.increment, 1)(30.0)
    now = time.monotonic()
    if result != 2:
        raise RuntimeError(f"the first result is {result!r}, not 2")
    return {"first_result_ms": (now - float(os.environ["BENCH_STARTED"])) * 1e3}


def measure(system: System, way: str, test: str, scale: str) -> dict[str, float] | dict[str, str]:
    """Run one test."""
    if test == "import":
        return time_import(system)
    if test == "start":
        return time_first_result(system)
    from bench import scenarios

    system.open()
    return scenarios.run(system, way, test, scale)


def main() -> None:
    """Measure, write the figures as JSON, close the pool."""
    key, way, test, scale, processes, path = sys.argv[1:]
    from bench.systems import load

    system = load(key)(int(processes))
    figures = measure(system, way, test, scale)
    import json
    import signal
    from pathlib import Path

    new = Path(path + ".new")
    new.write_text(json.dumps(figures), encoding="utf-8")
    new.replace(path)
    if test.startswith("kill"):
        os._exit(0)  # a broken pool may not close; the driver ends what it leaves
    signal.alarm(CLOSE_S)  # without a handler this ends the process
    if test != "import":
        system.close()


if __name__ == "__main__":
    main()
