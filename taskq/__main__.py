"""`python -m taskq` is the command `taskq`."""

from __future__ import annotations

from taskq.cli import main

if __name__ == "__main__":  # child processes import the main module under another name
    main()
