"""One grammar for the names of queues, workers and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskq import envelope
from taskq.errors import ConfigError
from taskq.executors.rq.store import RQStore
from taskq.executors.worker.worker import Worker
from taskq.names import MAX_KEY, MAX_NAME, check_name
from taskq.options import JobOptions
from taskq.retry import MAX_RETRIES, Retry
from tests.cli.command import refused, taskq

if TYPE_CHECKING:
    from pathlib import Path

    from tests.redis_server import RedisServer

GOOD = ["default", "high-prio", "_x", "emails:bulk", "a.b/c", "user@host", "c++", "k=v", "x" * MAX_NAME, "größe", "9"]
BAD = [
    *("", " ", "a\tb", "a\n", "a\x00b", "\x1b[31m", "a\u202eb", "a\u200bb", "a\udc80"),
    *(
        ":",
        "*",
        "a*",
        "a?",
        "[a]",
        "{a}",
        "../x",
        "a/../x",
        "/etc",
        ".",
        "..",
        "-x",
        "--queue",
        "$x",
        "a;b",
        "a|b",
        "`x`",
    ),
    *("a\\b", "a'b", 'a"b', "x" * (MAX_KEY + 1), "x" * 1_000_000, None, 7, b"a"),
]


@pytest.mark.parametrize("name", GOOD)
def test_good_names_are_taken_everywhere(name: str) -> None:
    """Names as RQ's users write them are fit for a queue, a key and a worker."""
    assert check_name("queue", name) == name
    assert JobOptions(queue=name, key=name).key == name


@pytest.mark.parametrize("name", BAD, ids=lambda name: ascii(name)[:20])
def test_bad_names_are_refused_everywhere(name: object) -> None:
    """With the rule, in a short sentence of printable characters."""
    for what in ("queue", "key"):
        if (what, name) == ("key", None):
            continue
        with pytest.raises(ConfigError, match=f"{what}=.*letters, digits") as caught:
            JobOptions(**{what: name})  # type: ignore[arg-type]
        assert len(str(caught.value)) < 500
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a b", "a,b", "x" * (MAX_NAME + 1)])
def test_keys_are_text_and_other_names_stand_in_lists(name: str) -> None:
    """Spaces, commas and more length are for keys only."""
    assert JobOptions(key=name).key == name
    for what in ("queue", "name"):
        with pytest.raises(ConfigError, match=f"^{what}="):
            check_name(what, name)


def test_commands_refuse_bad_names(tmp_path: Path) -> None:
    """Wherever a name is typed; a pause of a queue that nobody knows is no exception."""
    url = ("--url", f"sqlite://{tmp_path}/q.db")
    for words in (
        ("submit", *url, "--unchecked", "m:f", "--queue", "*"),
        ("submit", *url, "--unchecked", "m:f", "--key", "../b"),
        ("submit", *url, "--unchecked", "m:f", "--retries", "99999999999999"),
        ("worker", *url, "--burst", "--queues", "good,../x"),
        ("worker", *url, "--burst", "--name", "a b"),
        ("pause", *url, "*"),
    ):
        assert "give " in refused(tmp_path, *words)


def test_workers_of_a_program_refuse_bad_names(redis_server: RedisServer) -> None:
    """The library's worker has the same rule as its command."""
    store = RQStore(redis_server.fresh_url())
    for settings in ({"name": "a*"}, {"queues": ["a b"]}):
        with pytest.raises(ConfigError, match="letters, digits"):
            Worker(store, **settings)  # type: ignore[arg-type]
    store.close()


def test_retries_have_a_limit_and_stored_ones_stay_readable() -> None:
    """More retries than that are refused, and read as so many where they were stored."""
    with pytest.raises(ConfigError, match="1,000,000"):
        Retry(MAX_RETRIES + 1)
    packed = envelope.pack_options(JobOptions(retry=Retry(MAX_RETRIES)))
    older = packed.replace(MAX_RETRIES.to_bytes(4, "big"), (2**31).to_bytes(4, "big"))
    assert older != packed
    retry = envelope.read_options(older).retry
    assert retry is not None
    assert retry.max_retries == MAX_RETRIES


def test_stored_names_that_do_not_fit_are_shown(redis_server: RedisServer, tmp_path: Path) -> None:
    """Jobs of a queue with a name from elsewhere are listed, paused, resumed, and left by a transfer: no crash."""
    database = redis_server.fresh_database()
    url = redis_server.url(database)
    words: tuple[str, ...] = ("--queue", "plain", "--key", "k", "--job-id", "odd-job")
    assert taskq(tmp_path, "submit", "--url", url, "--unchecked", "m:f", *words).code == 0
    odd = "old * name"
    with redis_server.client(database) as client:
        client.hset("rq:job:odd-job", mapping={"origin": odd, "tq_key": "a b"})
        client.rename("rq:queue:plain", f"rq:queue:{odd}")
        client.sadd("rq:queues", f"rq:queue:{odd}")
    for words in (("status",), ("status", "odd-job"), ("queues",), ("pause", odd), ("queues",), ("resume", odd)):
        done = taskq(tmp_path, *words, "--url", url)
        assert done.code == 0, (words, done)
        assert "Traceback" not in done.err
    moved = taskq(tmp_path, "transfer", url, f"sqlite://{tmp_path}/q.db")
    assert "Traceback" not in moved.err
    assert "odd-job" in moved.err + moved.out
