"""The grammar of ARGS on the command line, and how one JSON value becomes arguments."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.cli.arguments import Arguments, parse_arguments, spread
from taskq.cli.submit import submit
from taskq.errors import ConfigError
from taskq.options import JobOptions

if TYPE_CHECKING:
    from pathlib import Path

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("word", "args", "kwargs"),
    [
        ("a.jpg", ("a.jpg",), {}),
        ("", ("",), {}),
        ("128", ("128",), {}),
        (":=128", (128,), {}),
        (":=-5", (-5,), {}),
        (':="size=128"', ("size=128",), {}),
        (':={"a": [1, null]}', ({"a": [1, None]},), {}),
        ("size=128", (), {"size": "128"}),
        ("size:=128", (), {"size": 128}),
        ("size:=true", (), {"size": True}),
        ("name=", (), {"name": ""}),
        ("q=a=b:=c", (), {"q": "a=b:=c"}),
        ("größe:=1", (), {"größe": 1}),
        ("_x1=a", (), {"_x1": "a"}),
        ("http://host/?q=1", ("http://host/?q=1",), {}),
        ("--x=1", ("--x=1",), {}),
        ("1=2", ("1=2",), {}),
        ("a b=c", ("a b=c",), {}),
        ("=x", ("=x",), {}),
        ("a:b", ("a:b",), {}),
        ("x:y:=1", ("x:y:=1",), {}),
    ],
)
def test_one_word(word: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Text, JSON, keyword text, keyword JSON; what has no name before its = is text."""
    assert parse_arguments([word]) == Arguments(args=args, kwargs=kwargs)


def test_words_keep_their_order() -> None:
    """Keywords may stand anywhere; positions count without them."""
    parsed = parse_arguments(["a", "k=1", ":=2", "m:=[3]", "z"])
    assert parsed == Arguments(args=("a", 2, "z"), kwargs={"k": "1", "m": [3]})


@given(JSON_VALUES)
def test_any_json_value_survives(value: Any) -> None:
    """Whatever JSON can say can be said as an argument, by position and by name."""
    text = json.dumps(value)
    parsed = parse_arguments([f":={text}", f"name:={text}"])
    assert parsed == Arguments(args=(value,), kwargs={"name": value})


@given(st.text())
def test_any_text_can_be_said_by_name(text: str) -> None:
    """After name= everything is text, but for the @ that names a file."""
    if not text.startswith("@"):
        assert parse_arguments([f"name={text}"]) == Arguments(kwargs={"name": text})


def test_files(tmp_path: Path) -> None:
    """@ reads a file as text, :=@ as JSON, with a name or without."""
    note, data = tmp_path / "note.txt", tmp_path / "data.json"
    note.write_text("häuser\n", encoding="utf-8")
    data.write_text('{"a": 1}', encoding="utf-8")
    parsed = parse_arguments([f"@{note}", f":=@{data}", f"n=@{note}", f"d:=@{data}"])
    assert parsed == Arguments(args=("häuser\n", {"a": 1}), kwargs={"n": "häuser\n", "d": {"a": 1}})


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """@- is stdin."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[1]")))
    assert parse_arguments([":=@-"]) == Arguments(args=([1],))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 2]", Arguments(args=(1, 2))),
        ('{"a": 1}', Arguments(kwargs={"a": 1})),
        ('"x"', Arguments(args=("x",))),
        ("null", Arguments(args=(None,))),
    ],
)
def test_args_json(text: str, expected: Arguments) -> None:
    """An array is positions, an object names, anything else one argument."""
    assert parse_arguments([], text) == expected
    assert spread(json.loads(text)) == expected


def test_args_json_comes_first_and_may_be_a_file(tmp_path: Path) -> None:
    """Words are added to what --args-json says."""
    file = tmp_path / "args.json"
    file.write_text('["a"]', encoding="utf-8")
    assert parse_arguments(["b", "k=1"], f"@{file}") == Arguments(args=("a", "b"), kwargs={"k": "1"})
    assert parse_arguments(["k:=2"], '{"j": 1}') == Arguments(kwargs={"j": 1, "k": 2})


@pytest.mark.parametrize(
    ("words", "args_json", "message"),
    [
        ([":=x"], None, r"':=x': 'x' is not JSON: Expecting value.*a text needs double quotes"),
        (["size:={"], None, r"'size:=\{': '\{' is not JSON"),
        (["a=1", "a:=2"], None, "'a:=2': the argument 'a' is given twice"),
        (["a=1"], '{"a": 2}', "'a' is given twice"),
        (["@nowhere"], None, "'@nowhere': cannot read 'nowhere': No such file or directory"),
        (["k=@/"], None, "'@/': cannot read '/': Is a directory"),
        ([], "{", "--args-json: '{' is not JSON"),
        ([":=" + "[" * 100_000], None, "not JSON: nested too deeply"),
    ],
)
def test_a_bad_word_is_refused_in_one_sentence(words: list[str], args_json: str | None, message: str) -> None:
    """The message repeats the word, says what is wrong, and is short however long the word is."""
    with pytest.raises(ConfigError, match=message) as caught:
        parse_arguments(words, args_json)
    assert len(str(caught.value)) < 400


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are told with their place."""
    file = tmp_path / "x.bin"
    file.write_bytes(b"ab\xff")
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 3\)"):
        parse_arguments([f"@{file}"])


def test_each_option_of_a_job_has_a_flag_of_its_name() -> None:
    """What Python calls an option, the command line calls it, too."""
    flags = {word for parameter in submit.params for word in parameter.opts}
    assert {f"--{name.replace('_', '-')}" for name in JobOptions.field_names()} <= flags
