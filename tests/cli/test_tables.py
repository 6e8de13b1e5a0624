"""Tables fit every width, and show nothing that a terminal would take for a command."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies
from rich.cells import cell_len

from taskq.cli.screen import PLAIN, Screen, printable
from taskq.cli.tables import Column, cut, table, wrapped

COLUMNS = (
    Column(name="ID", least=5, tail=True),
    Column(name="STATE"),
    Column(name="COUNT", right=True, rank=2),
    Column(name="TEXT", least=6, rank=1),
)
ROWS = [("0123456789", "running", "1", "some words"), ("9876543210", "failed", "12,345", "more words than fit")]

TEXTS = strategies.text(max_size=30)


def shown(width: int | None) -> list[str]:
    """Return the lines of the table as text."""
    lines = table(COLUMNS, ROWS, Screen(width=width))
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def test_all_is_shown_where_there_is_room() -> None:
    """Columns are as wide as what stands in them; numbers stand to the right."""
    assert shown(None) == [
        "ID          STATE     COUNT  TEXT",
        "0123456789  running       1  some words",
        "9876543210  failed   12,345  more words than fit",
    ]


def test_columns_are_cut_then_left_out() -> None:
    """First what may be cut, then the column of the highest rank, and so on."""
    assert shown(45)[2] == "9876543210  failed   12,345  more words than…"
    assert shown(40)[2] == "9876543210  failed   12,345  more words…"
    assert shown(28)[2] == "…6543210  failed   more wor…"
    assert shown(14)[2] == "…3210  failed"


@pytest.mark.parametrize("width", range(4, 60))
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    """Down to a screen on which only the first letters are left."""
    assert all(len(line) <= width for line in shown(width))


@given(
    rows=strategies.lists(strategies.tuples(TEXTS, TEXTS, TEXTS, TEXTS), max_size=4), width=strategies.integers(8, 80)
)
def test_any_text_fits(rows: list[tuple[str, ...]], width: int) -> None:
    """Signs of two columns, of none, control characters: the width holds, and all is printable."""
    for line in table(COLUMNS, rows, Screen(width=width)):
        text = "".join(part for part, _ in line)
        assert cell_len(text) <= width
        assert text.isprintable()


def test_a_cut_leaves_the_end_on_request() -> None:
    """Of an id the end tells most."""
    assert cut("abcdef", 4, "…") == "abc…"
    assert cut("abcdef", 4, "…", tail=True) == "…def"
    assert cut("abcdef", 4, PLAIN.cut) == "abc~"
    assert cut("abcdef", 6, "…") == "abcdef"


def test_control_characters_are_not_shown() -> None:
    """A label from a store cannot move the cursor or change colours."""
    assert printable("a\x1b[31mb\tc\nd\x9b") == "a�[31mb c d�"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("two words", ["two", "words"]),
        ("a bb ccc dddd", ["a bb", "ccc", "dddd"]),
        ("abcdefghijkl", ["abcde", "fghij", "kl"]),
        ("ab cdefghijk", ["ab", "cdefg", "hijk"]),
        ("exact fits!", ["exact", "fits!"]),
        ("漢字漢字", ["漢字", "漢字"]),
        ("", [""]),
    ],
)
def test_a_text_breaks_at_spaces(text: str, lines: list[str]) -> None:
    """Between words where there are any, else inside of them; no line is wider than the room."""
    assert wrapped(text, 5) == lines
    assert wrapped(text, None) == [text]
