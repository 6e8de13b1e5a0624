"""The documents for contributors tell the truth: files that they name exist, links lead somewhere, tables agree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from taskq.states import TERMINAL, TRANSITIONS, Reason, State
from tests.project.commands import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "tests" / "README.md",
        ROOT / "bench" / "README.md",
    ]
)
#: What was changed stands in it under the names that it had then.
DOCUMENTS.remove(ROOT / "CHANGELOG.md")

#: A file or folder of the repository, as it stands in text: in backquotes, or bare in a drawing.
NAMED = re.compile(
    r"(?<![\w./@-])((?:taskq|executors|tests|bench|docs|examples|contrib|\.ci)/[\w./-]*\w/?)(?![\w/*<{])"
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")


def of_each_document(pattern: re.Pattern[str]) -> list[object]:
    """Return (document, what it names) as parameters."""
    return [
        pytest.param(document, name, id=f"{document.relative_to(ROOT)}-{name}")
        for document in DOCUMENTS
        for name in sorted(set(pattern.findall(document.read_text(encoding="utf-8"))))
    ]


@pytest.mark.parametrize(("document", "name"), of_each_document(NAMED))
def test_named_files_exist(document: Path, name: str) -> None:
    """A path in a document is a file or folder of the repository."""
    assert (ROOT / name).exists(), f"{document.relative_to(ROOT)} names {name}"


@pytest.mark.parametrize(("document", "name"), of_each_document(LINK))
def test_links_lead_somewhere(document: Path, name: str) -> None:
    """A link between documents leads to a file."""
    assert (document.parent / name).exists(), f"{document.relative_to(ROOT)} links to {name}"


def test_the_page_of_states_is_the_table() -> None:
    """Each state stands with exactly the states that may follow it, and each reason of a failure has its row."""
    text = (ROOT / "docs" / "states.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\w, ]+) \|$", text, re.MULTILINE))
    assert {state: set(rows[state].split(", ")) for state in State if state not in TERMINAL} == {
        state: set(following) for state, following in TRANSITIONS.items() if following
    }
    assert all(rows[state] == "final" for state in TERMINAL)
    reasons = set(re.findall(r"^\| `(\w+)` \|", text.partition("## Reasons")[2], re.MULTILINE))
    assert reasons == {reason.value for reason in Reason}


def test_every_decision_is_listed() -> None:
    """The pages of decisions and their list are the same."""
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall((folder / "README.md").read_text(encoding="utf-8")))
    assert listed == {page.name for page in folder.glob("0*.md")}


def test_each_glossary_word_has_one_meaning() -> None:
    """No word stands in the glossary twice."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [word for word in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE) if word not in {"word", "---"}]
    assert len(words) > 50
    assert len(words) == len(set(words))
