"""What is built can be installed and used where the source is not: a wheel, in an environment of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from typing import TYPE_CHECKING

import pytest

from taskq.connect import EXTRAS
from tests.project.commands import ROOT, output_of, run
from tests.project.test_readme import INSTALLS

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds that building and installing may take: pip fetches the build backend and the dependencies.
SETUP_LIMIT = 240

pytestmark = pytest.mark.timeout(SETUP_LIMIT + 60)

PROGRAM = """
from pathlib import Path

import taskq
import taskq.executors


def double(number):
    return 2 * number


if __name__ == "__main__":
    assert "site-packages" in taskq.__file__, taskq.__file__
    assert "site-packages" in taskq.executors.__file__, taskq.executors.__file__
    with taskq.TaskQueue(processes=2) as queue:
        print(taskq.__version__, queue.submit(double, 21).result(), list(queue.map(double, range(3))))
"""


def test_the_cure_names_the_libraries() -> None:
    """What a program says to install are the libraries of the extra themselves, and no text sends to a stranger's name.

    On public indexes `taskq` is another project.
    """
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = pyproject["project"]["optional-dependencies"]["redis"]
    for module in ("redis", "hiredis", "rq"):
        assert shlex.split(EXTRAS[module]) == ["pip", "install", *wanted]
    names = output_of(["git", "ls-files", "*.py", "*.md", "*.toml", "*.yml", "Dockerfile", "contrib"], ROOT).split()
    for name in names:
        text = (ROOT / name).read_text()
        assert not re.search(r"(?:pip3?|uv(?: pip)?) (?:install|add) (?:-\S+ )*['\"]?taskq\b", text), name


def pip(command: list[str], folder: Path) -> None:
    """Run pip, which may need the network."""
    output_of([*command, "--quiet", "--disable-pip-version-check"], folder, limit=SETUP_LIMIT)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as pip does for users, its build backend in an environment of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip([sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with its dependencies into a clean environment; return its folder of programs."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "venv", symlinks=True)
    found = folder / "venv" / "bin"
    pip([*pip_of(found), "install", str(wheel)], folder)
    return found


def pip_of(programs: Path) -> list[str]:
    """Return how pip, this environment's own, is called for another one that has none."""
    return [sys.executable, "-m", "pip", "--python", str(programs / "python")]


def test_wheel_holds_one_package_and_no_more(wheel: Path) -> None:
    """The wheel carries `taskq`, typed, with the executors as files, the licence, and nothing of tests or tools."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"taskq"}
    assert {"taskq/py.typed", "taskq/executors/__init__.py", "taskq/executors/rq/lua/claim.lua"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_source_distribution_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """A wheel built from the source distribution, which carries no link, holds the same files."""
    tools = tmp_path / "tools"
    pip([sys.executable, "-m", "pip", "install", "--target", str(tools), "hatchling"], tmp_path)
    with_tools = {**os.environ, "PYTHONPATH": str(tools)}
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path), "-t"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True, env=with_tools)
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path, filter="data")
    source = tmp_path / archive.name.removesuffix(".tar.gz")
    subprocess.run([*build, "wheel"], cwd=source, check=True, capture_output=True, env=with_tools)
    (built,) = tmp_path.glob("*.whl")
    assert set(zipfile.ZipFile(built).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_wheel_is_kept_private(wheel: Path) -> None:
    """The metadata forbid an upload: both import names belong to others on the public index."""
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    assert "Classifier: Private :: Do Not Upload" in archive.read(metadata).decode().splitlines()


def test_installed_command_tells_its_version(programs: Path, tmp_path: Path) -> None:
    """`taskq --version` works from any folder, with the version that the package has."""
    assert "0.1.0" in output_of([str(programs / "taskq"), "--version"], tmp_path)


def test_installed_package_runs_jobs(programs: Path, tmp_path: Path) -> None:
    """A program finds both packages in site-packages alone, and its jobs run in child processes."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    printed = output_of([str(programs / "python"), "program.py"], tmp_path, path=programs)
    assert printed == "0.1.0 42 [0, 2, 4]\n"


def test_installed_command_runs_a_users_module(programs: Path, tmp_path: Path) -> None:
    """`taskq map` finds the module in the current folder, as `python -m` would."""
    (tmp_path / "mine.py").write_text("def double(number):\n    return 2 * number\n", encoding="utf-8")
    (tmp_path / "items.jsonl").write_text("1\n2\n3\n", encoding="utf-8")
    command = [str(programs / "taskq"), "map", "mine:double", "--jsonl", "items.jsonl"]
    assert output_of(command, tmp_path, path=programs) == "2\n4\n6\n"


@pytest.mark.parametrize("command", [pytest.param(command, id=command.split()[0]) for command in INSTALLS])
def test_the_ways_to_install_work(command: str, tmp_path: Path) -> None:
    """Each command of the README's first block, given in a checkout, puts a `taskq` that runs on the path."""
    tool = command.split(maxsplit=1)[0]
    if tool != "pip" and shutil.which(tool) is None:
        pytest.skip(f"{tool} is not on this machine")
    venv.create(tmp_path / "venv", with_pip=tool == "pip", symlinks=True)
    programs = tmp_path / "venv" / "bin"
    environment = {
        "ADDRESS": f"file://{ROOT}",
        "VIRTUAL_ENV": str(programs.parent),
        "PIPX_HOME": str(tmp_path / "pipx"),
        "PIPX_BIN_DIR": str(programs),
        "PIP_QUIET": "1",
    }
    done = run(["sh", "-c", command], ROOT, path=programs, environment=environment, limit=SETUP_LIMIT)
    assert done.returncode == 0, done.stderr
    assert "0.1.0" in output_of([str(programs / "taskq"), "--version"], tmp_path, path=programs)


def test_nothing_but_the_dependencies_is_installed(programs: Path, tmp_path: Path) -> None:
    """The wheel works with what it names, and that set agrees with itself."""
    assert "No broken requirements" in output_of([*pip_of(programs), "check"], tmp_path)
