"""On a new machine make finds a Python that will do, or says what is missing and how to get it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.project.commands import ROOT, run

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

#: A program that acts as a Python of some version; LACKS is what it cannot import.
FAKE = """#!/bin/sh
case "$2" in
    *print*) echo {version} ;;
    *"< (3, 11)"*) exit {too_old} ;;
    *ensurepip*) exit {lacks_venv} ;;
esac
"""


def find_python(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the finder on a machine that has only the programs of one folder."""
    command = ["/bin/sh", str(ROOT / ".ci/find-python")]
    return run(command, folder, environment={"PATH": str(folder), **environment})


def put(folder: Path, name: str, version: str, *, too_old: bool = False, lacks_venv: bool = False) -> Path:
    """Put a made-up Python into a folder."""
    program = folder / name
    text = FAKE.format(version=version, too_old=int(too_old), lacks_venv=int(lacks_venv))
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    return program


def test_default_python_is_taken_when_it_will_do(tmp_path: Path) -> None:
    """`python3` comes before a newer one beside it: it is the one its user has chosen."""
    wanted = put(tmp_path, "python3", "3.12.1")
    put(tmp_path, "python3.13", "3.13.0")
    assert find_python(tmp_path).stdout == f"{wanted}\n"


def test_old_default_python_is_passed_over(tmp_path: Path) -> None:
    """A machine whose python3 is too old may have a newer one by its full name."""
    put(tmp_path, "python3", "3.9.2", too_old=True)
    wanted = put(tmp_path, "python3.12", "3.12.1")
    assert find_python(tmp_path).stdout == f"{wanted}\n"


def test_python_without_venv_is_passed_over(tmp_path: Path) -> None:
    """A Python that cannot make an environment is left for one that can."""
    put(tmp_path, "python3", "3.11.2", lacks_venv=True)
    wanted = put(tmp_path, "python3.13", "3.13.0")
    assert find_python(tmp_path).stdout == f"{wanted}\n"


def test_no_python_is_told_with_the_cure(tmp_path: Path) -> None:
    """Without any Python the message says which was looked for and how to get one."""
    done = find_python(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no Python >= 3.11" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_old_python_is_told_with_its_version(tmp_path: Path) -> None:
    """With only an old Python the message names it and its version."""
    put(tmp_path, "python3", "3.9.2", too_old=True)
    done = find_python(tmp_path)
    assert done.returncode == 1
    assert "python3 is 3.9.2" in done.stderr


def test_missing_venv_is_told_with_the_cure(tmp_path: Path) -> None:
    """With a good Python that lacks venv the message names the package to install."""
    put(tmp_path, "python3", "3.11.2", lacks_venv=True)
    done = find_python(tmp_path)
    assert done.returncode == 1
    assert "python3 (3.11.2) has no venv" in done.stderr
    assert "apt-get install python3-venv" in done.stderr


def test_named_python_is_the_only_candidate(tmp_path: Path) -> None:
    """PYTHON=... is never silently replaced by another."""
    put(tmp_path, "python3", "3.12.1")
    done = find_python(tmp_path, PYTHON="python3.13")
    assert done.returncode == 1
    assert "python3.13" in done.stderr


def test_this_python_will_do() -> None:
    """The finder accepts the Python that runs the tests."""
    done = run(["/bin/sh", str(ROOT / ".ci/find-python")], ROOT, environment={"PYTHON": sys.executable})
    assert done.stdout == f"{sys.executable}\n"


def side_by_side(folder: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run made-up programs by the script that `make lint` uses; each is a text of sh, called with its own name."""
    for name, text in programs.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        program.chmod(0o755)
    commands = [f"{folder}/{name} {name}" for name in programs]
    return run(["/bin/sh", str(ROOT / ".ci/side-by-side"), *commands], folder)


def test_linters_run_side_by_side_and_are_shown_in_order(tmp_path: Path) -> None:
    """The first waits for the second, and stands before it nevertheless, each under its command."""
    os.mkfifo(tmp_path / "fifo")
    done = side_by_side(tmp_path, one="read line <fifo; echo first $line", two="echo $1 >fifo; echo second")
    assert done.returncode == 0
    assert done.stdout == f"\n---- {tmp_path}/one one ----\nfirst two\n\n---- {tmp_path}/two two ----\nsecond\n"


def test_linter_that_fails_is_shown_last_and_fails_all(tmp_path: Path) -> None:
    """What a failed one said is not above the pages of others, and those have run to their end."""
    done = side_by_side(tmp_path, bad="echo wrong >&2; exit 3", good="echo well")
    assert done.returncode == 1
    assert done.stdout.split() == f"---- {tmp_path}/good good ---- well ---- {tmp_path}/bad bad ---- wrong".split()
