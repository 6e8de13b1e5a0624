"""The bench measures, computes its ratios rightly, and writes what it promises."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from bench import goals, report
from bench.__main__ import results_name
from bench.measure import Case, Record, Settings, plan
from bench.suite import SUITES, load_suite
from bench.summary import Summary
from bench.tables import number, tables
from tests.project.commands import ROOT, output_of, run

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = load_suite("local")
#: Left out loudly, as all tests that need a server.
NEEDS_REDIS = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not on this machine")
SETTINGS = Settings(scale="tiny", processes=2, rounds=2, repeats_s=0.0, steps_per_ms=10_000)


def record(test: str, system: str, way: str, foreign: float = 0.0, **figures: float) -> Record:
    """Make a record as if measured."""
    return Record(case=Case(test=test, system=system, way=way), round=0, figures={**figures}, foreign=foreign)


def test_only_a_whole_run_is_published() -> None:
    """Results get the name that is published only with every system and every test, at full scale."""
    systems, tests = tuple(LOCAL.systems), tuple(LOCAL.tests)
    assert results_name(LOCAL, systems, tests, "full") == "latest"
    assert results_name(LOCAL, systems[:-1], tests, "full") == "partial"
    assert results_name(LOCAL, systems, tests[1:], "full") == "partial"
    assert results_name(LOCAL, systems, tests, "quick") == "partial"


def test_a_run_prints_tables_and_writes_json_markdown_and_plot(tmp_path: Path) -> None:
    """The smallest run of taskq and Pool succeeds in every measurement and delivers all its outputs."""
    command = [sys.executable, "-m", "bench", "--scale", "tiny", "--rounds", "1", "--repeats", "0"]
    command += ["--only", "taskq,pool", "--tests", "noop-dict,submit,latency,cpu,lazy,start,kill-running"]
    done = run([*command, "--out", str(tmp_path), "--name", "small"], ROOT, limit=170.0)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout + done.stderr
    data = json.loads((tmp_path / "small.json").read_text(encoding="utf-8"))
    assert not [record for record in data["records"] if record["error"]]
    assert data["machine"]["cpus"] >= 1
    assert data["settings"]["processes"] == 2
    assert {figure["system"] for figure in data["figures"]} == {"taskq", "pool"}
    ratio = next(verdict for verdict in data["goals"] if verdict["goal"]["test"] == "submit")
    assert ratio["ratio"] == pytest.approx(ratio["ours"] / ratio["theirs"])
    for words in ("No-op submit + result", "multiprocessing.Pool", "hangs, no error", "Goals: "):
        assert words in done.stdout
        assert words.split(":")[0] in (tmp_path / "small.md").read_text(encoding="utf-8")
    if importlib.util.find_spec("matplotlib"):
        assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")
    else:
        assert "matplotlib is not installed" in done.stderr
    shown = output_of([sys.executable, "-m", "bench", "--show", str(tmp_path / "small.json")], ROOT)
    assert "No-op submit + result" in shown


@pytest.mark.parametrize(
    ("suite", "only", "words"),
    [
        pytest.param(
            *("redis", "taskq,taskq-signed,rq", ("Redis commands per job", "taskq (signed)", "rq worker-pool")),
            marks=NEEDS_REDIS,
        ),
        ("sqlite", "taskq,taskq-signed", ("submit in bulk, FULL", "taskq (signed)", "Claim one job while few")),
    ],
)
def test_a_run_over_queues_measures_all_tests(suite: str, only: str, words: tuple[str, ...], tmp_path: Path) -> None:
    """The smallest run of each suite of queues succeeds in every measurement of every test and delivers its outputs."""
    command = [sys.executable, "-m", "bench", suite, "--scale", "tiny", "--rounds", "1", "--repeats", "0"]
    done = run([*command, "--only", only, "--out", str(tmp_path), "--name", "small"], ROOT, limit=110.0)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "small.json").read_text(encoding="utf-8"))
    assert not [record for record in data["records"] if record["error"]], done.stderr
    assert {record["case"]["test"] for record in data["records"]} == set(load_suite(suite).tests)
    assert data["suite"] == suite
    for word in words:
        assert word in done.stdout
    shown = output_of([sys.executable, "-m", "bench", "--show", str(tmp_path / "small.json")], ROOT)
    assert words[0] in shown


@pytest.mark.parametrize(
    "arguments",
    [["--tests", "no-such"], ["--only", "pool,nobody"], ["--rounds", "0"], ["redis", "--only", "pool"], ["no-suite"]],
)
def test_a_wrong_option_is_refused_with_the_known_names(arguments: list[str], tmp_path: Path) -> None:
    """A name that the bench does not know ends in exit code 2 and one message, not in a traceback."""
    done = run([sys.executable, "-m", "bench", "--out", str(tmp_path), *arguments], ROOT)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_rounds_alternate_over_the_systems() -> None:
    """Within a test every case comes once a round, before any comes again."""
    steps = [(turn, case.system, case.way) for turn, case in plan(LOCAL, ["submit"], ["pool", "taskq"], SETTINGS)]
    order = [("taskq", "submit"), ("pool", "apply_async")]
    assert steps == [(turn, *case) for turn in range(2) for case in order]


def test_goals_compare_with_the_best_way_of_the_named_peer() -> None:
    """Ratio, bound and verdict follow from the medians of the same run."""
    summary = Summary(
        LOCAL,
        [
            record("noop-int", "pool", "imap_unordered c=64", tasks_per_s=2e6),
            record("noop-int", "pool", "imap_unordered c=1024", tasks_per_s=8e6),
            record("noop-int", "taskq", "map", tasks_per_s=5e6),
            record("noop-int", "taskq", "map", tasks_per_s=7e6),
            record("latency", "executor", "submit", p99_us=400.0),
            record("latency", "taskq", "submit", p99_us=500.0),
            record("lazy", "taskq", "map", grew_mb=3.0),
        ],
    )
    found = {(verdict.goal.text, verdict.goal.factor): verdict for verdict in goals.verdicts(summary)}
    best = found["no-op ints, map", 0.75]
    assert (best.ours, best.theirs, best.ratio, best.met) == (6e6, 8e6, 0.75, True)
    assert best.peer == "multiprocessing.Pool imap_unordered c=1024"
    assert found["no-op ints, map", 2.0].ratio == 3.0
    assert not found["latency p99, 3 ms apart", 1.0].met
    assert (found["lazy input, map", 1.0].bound, found["lazy input, map", 1.0].met) == (
        20.0,
        True,
    )
    assert len(found) == 4


def test_disturbed_rounds_count_only_where_there_are_no_others() -> None:
    """A round in which others used the machine is left out of the median, unless all were disturbed."""
    case = Case(test="submit", system="pool", way="apply_async")
    busy = record("submit", "pool", "apply_async", foreign=0.9, tasks_per_s=1.0)
    calm = record("submit", "pool", "apply_async", tasks_per_s=9.0)
    both, alone = (
        Summary(LOCAL, [busy, calm]).spread(case, "tasks_per_s"),
        Summary(LOCAL, [busy]).spread(case, "tasks_per_s"),
    )
    assert both is not None
    assert alone is not None
    assert (both.median, both.rounds, alone.median) == (9.0, 1, 1.0)
    assert Summary(LOCAL, [busy, calm]).disturbed() == (1, 2)


def test_a_failed_measurement_stands_in_the_table_with_its_error() -> None:
    """A system that fails is shown as failed, and its error is kept."""
    broken = Record(case=Case(test="submit", system="mpire", way="apply_async"), round=0, error="it broke")
    summary = Summary(LOCAL, [broken])
    assert "failed" in [cell for table in tables(summary) for row in table.rows for cell in row]
    assert summary.failures() == {broken.case: "it broke"}


def test_saved_records_come_back_equal(tmp_path: Path) -> None:
    """What `save` writes, `read` returns."""
    records = [record("submit", "pool", "apply_async", tasks_per_s=9.0)]
    report.save(tmp_path / "run.json", {"commit": None}, records)
    facts, back = report.read(tmp_path / "run.json")
    assert back == records
    assert facts["commit"] is None


@pytest.mark.parametrize(
    ("suite", "system"), [(suite, system) for suite in SUITES for system in load_suite(suite).systems]
)
def test_every_adapter_names_only_known_tests(suite: str, system: str) -> None:
    """The ways of each system are of tests of its suite."""
    assert set(load_suite(suite).system(system).ways) <= set(load_suite(suite).tests)


@pytest.mark.parametrize("suite", SUITES)
def test_goals_and_panels_name_what_there_is(suite: str) -> None:
    """Every goal and panel is of a test with that figure, of systems with that way."""
    known = load_suite(suite)
    for named in (*known.goals, *known.panels):
        assert known.tests[named.test].metric(named.metric)
    for goal in known.goals:
        assert goal.way in known.system(goal.system).ways[goal.test]
        assert set(goal.peers) <= set(known.systems)


@pytest.mark.parametrize(
    ("value", "text"),
    [(8_290_000.0, "8.29M"), (65_918.0, "65,918"), (512.4, "512"), (0.984, "0.98"), (20.0, "20.00")],
)
def test_figures_are_written_to_be_read_at_a_glance(value: float, text: str) -> None:
    """Three digits or so, whatever the size."""
    assert number(value) == text
