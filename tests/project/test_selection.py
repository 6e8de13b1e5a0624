"""The draw of the tenth that `make check` runs: of every kind, comparable from run to run, and on one executor each."""

from __future__ import annotations

import sys
from collections import Counter

from tests.project.commands import ROOT, output_of
from tests.selection import SLOW, Candidate, tenth
from tests.variants import VARIANTS

#: The schemes of the executors.
SCHEMES = sorted({row.scheme for row in VARIANTS})

#: Modules of tests as they are named, and those of them that run on every executor.
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py"))
CONFORMANCE = [each for each in MODULES if each.startswith("tests/conformance/test_") and each not in SLOW]


def module_of(name: str) -> str:
    """Return the module of a test."""
    return name.partition("::")[0]


def plain(module: str, count: int) -> list[Candidate]:
    """Return so many tests of a module that know no executor."""
    return [Candidate(f"{module}::test_{number}", module) for number in range(count)]


def on_each(module: str, count: int) -> list[Candidate]:
    """Return so many tests of a module on each executor."""
    return [
        Candidate(f"{module}::test_{number}[{scheme}]", module, scheme) for number in range(count) for scheme in SCHEMES
    ]


def test_every_module_has_its_share() -> None:
    """A tenth of each module is drawn, a fourth of the core's, and one test of a small one; none of a slow one."""
    sizes = {module: 1 + 7 * number for number, module in enumerate(MODULES)}
    drawn = Counter(module_of(name) for name in tenth(test for each in MODULES for test in plain(each, sizes[each])))
    of = {each: 4 if each.startswith("tests/unit/") else 10 for each in MODULES}
    assert drawn == {each: max(1, round(sizes[each] / of[each])) for each in MODULES if each not in SLOW}


def test_a_module_runs_on_one_executor() -> None:
    """What is drawn of a module of several executors shares one of them, and each has its part of the modules."""
    drawn = tenth(test for module in CONFORMANCE for test in on_each(module, 50))
    executors = {
        module: {name.partition("[")[2] for name in drawn if module_of(name) == module} for module in CONFORMANCE
    }
    assert [len(found) for found in executors.values()] == [1] * len(CONFORMANCE)
    modules = Counter(next(iter(found)) for found in executors.values())
    assert len(modules) == len(SCHEMES)
    assert min(modules.values()) >= len(CONFORMANCE) / len(SCHEMES) / 2
    assert len(drawn) == 10 * len(CONFORMANCE)


def test_tests_without_executor_are_drawn_beside_those_with() -> None:
    """A module of both kinds has a share of both."""
    drawn = tenth([*plain("tests/a.py", 20), *on_each("tests/a.py", 50)])
    assert Counter("[" in name for name in drawn) == {True: 10, False: 2}


def test_the_draw_is_the_same_in_any_order() -> None:
    """Order of collection makes no difference."""
    found = [test for module in CONFORMANCE for test in [*plain(module, 25), *on_each(module, 9)]]
    assert tenth(found) == tenth(reversed(found))


def test_a_new_test_moves_no_more_than_one() -> None:
    """When one test is added, at most one that was drawn is no longer."""
    found = [*plain("tests/a.py", 35), *plain("tests/b.py", 35)]
    before = tenth(found)
    assert len(before) == 8
    for number in range(10):
        assert len(before - tenth([*found, Candidate(f"tests/a.py::new_{number}", "tests/a.py")])) <= 1


def test_slow_modules_exist() -> None:
    """Each slow module is a file, and its folder has others: no folder is left out as a whole."""
    assert set(MODULES) >= SLOW
    folders = Counter(module.rpartition("/")[0] for module in MODULES)
    for folder, count in Counter(module.rpartition("/")[0] for module in SLOW).items():
        assert count < folders[folder], folder


def test_the_option_draws_from_what_is_collected() -> None:
    """`--tenth` runs a module on one executor, nothing that is skipped there, and no slow module."""
    modules = ["tests/conformance/test_durable.py", "tests/unit/test_ids.py", min(SLOW)]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "--tenth", *modules]
    drawn = [line for line in output_of(command, ROOT, limit=200).splitlines() if "::" in line]
    assert {module_of(name) for name in drawn} == set(modules[:2])
    durable = [name for name in drawn if module_of(name) == modules[0]]
    assert len(durable) > 1
    assert len({scheme for name in durable for scheme in SCHEMES if f"[{scheme}" in name}) == 1
    assert not any("[local" in name for name in durable)
