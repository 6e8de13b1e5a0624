"""Run RQ's own tests with its workers replaced by `taskq worker`: `make rq-suite`. See README.md beside this file.

pip download rq (its sdist) ──▶ a folder ──▶ its tests with RQ's workers ──▶ those that call a worker, and pass
└──▶ the same with ours          ──▶ N of M
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.redis_server import RedisServer  # noqa: E402
from tests.rq_suite.not_applicable import DIFFERENT, NOT_APPLICABLE  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Times of RQ's tests in which no interpreter of a worker's own can start: file, what it says, what it says here.
LONGER = (
    ("test_job_dependency.py", "True, 0.5]", "True, 15]"),
    ("test_job_dependency.py", "True, 0.75]", "True, 25]"),
    ("fixtures.py", "timeout=2, tries=5", "timeout=50, tries=50"),
    ("test_job.py", "block_seconds = 5", "block_seconds = 20"),
    ("test_registry.py", "failure_ttl=5)", "failure_ttl=60)"),
    ("test_worker_pool.py", "sleep(0.75)", "sleep(6)"),
    ("test_worker_pool.py", "args=(os.getpid(), 0.5)", "args=(os.getpid(), 30)"),
    ("test_worker_pool.py", "long_running_job, 1)", "long_running_job, 15)"),
    ("test_cli.py", "'--schedule-in', '10s'", "'--schedule-in', '20s'"),
    ("test_cli.py", "sleep(11)", "sleep(21)"),
)


def main() -> int:
    """Print the comparison; return 0 when no test differs without a reason."""
    with sources() as folder, RedisServer(folder / "redis") as server:
        theirs = run(folder, server.port, "stock")
        called = {name for name in (folder / "called-stock").read_text().split() if theirs.get(name) == "passed"}
        applicable = sorted(name for name in called if reason(name, NOT_APPLICABLE) is None)
        ours = run(folder, server.port, "taskq", applicable)
    return report(called, applicable, ours)


def reason(name: str, table: Mapping[str, str]) -> str | None:
    """Return what a table says of a test; None: nothing."""
    return next((why for pattern, why in table.items() if re.search(pattern, name)), None)


def report(called: set[str], applicable: list[str], ours: dict[str, str]) -> int:
    """Print what came of it; return 1 when one differs of which docs/moving-from-rq.md says nothing."""
    for why in dict.fromkeys(NOT_APPLICABLE.values()):
        count = sum(reason(name, NOT_APPLICABLE) == why for name in called)
        sys.stdout.write(f"not applicable: {count:3}  {why}\n")
    failed = {name: reason(name, DIFFERENT) for name in applicable if ours.get(name) != "passed"}
    for name, why in failed.items():
        sys.stdout.write(f"differs: {name}: {why or 'UNEXPLAINED'}\n")
    sys.stdout.write(f"{len(applicable) - len(failed)} of {len(applicable)} of RQ's tests pass with taskq's worker, ")
    sys.stdout.write(f"{sum(why is not None for why in failed.values())} differ on purpose\n")
    return int(None in failed.values())


@contextmanager
def sources() -> Iterator[Path]:
    """Give a folder with the sources of the RQ that is installed here."""
    with tempfile.TemporaryDirectory(prefix="rq-suite-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "rq"]
        subprocess.run([*command, f"rq=={version('rq')}", "--dest", name], check=True)
        with tarfile.open(next(folder.glob("rq-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        give_time(next(folder.glob("rq-*/tests")))
        yield folder


def give_time(tests: Path) -> None:
    """Give workers the time that an interpreter takes to start."""
    for name, before, after in LONGER:
        text = (tests / name).read_text()
        if before not in text:
            raise SystemExit(f"{name} of this version of RQ has no {before!r}: see LONGER")
        (tests / name).write_text(text.replace(before, after))


def run(folder: Path, port: int, worker: str, names: list[str] | None = None) -> dict[str, str]:
    """Run RQ's tests, or some of them; return what became of each."""
    source = next(path for path in folder.glob("rq-*") if path.is_dir())
    results = folder / f"{worker}.xml"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(source)]),
        "RQ_SUITE_PORT": str(port),
        "RQ_SUITE_WORKER": worker,
        "RQ_SUITE_CALLED": str(folder / f"called-{worker}"),
    }
    plugins = ("rq_suite_plugin", "no:cacheprovider", "no:randomly", "no:xdist")
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull]
    command += [word for plugin in plugins for word in ("-p", plugin)]
    command += ["--rootdir", str(source), f"--junitxml={results}", "-o", "junit_family=xunit1", "--timeout=240"]
    subprocess.run([*command, *(names or ["tests"])], cwd=source, env=environment, check=False)
    return {_name(case): _outcome(case) for case in ET.parse(results).iter("testcase")}  # noqa: S314  # pytest's own


def _name(case: ET.Element) -> str:
    *_, cls = case.attrib["classname"].split(".")
    return f"{case.attrib['file']}::{cls}::{case.attrib['name']}"


def _outcome(case: ET.Element) -> str:
    return "passed" if len([entry for entry in case if entry.tag in ("failure", "error", "skipped")]) == 0 else "not"


if __name__ == "__main__":
    sys.exit(main())
