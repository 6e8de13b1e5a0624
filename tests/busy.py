"""A command run beside programs that keep each core busy: `python -m tests.busy COMMAND...`."""

from __future__ import annotations

import os
import subprocess
import sys


def main() -> int:
    """Run the command; return its exit code."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        return subprocess.call(sys.argv[1:])
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


if __name__ == "__main__":
    sys.exit(main())
