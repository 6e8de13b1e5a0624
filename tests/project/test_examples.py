"""The examples do what they say, run as a reader would run them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from examples.stdlib_metrics import measure, standard_library
from tests.project.commands import ROOT, output_of, run

SOURCE = '''
import os

if os.name == "posix":  # a branch of the module, of no function
    SEPARATOR = "/"


def straight():
    return 1


class Shop:
    async def sell(self, items, *, strict=False):
        """2 loops, 1 if and 1 elif, 1 `and` and 1 `or`, 1 except, 1 conditional expression: 8 forks."""
        for item in items:
            while item:
                if item and strict or item.odd:
                    break
                elif item.even:
                    continue
        try:
            return 1 if items else 0
        except KeyError:
            return None

        def inner(values):
            return [value for value in values if value if value.good]


def chosen(value):
    match value:
        case 1 | 2:
            return "low"
        case [first, *_] if first:
            return "list"
        case other if other:
            return "true"
        case _:
            return "else"
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with the examples, so that what they write is not left in the real one."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


# --- the metrics that `make demo` computes


def test_metrics_count_as_documented(tmp_path: Path) -> None:
    """Each kind of fork counts once, in its own function only."""
    path = tmp_path / "shop.py"
    path.write_text(SOURCE)
    assert measure(str(path)) == {
        "path": str(path),
        "module": "shop",
        "lines": len(SOURCE.splitlines()),
        "functions": 4,
        "branches": 1 + 0 + 8 + 3 + 3,
        "complexity": 1 + 9 + 4 + 4,
        "longest": {"name": "Shop.sell", "lines": 15},
        "hardest": {"name": "Shop.sell", "complexity": 9},
    }


def test_metrics_of_an_empty_file(tmp_path: Path) -> None:
    """A file without functions has no longest and no hardest one."""
    path = tmp_path / "__init__.py"
    path.touch()
    row = measure(str(path))
    assert (row["functions"], row["longest"], row["hardest"]) == (0, None, None)


BAD_SOURCES = (b"def broken(:\n", b"# coding: none-such\n", b"caf\xe9 = 1\n", b"a = '\0'\n")


@pytest.mark.parametrize("source", BAD_SOURCES)
def test_metrics_raise_for_what_is_not_python(tmp_path: Path, source: bytes) -> None:
    """A bad file is that item's error: SyntaxError, or ValueError for null bytes before Python 3.12."""
    path = tmp_path / "bad.py"
    path.write_bytes(source)
    with pytest.raises((SyntaxError, ValueError)):
        measure(str(path))


def test_metrics_name_modules_of_the_standard_library() -> None:
    """A module has the name by which it is imported; a package that of its folder."""
    folder = standard_library()
    paths = {"json.decoder": folder / "json/decoder.py", "json": folder / "json/__init__.py"}
    assert {name: measure(str(path))["module"] for name, path in paths.items()} == {name: name for name in paths}


def test_metrics_can_be_sent_as_json() -> None:
    """What `measure` returns survives JSON unchanged: the rows of the demo are its results."""
    row = measure(str(standard_library() / "json/decoder.py"))
    assert json.loads(json.dumps(row)) == row


# --- the programs


def test_demo(checkout: Path) -> None:
    """The demo runs the real command, shows the tables, the bad file with its reason, and the speed."""
    sources = checkout / "sources"
    shutil.copytree(standard_library() / "json", sources / "json")
    (sources / "bad.py").write_text("def broken(:\n")
    printed = output_of([sys.executable, "-m", "examples.demo", str(sources)], checkout)
    assert "$ taskq map examples.stdlib_metrics:measure --jsonl build/demo/files.jsonl" in printed
    for shown in (
        "JSONObject",
        "SyntaxError: ",
        "1 file could",
        "times the speed of one process",
    ):
        assert shown in printed
    rows = (checkout / "build/demo/measured.jsonl").read_text().splitlines()
    assert len(rows) == len(list(sources.rglob("*.py")))


def test_checksum_tree(checkout: Path) -> None:
    """Each file's line holds its SHA-256 and name, be the file empty or its name no text."""
    tree = checkout / "tree"
    (tree / "deep").mkdir(parents=True)
    contents = {b"empty": b"", b"deep/large": os.urandom(3_000_000), b"caf\xe9": b"latin"}
    for name, content in contents.items():
        Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).write_bytes(content)
    command = [sys.executable, "examples/checksum_tree.py", "tree"]
    done = run(["sh", "-c", '"$@" > sums && sha256sum --check --quiet sums', "sh", *command], checkout)
    assert done.returncode == 0, done.stderr
    sums = (checkout / "sums").read_bytes().splitlines()
    wanted = [hashlib.sha256(content).hexdigest().encode() + b"  tree/" + name for name, content in contents.items()]
    assert sorted(sums) == sorted(wanted)


def test_retry_flaky_api(checkout: Path) -> None:
    """All cities are fetched in spite of refusals and a timeout, each in as many attempts as were drawn."""
    printed = output_of([sys.executable, "examples/retry_flaky_api.py"], checkout)
    attempts = {line.split()[0]: int(line.split()[-1]) for line in printed.splitlines()}
    several = {city: count for city, count in attempts.items() if count > 1}
    assert len(attempts) == 10
    assert several == {"Bogota": 2, "Cairo": 3, "Izmir": 3, "Lima": 2}


def test_fleet_works_on_one_machine(checkout: Path) -> None:
    """Without a URL the fleet's program runs on this machine alone; a file that is no Python is counted, not fatal."""
    folder = checkout / "sources"
    folder.mkdir()
    (folder / "shop.py").write_text(SOURCE)
    (folder / "bad.py").write_text("def")
    printed = output_of([sys.executable, "-m", "examples.fleet", str(folder)], checkout)
    assert "    9  shop: Shop.sell\n" in printed
    assert "1 files in" in printed
    assert "; 1 are no Python\n    1  on " in printed
