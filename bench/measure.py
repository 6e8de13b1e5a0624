"""Run measurements: each in a process of its own, in alternating rounds, again when other load disturbed it.

plan: test -> round -> case (A B C, A B C, ...)
  -> python bench/child.py MODULE CLASS WAY TEST ... in a session of its own -> figures as JSON in a file
  -> everything that it started is ended -> CPU time of the machine minus ours = foreign load -> Record
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import load_watch, work

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.suite import Suite
    from bench.system import System

ROOT = Path(__file__).resolve().parent.parent
#: Share of one core that others may use during a measurement before it is done again.
FOREIGN_LIMIT = 0.06
#: CPU seconds of others that are always forgiven: the kernel counts in ticks of 10 ms.
FOREIGN_TICKS_S = 0.03
#: Times that a disturbed measurement is tried.
TRIES = 3
#: Seconds that a measurement may last.
LIMIT_S = 90.0
#: numpy comes with the plot only; joblib and mpire import it where they find it, which slows their start.
NO_NUMPY = 'raise ImportError("the bench hides numpy from what it measures")\n'
#: Seconds in which killed processes must be gone.
GONE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to measure."""

    test: str
    system: str
    way: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measurement. `foreign`: the share of a core that others used meanwhile, None where unknown."""

    case: Case
    round: int
    figures: dict[str, float | str] = field(default_factory=dict)
    error: str | None = None
    foreign: float | None = None
    elapsed_s: float = 0.0
    tries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for all measurements of a run."""

    scale: str
    processes: int
    rounds: int
    #: Seconds that repeats of disturbed measurements, and waits for quiet before them, may take in all.
    repeats_s: float
    steps_per_ms: int


class Budget:
    """Seconds that may be spent on repeats."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.left_s = 0.0

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Take the time of the block from the budget."""
        before = time.monotonic()
        yield
        self.left_s -= time.monotonic() - before


def plan(suite: Suite, tests: Iterable[str], systems: Iterable[str], settings: Settings) -> list[tuple[int, Case]]:
    """List every measurement in its order: rounds alternate over the systems, test by test."""
    chosen = [(key, suite.system(key)) for key in suite.systems if key in set(systems)]
    steps = []
    for key, test in suite.tests.items():
        if key in set(tests):
            cases = [Case(test=key, system=name, way=way) for name, kind in chosen for way in kind.ways.get(key, ())]
            steps += [(turn, case) for turn in range(_rounds(test.rounds, settings)) for case in cases]
    return steps


def run(suite: Suite, steps: Sequence[tuple[int, Case]], settings: Settings) -> Iterator[Record]:
    """Measure one after the other. Call this in a process of its own: it adopts orphaned descendants."""
    load_watch.adopt_orphans()
    budget = Budget()
    for turn, case in steps:
        # earned step by step: else the first tests would spend all of it
        budget.left_s += settings.repeats_s / len(steps)
        yield _measure_undisturbed(suite, turn, case, settings, budget)


def steps_per_ms() -> int:
    """Measure how many steps of `work.spin` take 1 ms here, at this machine's best speed."""
    steps, best = 10_000, float("inf")
    for _ in range(60):
        before = time.thread_time()
        work.spin(steps)
        best = min(best, time.thread_time() - before)
    return int(steps * 0.001 / best)


def python_of(system: type[System]) -> str:
    """Return the Python that has this system's library."""
    return str(ROOT / system.environment / "bin" / "python") if system.environment else sys.executable


def is_installed(system: type[System]) -> bool:
    """Return whether this system can be measured here."""
    package = system.imports.partition(".")[0]
    if not system.environment:
        return importlib.util.find_spec(package) is not None
    return any((ROOT / system.environment).glob(f"lib/python3*/site-packages/{package}/__init__.py"))


def _rounds(wanted: int | None, settings: Settings) -> int:
    """Return the rounds of a test; only a whole run gives it more than the command line says."""
    if wanted is None:
        return settings.rounds
    return wanted if settings.scale == "full" else min(wanted, settings.rounds)


def _measure_undisturbed(suite: Suite, turn: int, case: Case, settings: Settings, budget: Budget) -> Record:
    """Measure, and again while other load disturbs it and the budget lasts; return the least disturbed."""
    tried = [_measure_watched(suite, turn, case, settings)]
    while _disturbed(tried[-1]) and len(tried) < TRIES and budget.left_s > 0:
        with budget.spending():
            load_watch.wait_until_quiet()
            tried.append(_measure_watched(suite, turn, case, settings))
    best = min(tried, key=lambda record: record.foreign or 0.0)
    return replace(best, tries=len(tried))


def _measure_watched(suite: Suite, turn: int, case: Case, settings: Settings) -> Record:
    """Measure once, and how much CPU time others used meanwhile."""
    watch = load_watch.LoadWatch()
    figures, error = _measure_once(suite, case, settings)
    foreign, elapsed = watch.foreign(), watch.elapsed()
    return Record(case=case, round=turn, figures=figures, error=error, foreign=foreign, elapsed_s=elapsed)


def _disturbed(record: Record) -> bool:
    if record.foreign is None:
        return False
    return record.foreign > FOREIGN_LIMIT + FOREIGN_TICKS_S / record.elapsed_s


def _measure_once(suite: Suite, case: Case, settings: Settings) -> tuple[dict[str, float | str], str | None]:
    """Run one child; return its figures, or an error in one line."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder, Path(folder, "output").open("w+") as output:
        result = Path(folder, "figures.json")
        Path(folder, "numpy.py").write_text(NO_NUMPY, encoding="ascii")
        process = _start(suite, case, settings, result, output.fileno())
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            return {}, f"no result in {LIMIT_S:g} s"
        finally:
            _end_everything(process)
        if result.exists():
            return json.loads(result.read_text(encoding="utf-8")), None
        output.seek(0)
        last = [line.strip() for line in output if line.strip()][-1:] or [f"exit {process.returncode}"]
        return {}, last[0][:200]


def _start(suite: Suite, case: Case, settings: Settings, result: Path, output: int) -> subprocess.Popen[bytes]:
    # -P: the folder of the script, bench/, must not stand on the path, where its modules would shadow others
    argv = [python_of(suite.system(case.system)), "-P", str(ROOT / "bench" / "child.py")]
    argv += [*suite.systems[case.system], case.way, case.test, settings.scale, str(settings.processes), str(result)]
    environment = {
        **os.environ,
        "TMPDIR": str(result.parent),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(result.parent)]),
        "BENCH_STEPS": str(settings.steps_per_ms),
        "BENCH_STARTED": repr(time.monotonic()),
    }
    # a file for the output, not a pipe: a process that outlives the measurement would hold a pipe open
    return subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )


def _end_everything(process: subprocess.Popen[bytes]) -> None:
    """End the child and all that it left: first gently, so that resource trackers tidy up, then for good."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + GONE_S
        while load_watch.children_left(process) and time.monotonic() < end:
            load_watch.signal_children(process, signum)
            time.sleep(0.01)
