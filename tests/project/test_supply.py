"""What CI installs is what pyproject.toml pins, each file with its hash."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from ruamel.yaml import YAML

from tests.project.commands import ROOT

LOCK = (ROOT / "requirements" / "dev.txt").read_text("utf-8")


def test_the_lock_is_of_this_pyproject() -> None:
    """Each exact version of the extras test and dev is the one that is locked, and nothing stands there unhashed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    words = [word.partition(";")[0] for name in ("test", "dev") for word in extras[name]]
    pins = dict(word.split("==") for word in words if "==" in word)
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.MULTILINE))
    assert len(pins) > 10
    assert {name: locked.get(name.partition("[")[0]) for name in pins} == pins
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_workflow_installs_by_hash_with_few_rights() -> None:
    """Every checkout forgets its credentials, the token may only read, and pip wants hashes wherever CI calls it."""
    flow: Any = YAML(typ="safe", pure=True).load(ROOT / ".github" / "workflows" / "ci.yml")
    assert flow["permissions"] == {"contents": "read"}
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    checkouts = [step for step in steps if "checkout" in step.get("uses", "")]
    assert len(checkouts) == len(flow["jobs"])
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    installs = [step["run"] for step in steps if "pip install" in step.get("run", "")]
    assert len(installs) == 2
    assert all("--require-hashes" in text for text in installs)
