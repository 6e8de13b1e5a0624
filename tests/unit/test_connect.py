"""From URL to executor: the scheme chooses, the query sets, and no password is ever shown."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from taskq import connect
from taskq.connect import is_durable, open_executor, open_store, safe_url
from taskq.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping


class Recorder:
    """Stand in for an executor: keep what it was made with."""

    def __init__(self, *args: object, **settings: object) -> None:
        self.args = args
        self.settings = settings


class RecordedStore:
    """Stand in for a store: keep the URL."""

    max_bytes = 1_048_576

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the recorder behind local://."""
    module = ModuleType("recorder_executor")
    module.LocalExecutor = Recorder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "recorder_executor", module)
    monkeypatch.setitem(connect.BUILT_IN, "local", "recorder_executor:LocalExecutor")
    module.Store = RecordedStore  # type: ignore[attr-defined]
    for scheme in connect.STORES:
        monkeypatch.setitem(connect.STORES, scheme, "recorder_executor:Store")
    monkeypatch.setattr(connect, "DURABLE", "recorder_executor:LocalExecutor")


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
    url = "local://?processes=4&start_method=spawn&max_tasks_per_child=10&strict=yes&queues=high,default"
    assert opened(url).settings == {
        "processes": 4,
        "start_method": "spawn",
        "max_tasks_per_child": 10,
        "queues": ("high", "default"),
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
        ("redus://queue-host/0", "no executor for redus://; did you mean redis"),
        ("local://?proceses=4", r"no setting 'proceses'; did you mean processes\?"),
        ("local://?colour=4", "no setting 'colour'; the settings are processes, start_method"),
        ("local://?initializer=os.system", "no setting 'initializer'"),
        ("local://?processes=0", "processes='0' in the URL: give a whole number from 1 up"),
        ("local://?processes=", "processes=''"),
        ("local://?processes=two", "processes='two'"),
        ("local://?start_method=thread", "give one of fork, forkserver, spawn"),
        ("local://?strict=perhaps", "strict='perhaps': write true or false in the URL"),
        ("local://?queues=", "queues='' in the URL: give names of queues"),
        ("redis://host?max_bytes=lots", "max_bytes='lots' in the URL: give a whole number"),
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


@pytest.mark.parametrize("url", ["http://ann:s3cret@host/0", "nope://ann:s3cret@host", "local://ann:s3cret@host"])
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
    with pytest.raises(ConfigError, match=r"did you mean mem\b"):
        open_executor("memm://", {})


# --- durable queues


@pytest.mark.parametrize("url", ["sqlite:///q.db", "redis://h/0", "rediss://h/0?prefix=x", "unix:///s", "REDIS://h"])
def test_durable_queues_are_executors_over_a_store(url: str) -> None:
    """A URL of a store opens the store, with the whole URL, and the one executor over it."""
    (store,) = opened(url).args
    assert isinstance(store, RecordedStore)
    assert store.url == url
    assert is_durable(url)
    assert not is_durable("local://")


def test_the_limit_of_bytes_is_every_stores() -> None:
    """`max_bytes` is taken out of the URL, and the store's other settings are left to the store."""
    store: Any = open_store("sqlite:///q.db?durability=full&max_bytes=2000&x=%20y")
    assert (store.url, store.max_bytes) == ("sqlite:///q.db?durability=full&x=%20y", 2000)
    assert (open_store("redis://h?max_bytes=5").url, open_store("redis://h").max_bytes) == ("redis://h", 1_048_576)


def test_settings_of_a_pool_are_the_workers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """On a durable queue the settings of a pool are taken and not used, which is said once, without a password."""
    monkeypatch.setattr(connect, "_told_unused", [])
    for settings in ({"processes": 2, "queues": ["a"]}, {"start_method": "spawn"}, {"initializer": print}):
        assert isinstance(opened("redis://ann:s3cret@h/0", settings).args[0], RecordedStore)
    (said,) = caplog.messages
    assert "processes, queues are for the workers" in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlit:///q.db", "did you mean sqlite"),
        ("rediss//host", "write rediss://host/0"),
        ("sqlite:/q.db", "write sqlite:///path"),
        ("rdis://host", "did you mean redis"),
    ],
)
def test_a_mistyped_scheme_is_guessed(url: str, hint: str) -> None:
    """A scheme that is nearly one of ours gets the right one offered, wherever a store is wanted."""
    for use in (open_store, lambda url: open_executor(url, {})):
        with pytest.raises(ConfigError, match=hint):
            use(url)


def test_a_durable_queue_is_strict() -> None:
    """Asking for what it is anyway is no mistake; asking for the opposite is, and so is what nobody knows."""
    assert isinstance(opened("redis://h", {"strict": True}).args[0], RecordedStore)
    with pytest.raises(ConfigError, match="nothing is ever pickled"):
        open_executor("redis://h", {"strict": False})
    with pytest.raises(ConfigError, match="no setting 'colour'"):
        open_executor("redis://h", {"colour": 4})


@pytest.mark.parametrize("url", ["local://", "http://x", "nothing"])
def test_only_stores_are_opened_as_stores(url: str) -> None:
    """Workers and commands that need a store say so when the URL has none."""
    with pytest.raises(ConfigError):
        open_store(url)


def test_a_missing_library_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the libraries of the redis extra are not installed, the error says how to install them, by their names."""

    class Missing(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise ModuleNotFoundError("No module named 'rq'", name="rq.worker")

    monkeypatch.setitem(sys.modules, "needs_rq", Missing("needs_rq"))
    monkeypatch.setitem(connect.STORES, "redis", "needs_rq:Store")
    with pytest.raises(MissingExtra, match=r"library rq: pip install 'redis\[hiredis\]>=6' 'rq>="):
        open_store("redis://h")
