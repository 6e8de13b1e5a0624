"""Print the SHA-256 of every file below a folder, as `sha256sum --check` reads it, using all cores.

For example `python examples/checksum_tree.py ~/photos > photos.sha256`; without a folder, the current one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from taskq import TaskQueue


def checksum(path: str) -> str:
    """Read one file, whatever its size, and return its line: the SHA-256 in hexadecimal, then the name."""
    with Path(path).open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path}"


def files_below(folder: Path) -> list[str]:
    """List the regular files of a tree in a settled order."""
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Print a line for each file that could be read, and tell of each that could not."""
    paths = files_below(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    failed = 0
    with TaskQueue() as queue:  # one child process for each CPU
        # In the order they get done, so that a huge file holds up no other.
        for line in queue.imap_unordered(checksum, paths, progress=True, return_exceptions=True):
            if isinstance(line, BaseException):
                failed += 1
                print(line, file=sys.stderr)
            else:
                sys.stdout.buffer.write(os.fsencode(f"{line}\n"))  # bytes, for a file name need not be text
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
