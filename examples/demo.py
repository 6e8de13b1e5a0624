"""`make demo`: measure every file of the standard library on all cores, and in one process to compare.

    the files of the standard library ──▶ build/demo/files.jsonl, a path on each line
        taskq map examples.stdlib_metrics:measure  ──▶ build/demo/measured.jsonl   the real command, all cores
        python -m examples.stdlib_metrics          ──▶ build/demo/serial.jsonl     one process, a plain loop
    both timed from start to exit ──▶ the speed; what they wrote ──▶ the tables

With a folder as argument, the Python files below it instead.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.stdlib_metrics import standard_library
from taskq import TaskQueue

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]

#: Below the checkout; `make clean` removes it.
FOLDER = Path("build/demo")
FILES, MEASURED, SERIAL = FOLDER / "files.jsonl", FOLDER / "measured.jsonl", FOLDER / "serial.jsonl"

#: Rows of the table of modules: a screenful.
HARDEST = 15

#: Columns that a terminal needs for all of the table's.
WIDE = 100

#: The numbers of the table of modules, those first that a narrow terminal shows too.
COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], int]], ...] = (
    ("ways", lambda row: row["hardest"]["complexity"]),
    ("longest", lambda row: row["longest"]["lines"]),
    ("lines", lambda row: row["lines"]),
    ("functions", lambda row: row["functions"]),
    ("branches", lambda row: row["branches"]),
)

#: Installed packages are not of the standard library, though they may lie in its folder.
NOT_STANDARD = {"site-packages", "dist-packages"}

#: `taskq map` exits so when all items ran and some failed; there are files that are bad on purpose.
SOME_FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one of the two ways has written, and the seconds from its start to its exit."""

    rows: list[dict[str, Any]]
    seconds: float

    @property
    def measured(self) -> list[dict[str, Any]]:
        """Return the rows of the files that could be measured."""
        return [row for row in self.rows if "error" not in row]


def main() -> None:
    """Write the list of files, run both ways, and show what they found."""
    console = Console()
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else standard_library()
    paths = source_files(folder)
    (ROOT / FOLDER).mkdir(parents=True, exist_ok=True)
    (ROOT / FILES).write_text("".join(f"{json.dumps(path)}\n" for path in paths))
    size = sum(len(Path(path).read_bytes()) for path in paths)  # both ways then find the files in memory
    console.print(f"\n[bold]{len(paths):,} source files[/], {size / 1e6:.1f} MB, in {folder}", highlight=False)
    load = os.getloadavg()[0]
    parallel = run_taskq(console)
    serial = run_serial(console)
    show_hardest(console, parallel, folder)
    show_failures(console, parallel, paths, folder)
    show_speed(console, parallel, serial, load)


def source_files(folder: Path) -> list[str]:
    """List the Python files below a folder, without those of installed packages, in a settled order."""
    found = (path for path in folder.rglob("*.py") if path.is_file())
    return sorted(str(path) for path in found if NOT_STANDARD.isdisjoint(path.relative_to(folder).parts))


# --- the two ways


def run_taskq(console: Console) -> Run:
    """Run the real command, as it can be typed; its progress bar goes to this terminal."""
    arguments = ["map", "examples.stdlib_metrics:measure", "--jsonl", str(FILES)]
    show_command(console, f"taskq {' '.join(arguments)} > {MEASURED}")
    return timed([str(Path(sys.executable).with_name("taskq")), *arguments], MEASURED)


def run_serial(console: Console) -> Run:
    """Run the same function over the same lines in one plain loop of one process."""
    show_command(console, f"python -m examples.stdlib_metrics < {FILES} > {SERIAL}")
    with console.status("the same in one process, to compare"):
        return timed([sys.executable, "-m", "examples.stdlib_metrics"], SERIAL)


def show_command(console: Console, command: str) -> None:
    """Print a command as it can be typed, in one line however narrow the terminal."""
    console.print(f"\n$ {command}", style="bold", highlight=False, soft_wrap=True)


def timed(command: list[str], output: Path) -> Run:
    """Run a command from start to exit, and read the lines that it has written."""
    with (ROOT / FILES).open("rb") as lines, (ROOT / output).open("wb") as results:
        began = time.perf_counter()
        code = subprocess.run(command, cwd=ROOT, stdin=lines, stdout=results, check=False).returncode
        seconds = time.perf_counter() - began
    if code not in {0, SOME_FAILED}:
        sys.exit(f"{' '.join(command)} exited {code}")
    return Run(rows=[json.loads(line) for line in (ROOT / output).open(encoding="utf-8")], seconds=seconds)


# --- what they found


def show_hardest(console: Console, run: Run, folder: Path) -> None:
    """Print the modules with the hardest functions; a narrow terminal gets fewer columns."""
    whose = f"Python {platform.python_version()}" if folder == standard_library() else str(folder)
    table = Table(title=f"\nThe hardest modules of {whose}")
    table.add_column("module", style="cyan")
    table.add_column("hardest function")
    numbers = COLUMNS if console.width >= WIDE else COLUMNS[:3]
    for heading, _ in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    ranked = sorted((row for row in run.measured if row["hardest"]), key=hardness, reverse=True)
    for row in ranked[:HARDEST]:
        texts = (one_line(row["module"]), one_line(row["hardest"]["name"]))
        table.add_row(*texts, *(f"{number(row):,}" for _, number in numbers))
    console.print(table)
    console.print("ways through the hardest function (cyclomatic complexity), lines of the longest", style="dim")


def one_line(text: str) -> Text:
    """Return a text that is cut, rather than wrapped, when its column gets too narrow for it."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def hardness(row: dict[str, Any]) -> tuple[int, int]:
    """Order modules by their hardest function, then by all they hold."""
    return row["hardest"]["complexity"], row["complexity"]


def show_failures(console: Console, run: Run, paths: list[str], folder: Path) -> None:
    """Print each file that could not be measured, with the reason."""
    failed = [(path, row["error"]) for path, row in zip(paths, run.rows, strict=True) if "error" in row]
    if not failed:
        return
    files = "1 file" if len(failed) == 1 else f"{len(failed)} files"
    purpose = ", test data that is bad on purpose" if folder == standard_library() else ""
    table = Table(title=f"\n{files} could not be measured{purpose}")
    table.add_column("file", style="cyan", no_wrap=True)
    table.add_column("reason")
    for path, error in failed:
        table.add_row(str(Path(path).relative_to(folder)), one_line(f"{error['type']}: {error['message']}"))
    console.print(table)


def show_speed(console: Console, parallel: Run, serial: Run, load: float) -> None:
    """Print how long each way took from start to exit, and that both have found the same."""
    same = parallel.measured == serial.measured and len(parallel.rows) == len(serial.rows)
    with TaskQueue() as queue:
        processes = queue.processes
    table = Table(title="\nSpeed, from start to exit", caption=f"load average when it began: {load:.1f}")
    for heading in ("", "seconds", "files/s", "lines/s"):
        table.add_column(heading, justify="right" if heading else "left")
    lines = sum(row["lines"] for row in parallel.measured)
    ways = {f"taskq map --processes {processes}": parallel, "one process, a plain loop": serial}
    for name, run in ways.items():
        rates = (f"{count / run.seconds:,.0f}" for count in (len(run.rows), lines))
        table.add_row(name, f"{run.seconds:.2f}", *rates)
    console.print(table)
    ratio = serial.seconds / parallel.seconds
    console.print(f"\n[bold]{ratio:.2f} times the speed of one process[/]", end="", highlight=False)
    console.print("; both found the same.\n" if same else "; [red]but they disagree, which is a bug.\n")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
