"""The access control lists in contrib/acl: what each role needs is allowed, and nothing that it does not need."""

from __future__ import annotations

import contextlib
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import redis

from taskq import Retry, TaskQueue
from taskq.errors import BackendUnavailable
from taskq.executors.rq.keys import Keys
from taskq.executors.rq.scripts import FOLDER, Scripts, calls_of
from taskq.executors.rq.store import RQStore
from taskq.store import WorkerRecord
from tests.cli.command import refused, taskq
from tests.project.commands import ROOT
from tests.redis_server import RedisServer
from tests.rq.hands import new_job
from tests.sample_tasks import add, fail_until, square
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROLES = ("producer", "worker", "viewer")

#: What no role may do: the server's own affairs, other keys, scripts of one's own, other clients.
FORBIDDEN = """
ACL LIST|ACL SETUSER x|ACL WHOAMI|BGREWRITEAOF|BGSAVE|CLIENT KILL ID 1|CLIENT LIST|CLIENT PAUSE 1|CLUSTER INFO
COMMAND DOCS|CONFIG GET save|CONFIG SET save x|CONFIG REWRITE|DBSIZE|DEBUG SLEEP 0|EVAL 'return 1' 0|FAILOVER|FLUSHALL
FLUSHDB|FUNCTION LIST|FUNCTION LOAD x|KEYS *|LATENCY RESET|MEMORY DOCTOR|MIGRATE h 1 rq:k 0 1|GETDEL rq:k
INCR rq:n|MONITOR|MOVE rq:k 1|OBJECT ENCODING rq:k|PSUBSCRIBE *|PSYNC ? -1|RANDOMKEY|RENAME rq:a rq:b
REPLICAOF NO ONE|RESTORE rq:k 0 x|SAVE|SCAN 0|SCRIPT FLUSH|SCRIPT KILL|SHUTDOWN NOSAVE|SLAVEOF NO ONE|SLOWLOG GET
SORT rq:k|SWAPDB 0 1|SYNC|HGETALL secrets|LRANGE other 0 1|SMEMBERS users|HGET app:session x
""".strip().replace("\n", "|")

#: What who only looks may not do beside it.
NO_WRITES = (
    "HSET rq:job:x status failed|DEL rq:job:x|RPUSH rq:queue:default x|PUBLISH rq:pubsub:x {}|SET rq:suspended 1"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give a Redis whose configuration includes the three files, each user with the password `pw`."""
    options = [word for role in ROLES for word in ("--include", str(ROOT / "contrib" / "acl" / f"{role}.conf"))]
    with RedisServer(tmp_path_factory.mktemp("acl"), options=options) as started:
        for role in ROLES:
            started.command("ACL", "SETUSER", f"taskq-{role}", ">pw")
        yield started


def url_of(server: RedisServer, role: str) -> str:
    """Return the URL of a role."""
    return f"redis://taskq-{role}:pw@127.0.0.1:{server.port}/0"


def refusals(server: RedisServer) -> list[str]:
    """Return what Redis has refused, as its log of them says."""
    with server.client() as client:
        found: Any = client.acl_log()
    return [f"{entry['username']} {entry['reason']} {entry['object']} {entry['context']}" for entry in found]


def run(folder: Path, *words: str) -> str:
    """Run a command of taskq; return what it printed."""
    done = taskq(folder, *words)
    assert done.code == 0, (words, done)
    return done.out


def test_each_role_does_its_work(server: RedisServer, tmp_path: Path) -> None:
    """A representative way through all commands of each role is refused nothing, though no script was loaded before."""
    server.command("ACL", "LOG", "RESET")
    server.command("SCRIPT", "FLUSH")
    producer, viewer = url_of(server, "producer"), url_of(server, "viewer")
    worker = WorkerProcess(url_of(server, "worker"), tmp_path / "w", name="aclw", look_at=viewer)
    with worker, TaskQueue(producer) as queue:
        first = queue.submit(add, 1, 2)
        others = [
            queue.options(priority=3, key="k").submit(square, first),
            queue.options(delay=0.1, expires=60, timeout=30).submit(square, 2),
            queue.options(retry=Retry(2, delay=0.1)).submit(fail_until, str(tmp_path / "tries"), 2),
            *queue.submit_many(square, [(3,), (4,)]),
        ]
        assert [job.result(30) for job in others][:2] == [9, 4]
        assert list(queue.imap(square, range(50))) == [number**2 for number in range(50)]
        queue.options(delay=900, job_id="later").submit(square, 5)
        shown = ("--url", producer)
        for verb in ("cancel", "retry", "wait"):
            run(tmp_path, verb, *shown, "later")
        run(tmp_path, "pause", *shown, "default")
        run(tmp_path, "resume", *shown, "default")
        for words in (("wait",), ("result",), ("logs",), ("status",)):
            run(tmp_path, *words, "--url", viewer, first.id)
        for command in ("status", "queues", "workers", "doctor"):
            run(tmp_path, command, "--url", viewer)
        assert "aclw" in run(tmp_path, "workers", "--url", producer)
        worker.stop()
    run(tmp_path, "purge", *shown, "--state", "cancelled", "--yes")
    assert [line for line in refusals(server) if not re.search(r"viewer command (info|config\|get) ", line)] == []


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_does_not_need_is_refused(server: RedisServer, role: str) -> None:
    """Over forty commands fail for want of a right, not for another reason."""
    forbidden = FORBIDDEN + (f"|{NO_WRITES}" if role == "viewer" else "")
    commands = [shlex.split(text) for text in forbidden.split("|")]
    assert len(commands) > 40
    client: Any = redis.Redis.from_url(url_of(server, role))
    with contextlib.closing(client):
        for words in commands:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*words)


def allowed(role: str) -> set[str]:
    """Return the commands that a role's file allows."""
    text = (ROOT / "contrib" / "acl" / f"{role}.conf").read_text("utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("user ")]
    return {word[1:].partition("|")[0] for word in line.split() if word.startswith("+")}


#: The scripts of each role, by the methods of the store and of a session that call them.
SCRIPTS = {
    "producer": ("put", "get", "subscribe", "cancel", "retry", "remove", "sweep"),
    "worker": ("join", "leave", "claim", "begin", "finish", "note", "renew", "remains", "sweep"),
    "viewer": ("get",),
}


def test_every_script_belongs_to_a_role() -> None:
    """No script of the folder, nor a part of one, is left out of what the next test looks at."""
    scripts = Scripts(Keys("rq"))
    texts = "".join(getattr(scripts, name).text.decode() for names in SCRIPTS.values() for name in names)
    for path in FOLDER.glob("*.lua"):
        assert getattr(scripts, path.stem).text.decode() in texts or path.stem == "put_fast", path.name


@pytest.mark.parametrize("role", ROLES)
def test_commands_of_a_roles_scripts_are_in_its_file(role: str) -> None:
    """Whatever a script of the role can call, in branches that no test takes too."""
    scripts = Scripts(Keys("rq"))
    called = {
        found.lower()
        for name in SCRIPTS[role]
        for found in re.findall(r"\w+\(\s*'([A-Z]{2,20})'", getattr(scripts, name).text.decode())
    }
    assert called
    assert called - allowed(role) == set()


@pytest.mark.parametrize(
    ("lacks", "told"),
    [("-hset", "HSET"), ("-zadd", "ZADD"), ("-script|load", "SCRIPT LOAD"), ("-evalsha", "EVALSHA"), ("-time", "TIME")],
)
def test_a_missing_right_is_told_by_its_name(server: RedisServer, tmp_path: Path, lacks: str, told: str) -> None:
    """Whether the command was sent, or a script has called it: one sentence, exit code 3."""
    server.command("SCRIPT", "FLUSH")
    rule = next(line for line in (ROOT / "contrib/acl/producer.conf").read_text("utf-8").splitlines() if line[0] == "u")
    server.command("ACL", "SETUSER", "lacking", "reset", ">pw", *rule.split()[2:], ">pw", lacks)
    url = f"redis://lacking:pw@127.0.0.1:{server.port}/0"
    said = refused(
        tmp_path,
        "submit",
        "--url",
        url,
        "--unchecked",
        "tasks:f",
        "--delay",
        "9",
        "--key",
        told.lower().replace(" ", "-"),
        code=3,
    )
    assert f"may not run {told}:" in said


@pytest.mark.parametrize("lacks", calls_of("put"))
def test_no_half_job_is_left(server: RedisServer, lacks: str) -> None:
    """Whichever command a producer may not call: nothing of a job is there after its submit was refused."""
    rule = next(line for line in (ROOT / "contrib/acl/producer.conf").read_text("utf-8").splitlines() if line[0] == "u")
    word = f"-{lacks.lower()}"
    server.command("ACL", "SETUSER", "half", "reset", ">pw", *rule.split()[2:], ">pw", word)
    store = RQStore(f"redis://half:pw@127.0.0.1:{server.port}/3")
    with contextlib.closing(store), server.client(3) as client:
        client.flushdb()
        for options in ({}, {"delay": 9.0, "key": "k", "expires": 60.0}, {"priority": 3}):
            with pytest.raises(BackendUnavailable, match=f"may not run {lacks}"):
                store.put([new_job(**options)])
            assert client.keys() == []


@pytest.mark.parametrize("lacks", ["xadd", "hset", "zadd", "linsert", "publish"])
def test_a_worker_that_may_not_do_all_does_not_begin(server: RedisServer, lacks: str) -> None:
    """It says at its start which right is missing, not in the middle of a job."""
    rule = next(line for line in (ROOT / "contrib/acl/worker.conf").read_text("utf-8").splitlines() if line[0] == "u")
    server.command("ACL", "SETUSER", "half", "reset", ">pw", *rule.split()[2:], ">pw", f"-{lacks}")
    store = RQStore(f"redis://half:pw@127.0.0.1:{server.port}/3")
    with contextlib.closing(store), server.client(3) as client:
        client.flushdb()
        with pytest.raises(BackendUnavailable, match=f"may not run {lacks.upper()}"):
            store.join(WorkerRecord(name="w", host="h", pid=1, queues=("default",), processes=1))
        assert client.keys() == []


@pytest.mark.parametrize(("rule", "told"), [("resetkeys", "these keys"), ("resetchannels", "these channels")])
def test_missing_keys_and_channels_are_told(server: RedisServer, rule: str, told: str) -> None:
    """A user who may not touch the prefix hears so, not of a broken Redis."""
    server.command("ACL", "SETUSER", "elsewhere", "reset", "on", ">pw", "+@all", "~rq:*", "&rq:*", rule)
    store = RQStore(f"redis://elsewhere:pw@127.0.0.1:{server.port}/0")
    with contextlib.closing(store), pytest.raises(BackendUnavailable, match=told):
        store.resume("default")


def test_doctor_says_what_it_may_not_ask(server: RedisServer, tmp_path: Path) -> None:
    """Without INFO and CONFIG GET it looks at all else, and names them."""
    told = " ".join(run(tmp_path, "doctor", "--url", url_of(server, "viewer")).split())
    assert "INFO" in told
    assert "CONFIG GET" in told
    assert "authentication: it wants no password" in told  # the user `default` of this server has none
