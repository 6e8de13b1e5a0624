"""The tests that run: which are left out, and which share what is costly to start.

    all that pytest has collected
      ├─ without `-m soak`: not the long runs
      ├─ without `--whole`: of tests that are repeated on several executors, those that tell something new there
      └─ with `--tenth`:    the tenth of `make check`

The tenth is drawn by the names of the tests: two runs compare, and a test that is added hardly changes the draw.
Each module of tests has its share in it. A worker costs as much to start as ten tests on it, so a module that runs on
several executors runs on one of them, which its name draws, and there with a larger share.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

from tests.variants import BY_ONE_METHOD, ON_VALKEY, VARIANTS, Variant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: The checkout.
ROOT = Path(__file__).parents[1]

#: How many repeated tests one is drawn of.
ONE_OF = 8

#: The shares of a module in the tenth, one in so many: of its tests on the executor that is drawn, of tests of the
#: core, which cost next to nothing, and of all others.
ON_ITS_EXECUTOR = 5
OF_THE_CORE = 4
OF_OTHERS = 10

#: The modules that have no part in the tenth, since each of their tests costs seconds of CPU time: campaigns of
#: kills and cuts, installations, measurements, many commands in a row, repetitions of others. They are left to
#: `make test`.
SLOW = frozenset(
    {
        *(f"tests/cli/test_{name}.py" for name in ("interrupt", "jobs", "map_store", "submit_wait", "transfer")),
        "tests/conformance/test_signed.py",
        *(f"tests/faults/test_{name}.py" for name in ("kills", "leaks")),
        *(f"tests/faults/durable/test_{name}.py" for name in ("burst", "clock", "left", "machines", "network")),
        *(f"tests/faults/durable/test_{name}.py" for name in ("promises", "redis_away", "worker_death")),
        *(f"tests/fuzz/sqlite/test_{name}.py" for name in ("columns", "side_files")),
        *(f"tests/project/test_{name}.py" for name in ("packaging", "walk")),
        *(f"tests/rq/test_{name}.py" for name in ("acl_conformance", "keys")),
        *(f"tests/sqlite/test_{name}.py" for name in ("kills", "power_cut")),
        "tests/unit/test_linear.py",
    }
)


def selected(config: pytest.Config, items: list[pytest.Item]) -> list[pytest.Item]:
    """Return those of the collected tests that run."""
    if "soak" not in (config.option.markexpr or ""):
        items = [item for item in items if not item.get_closest_marker("soak")]
    if not config.getoption("--whole"):
        seed = 0 if config.getoption("--tenth") else config.getoption("randomly_seed", 0)
        items = [item for item in items if _has_its_variant(item) and _tells_something(item, seed)]
    if config.getoption("--tenth"):
        names = tenth(_candidates(items))
        items = [item for item in items if item.nodeid in names]
    return items


def row_of(item: pytest.Item) -> Variant | None:
    """Return the executor on which a test runs; CPython's own tests have it in their class."""
    if not isinstance(item, pytest.Function):
        return None
    row = item.callspec.params.get("variant") if hasattr(item, "callspec") else None
    row = row or getattr(item.cls, "row", None)
    return row if isinstance(row, Variant) else None


def shared_by(item: pytest.Item) -> str:
    """Name the tests that share queues and workers, so that one process runs them: a module's on one variant."""
    row = row_of(item)
    return f"{module_of(item)}-{row.name}" if row is not None else module_of(item)


def module_of(item: pytest.Item) -> str:
    """Return the path of the test's module, as in its name."""
    return item.nodeid.partition("::")[0]


def reasons_to_skip(item: pytest.Item) -> Iterator[str]:
    """Yield what the test needs and its executor does not declare."""
    marks = list(item.iter_markers("needs"))
    row = row_of(item) if marks else None
    for mark in marks:
        missing = set(mark.args) - (row.capabilities if row is not None else set(mark.args))
        if missing:
            yield f"does not declare {', '.join(sorted(missing))}: {mark.kwargs.get('why', '')}".rstrip(": ")


# --- tests that are repeated


def _tells_something(item: pytest.Item, seed: int) -> bool:
    """Tell whether a test tells something new, or is among those drawn this time.

    A module that repeats those of others names in `ALWAYS` what is new in it; of its other tests the seed draws some.
    """
    always = getattr(getattr(item, "module", None), "ALWAYS", None)
    if always is None or getattr(item, "originalname", item.name) in always:
        return True
    return crc32(f"{seed} {item.nodeid}".encode()) % ONE_OF == 0


def _has_its_variant(item: pytest.Item) -> bool:
    """Tell whether a test runs on this variant: where it does not matter which, the name of the test draws one."""
    row = row_of(item)
    if row is None or (row.name != "valkey" and row.scheme != "local"):
        return True
    if row.name == "valkey":
        return item.path.stem in ON_VALKEY
    methods = [each.name for each in VARIANTS if each.scheme == "local"]
    name = item.nodeid.replace(row.name, "").replace(row.name.replace("-", "_"), "")
    return item.path.stem not in BY_ONE_METHOD or row.name == methods[crc32(name.encode()) % len(methods)]


# --- the tenth


@dataclass(frozen=True, slots=True)
class Candidate:
    """A test as the draw sees it. `executor`: the scheme of the one on which it runs, where there are several."""

    name: str
    module: str
    executor: str = ""


def tenth(candidates: Iterable[Candidate]) -> set[str]:
    """Return the names of the tests in the tenth: one or more of each module that is not slow."""
    modules: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.module not in SLOW:
            modules[candidate.module].append(candidate)
    return {name for module, found in modules.items() for name in _drawn(module, found)}


def is_slow(path: Path) -> bool:
    """Tell whether a file is one of the slow modules."""
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).as_posix() in SLOW


def _drawn(module: str, found: list[Candidate]) -> list[str]:
    """Draw the tests of one module."""
    schemes = sorted({candidate.executor for candidate in found if candidate.executor})
    others = OF_THE_CORE if module.startswith("tests/unit/") else OF_OTHERS
    scheme = schemes[crc32(module.encode()) % len(schemes)] if schemes else None
    return [
        *_share([candidate.name for candidate in found if candidate.executor == scheme], ON_ITS_EXECUTOR),
        *_share([candidate.name for candidate in found if not candidate.executor], others),
    ]


def _share(names: list[str], of: int) -> list[str]:
    """Draw one name in so many, but one at least."""
    in_order = sorted(names, key=lambda name: (crc32(name.encode()), name))
    return in_order[: max(1, round(len(names) / of))]


def _candidates(items: list[pytest.Item]) -> Iterator[Candidate]:
    """Yield the tests that could be drawn; those that would be skipped for their executor are none."""
    for item in items:
        if next(reasons_to_skip(item), None) is None:
            row = row_of(item)
            yield Candidate(item.nodeid, module_of(item), row.scheme if row is not None else "")
