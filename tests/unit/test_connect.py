"""From URL to executor: the scheme chooses, the query sets, and no password is ever shown."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from taskq import connect
from taskq.connect import open_executor, safe_url
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Recorder:
    """Stand in for an executor: keep what it was made with."""

    def __init__(self, *args: object, **settings: object) -> None:
        self.args = args
        self.settings = settings


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the recorder behind local://."""
    module = ModuleType("recorder_executor")
    module.LocalExecutor = Recorder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "recorder_executor", module)
    monkeypatch.setitem(connect.BUILT_IN, "local", "recorder_executor:LocalExecutor")


def opened(url: str, settings: Mapping[str, object] | None = None) -> Recorder:
    """Open a URL and return what stands in for its executor."""
    executor: Any = open_executor(url, settings or {})
    assert isinstance(executor, Recorder)
    return executor


@pytest.mark.parametrize("url", ["local://", "LOCAL://", "local:///", "local://?"])
def test_local_needs_nothing(url: str) -> None:
    """The bare URL opens with no settings."""
    made = opened(url)
    assert (made.args, made.settings) == ((), {})


def test_the_query_becomes_typed_settings() -> None:
    """Numbers, names and truths in a URL arrive as such."""
    url = "local://?processes=4&start_method=spawn&max_tasks_per_child=10&strict=yes"
    assert opened(url).settings == {
        "processes": 4,
        "start_method": "spawn",
        "max_tasks_per_child": 10,
        "strict": True,
    }


def test_what_the_caller_says_wins_over_the_query() -> None:
    """A URL from the settings file is the default, the argument in the code the decision."""
    made = opened("local://?processes=4&strict=true", {"processes": 2, "start_method": None, "initializer": print})
    assert made.settings == {"processes": 2, "strict": True, "initializer": print}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("local", "'local' is not the URL of a queue"),
        ("", "is not the URL of a queue"),
        ("://x", "is not the URL of a queue"),
        ("local://host/path", r"local:// has no host or path: write local:// or local://\?processes=4"),
        ("local://4", "has no host or path"),
        ("locl://", r"no executor for locl://; did you mean local\?"),
        ("http://x", "no executor for http://; there is local://"),
        ("redis://queue-host/0", "this version of taskq has no redis:// yet, only local://"),
        ("sqlite:///q.db", "has no sqlite:// yet"),
        ("local://?proceses=4", r"no setting 'proceses'; did you mean processes\?"),
        ("local://?colour=4", "no setting 'colour'; the settings are processes, start_method"),
        ("local://?initializer=os.system", "no setting 'initializer'"),
        ("local://?processes=0", "processes='0' in the URL: give a whole number from 1 up"),
        ("local://?processes=", "processes=''"),
        ("local://?processes=two", "processes='two'"),
        ("local://?start_method=thread", "give one of fork, forkserver, spawn"),
        ("local://?strict=perhaps", "strict='perhaps': write true or false in the URL"),
    ],
)
def test_a_bad_url_is_refused_with_the_cure(url: str, message: str) -> None:
    """The message says what is wrong and what may stand there."""
    with pytest.raises(ConfigError, match=message):
        open_executor(url, {})


def test_an_unknown_setting_of_the_caller_is_refused() -> None:
    """Code and URL are held to the same names."""
    with pytest.raises(ConfigError, match="no setting 'proceses'"):
        open_executor("local://", {"proceses": 4})


@pytest.mark.parametrize("url", ["redis://ann:s3cret@host/0", "nope://ann:s3cret@host", "local://ann:s3cret@host"])
def test_no_message_shows_a_password(url: str) -> None:
    """Refusing a URL must not write its password into a log."""
    with pytest.raises(ConfigError) as caught:
        open_executor(url, {})
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in safe_url(url)


def test_another_distribution_may_bring_an_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheme that is not ours is looked up among the entry points, and is given its URL."""
    entry = metadata.EntryPoint(name="mem", value="recorder_executor:LocalExecutor", group="taskq.executors")
    monkeypatch.setattr(metadata, "entry_points", lambda **_: metadata.EntryPoints([entry]))
    made = opened("mem://place?x=1", {"processes": 2})
    assert (made.args, made.settings) == (("mem://place?x=1",), {"processes": 2})
    with pytest.raises(ConfigError, match=r"did you mean mem\?"):
        open_executor("memm://", {})
