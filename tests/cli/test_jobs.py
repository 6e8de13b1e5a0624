"""The life of jobs on a store that stays, through the command line alone: a file or Redis, real workers."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import Command, assert_golden, refused, taskq
from tests.cli.store_queue import Queue
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.redis_server import RedisServer


def in_file(queue: Queue) -> bool:
    """Tell whether a queue is a file of the user's own, where labels show values."""
    return queue.url.startswith("sqlite")


SECRETS = (
    (("--", "curl", "-u", "ann:s3cret", "https://x/"), "curl -u 'ann:***' https://x/", "curl + 3 words"),
    (("--", "true"), "true", "true"),
    (
        ("--", "curl", "--cookie=s3cret", "--authorization=Bearer", "s3cret"),
        "curl '--cookie=***' '--authorization=***' '***'",
        "curl + 3 words",
    ),
    (("--env", "MY_TOKEN=s3cret", "--", "echo", "a-s3cret-b"), "echo 'a-***-b'", "echo + 1 word"),
    (("--label", "mine", "--", "curl", "s3cret"), "mine", "mine"),
    (
        ("far:f", "s=a", "n:=1", "password=s3cret", "--unchecked"),
        "f(s='a', n=1, password=***)",
        "f(s=str, n=int, password=str)",
    ),
    (("far:f", "dsn=host=h password=s3cret", "--unchecked"), "f(dsn='host=h password=***')", "f(dsn=str)"),
)


@pytest.mark.parametrize(("words", "own", "others"), SECRETS)
def test_a_label_tells_no_secret(queue: Queue, words: tuple[str, ...], own: str, others: str) -> None:
    """One's own file shows values, Redis only their types, and of a command its first word; a given label stands."""
    assert queue.job(queue.submit(*words))["label"] == (own if in_file(queue) else others)


def test_labels_may_be_full_on_redis(project: Path, redis: RedisServer) -> None:
    """`?labels=full`: where all who read it may know."""
    queue = Queue(project, f"{redis.fresh_url()}?labels=full")
    assert queue.job(queue.submit("jobs:square", ":=12"))["label"] == "square(12)"


def test_from_submit_to_result(queue: Queue, worker: Callable[..., Command]) -> None:
    """The id alone; the job waits for a worker; then its result is there, for as long as it is kept."""
    job_id = queue.submit("jobs:square", ":=12")
    assert queue.state(job_id) == "queued"
    assert queue.run("result", job_id, code=124).out == ""
    worker(queue.url)
    assert queue.run("wait", job_id).out == f"{job_id} succeeded\n"
    assert queue.run("result", job_id).out == "144\n"
    assert queue.run("result", job_id[-9:]).out == "144\n"
    found = queue.job(job_id)
    assert (found["task"], found["label"], found["attempts"]) == (
        "jobs:square",
        "square(12)" if in_file(queue) else "square(int)",
        1,
    )
    assert found["run_s"] >= 0


def test_a_running_job_is_seen_from_outside(queue: Queue, worker: Callable[..., Command]) -> None:
    """Progress, meta and log are there while it runs; logs -f goes on to its end."""
    worker(queue.url)
    gate = queue.project / "gate"
    job_id = queue.submit("jobs:watched", str(gate))
    eventually(lambda: queue.job(job_id)["progress"] == {"done": 3, "total": 4}, "the progress to be seen")
    eventually(lambda: queue.job(job_id)["meta"] == {"colour": "blue"}, "the meta to be seen")
    eventually(lambda: "step 3\n" in queue.run("logs", job_id).out, "the log to be seen")
    assert "3 of 4 (75 %)" in queue.run("status", job_id).out
    with Command(queue.project, "logs", "-f", "--url", queue.url, job_id, name="logs-") as logs:
        eventually(lambda: "step 3" in logs.out, "logs -f to show what was there")
        gate.touch()
        assert logs.wait() == 0
        assert logs.out == "step 1\nstep 2\nstep 3\nlast words\n"
    assert queue.run("result", job_id, "--raw").out == "through\n"


def test_failed_jobs_run_again_on_request(queue: Queue, worker: Callable[..., Command]) -> None:
    """The reason is told, retry queues them again, their ids are printed."""
    worker(queue.url)
    job_id = queue.submit("jobs:fail", "x")
    assert queue.run("wait", job_id, code=1).out == f"{job_id} failed\n"
    done = queue.run("result", job_id, code=1)
    assert (done.out, done.err) == ("", "taskq: jobs:fail failed: ValueError: no x\n")
    assert 'raise ValueError(f"no {value}")' in queue.run("result", job_id, "--tracebacks", code=1).err
    assert queue.job(job_id)["error"] == {"type": "ValueError", "message": "no x"}
    assert queue.run("retry", "--failed").out == f"{job_id}\n"
    assert queue.run("wait", job_id, code=1).out == f"{job_id} failed\n"
    assert queue.run("retry", job_id).out == f"{job_id}\n"


def test_a_waiting_job_is_cancelled(queue: Queue) -> None:
    """At once, and it never runs; a second time changes nothing."""
    job_id = queue.submit("jobs:square", ":=1")
    assert queue.run("cancel", job_id).out == f"{job_id} cancelled\n"
    assert queue.run("cancel", job_id).out == f"{job_id} cancelled\n"
    assert queue.run("result", job_id, code=5).out == ""
    assert queue.run("wait", job_id, code=5).out == f"{job_id} cancelled\n"


def test_a_running_job_is_killed(queue: Queue, worker: Callable[..., Command]) -> None:
    """Cancel only asks; --kill ends it."""
    worker(queue.url)
    job_id = queue.submit("jobs:hang")
    queue.until(job_id, "running")
    assert queue.run("cancel", job_id).out == f"{job_id} running\n"
    queue.run("cancel", "--kill", job_id)
    assert queue.run("wait", job_id, "--timeout", "30s", code=5).out == f"{job_id} cancelled\n"
    assert queue.run("cancel", job_id).out == f"{job_id} cancelled\n"


def test_a_paused_queue_waits(queue: Queue, worker: Callable[..., Command]) -> None:
    """Its jobs start when it is resumed; others go on."""
    queue.run("pause", "default")
    worker(queue.url, "--queues", "default,other")
    waiting, other = queue.submit("jobs:square", ":=2"), queue.submit("jobs:square", ":=3", "--queue", "other")
    assert queue.run("result", other, "--wait").out == "9\n"
    assert queue.run("wait", waiting, "--timeout", "0.2s", code=124).out == ""
    rows = json.loads(queue.run("queues", "--json").out)["queues"]
    assert {row["queue"]: row["paused"] for row in rows} == {"default": True, "other": False}
    queue.run("resume", "default")
    assert queue.run("result", waiting, "--wait").out == "4\n"


def test_purge_forgets(queue: Queue) -> None:
    """What has ended, or the states that are named."""
    gone, kept = queue.submit("jobs:square", ":=2"), queue.submit("jobs:square", ":=3")
    queue.run("cancel", gone)
    assert queue.run("purge", "--yes").out == "1\n"
    queue.run("status", gone, code=4)
    assert queue.state(kept) == "queued"
    assert queue.run("purge", "--yes", "--state", "queued").out == "1\n"
    queue.run("result", kept, code=4)


def test_options_of_a_job(queue: Queue) -> None:
    """Each flag is in what status knows of the job."""
    at = (datetime.now(UTC) + timedelta(hours=3)).replace(microsecond=0)
    flags = ("--queue", "low", "--priority", 7, "--key", "k", "--job-id", "mine-1", "--at", at.isoformat())
    assert queue.run("submit", "jobs:square", ":=2", *flags, "--expires", "5h").out == "mine-1\n"
    found = queue.job("mine-1")
    assert (found["queue"], found["priority"], found["key"], found["state"]) == ("low", 7, "k", "scheduled")
    assert datetime.fromisoformat(found["due_at"]) == at
    left = datetime.fromisoformat(found["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=4) < left < timedelta(hours=6)
    assert queue.run("submit", "jobs:square", ":=9", "--key", "k", "--queue", "low").out == "mine-1\n"
    assert queue.run("submit", "jobs:square", ":=9", "--job-id", "mine-1").out == "mine-1\n"
    done = queue.run("submit", "jobs:square", ":=9", "--job-id", "mine-1", "--if-exists", "reject", code=1)
    assert "mine-1" in done.err
    delayed = queue.job(queue.submit("jobs:square", ":=2", "--delay", "10m"))
    assert delayed["state"] == "scheduled"


def test_jobs_by_lines(queue: Queue) -> None:
    """One job per line, in their order; a bad line is told with its number, and the others are kept."""
    lines = b'1\n[2]\n{"number": 3}\n\nnot json\n{"size": 1}\n4\n'
    done = queue.run("submit", "jobs:square", "--jsonl", "-", stdin=lines, code=1)
    ids = done.out.split()
    assert len(ids) == 4
    assert "line 5: not JSON" in done.err
    assert "line 6: jobs:square takes (number: int)" in done.err
    assert "2 lines of stdin were not submitted" in done.err
    assert [queue.job(job_id)["label"] for job_id in ids] == [
        *(
            ("square(1)", "square(2)", "square(number=3)")
            if in_file(queue)
            else ("square(int)",) * 2 + ("square(number=int)",)
        ),
        "square(4)" if in_file(queue) else "square(int)",
    ]
    queue.run("worker", "--import", "jobs", "--burst")
    assert [queue.run("result", job_id).out for job_id in ids] == ["1\n", "4\n", "9\n", "16\n"]


def test_a_job_of_a_task_that_is_not_here(queue: Queue) -> None:
    """Refused with the flag that submits it all the same; a worker that has not got it hands it back."""
    assert "(--unchecked submits it by name" in refused(queue.project, "submit", "--url", queue.url, "far:f")
    job_id = queue.submit("far:f", ":=1", "--unchecked")
    assert queue.job(job_id)["task"] == "far:f"


# --- around


def test_the_default_store_is_a_file_of_the_user(project: Path) -> None:
    """In the state folder, for nobody else to read; the environment and settings files name another."""
    job_id = taskq(project, "submit", "jobs:square", ":=2").out.strip()
    file = project / "state" / "taskq" / "queue.db"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert taskq(project, "status", job_id).code == 0
    other = f"sqlite://{project}/other.db"
    elsewhere = taskq(project, "status", job_id, TASKQ_URL=other)
    assert elsewhere.code == 3
    assert "there is no queue file" in elsewhere.err
    (project / "taskq.toml").write_text(f'url = "{other}"\n')
    assert taskq(project, "status", job_id).code == 3
    assert taskq(project, "status", job_id, TASKQ_URL=f"sqlite://{file}").code == 0


def test_other_words_for_verbs(project: Path) -> None:
    """What users of RQ type."""
    job_id = taskq(project, "enqueue", "jobs:square", ":=2").out.strip()
    assert taskq(project, "info", job_id, "--json").out == taskq(project, "status", job_id, "--json").out
    assert "enqueue" not in taskq(project, "--help").out


def test_settings_are_shown_with_their_place(project: Path) -> None:
    """Value and origin of each; passwords are masked."""
    (project / "taskq.toml").write_text("retries = 1\n")
    more = {"TASKQ_URL": "redis://ann:s3cret@h/0", "TASKQ_TIMEOUT": "90", "COLUMNS": "400"}
    done = taskq(project, "config", "show", **more)
    shown = done.out.replace(str(project), "PROJECT")
    assert_golden("config-show.txt", re.sub(r" +\n", "\n", re.sub(r"  +", "  ", shown)))
    document = json.loads(taskq(project, "config", "show", "--json", TASKQ_TIMEOUT="90").out)
    assert document["settings"]["timeout"] == {"value": 90.0, "from": "TASKQ_TIMEOUT"}
    assert document["settings"]["url"]["value"] == f"sqlite://{project}/state/taskq/queue.db"


def test_the_doctor(queue: Queue, worker: Callable[..., Command]) -> None:
    """A job that nobody will run is a problem; with a worker there is none."""
    queue.submit("jobs:hang")
    done = queue.run("doctor", code=1)
    assert "1 job waits, and no worker serves it" in done.out
    assert "cure: taskq worker --queues default --import MODULE" in done.out
    worker(queue.url)
    found = json.loads(queue.run("doctor", "--json").out)["findings"]
    assert {finding["level"] for finding in found} <= {"ok", "warning"}
    assert all(finding["cure"] for finding in found if finding["level"] != "ok")


def test_a_locale_without_unicode(file_queue: Queue) -> None:
    """Signs that it has not are replaced; nothing fails, and JSON is UTF-8 all the same."""
    job_id = file_queue.submit("jobs:same", "ä")
    more = {"PYTHONIOENCODING": "ascii", "COLUMNS": "40"}
    out = file_queue.run("status", **more).out
    assert out.isascii()
    assert "~" in out
    assert job_id[-10:] in out
    assert file_queue.run("top", **more).out.isascii()
    file_queue.run("worker", "--import", "jobs", "--burst", **more)
    assert file_queue.run("result", job_id, **more).out == '"ä"\n'


def test_whoever_stops_reading_ends_it(file_queue: Queue) -> None:
    """As `| head` does: exit code 141, no words."""
    file_queue.submit("jobs:same", "x")
    reader, end = os.pipe()
    os.close(reader)
    with Command(file_queue.project, "status", "--watch", "--url", file_queue.url, stdout=end) as command:
        os.close(end)
        assert command.wait() == 141
        assert command.err == ""


def test_a_store_that_is_not_there(project: Path) -> None:
    """Exit code 3, the URL without its password, the cure."""
    sentence = refused(project, "status", "--url", "redis://ann:s3cret@127.0.0.1:1/0", code=3)
    assert "s3cret" not in sentence
    assert "redis://ann:***@127.0.0.1:1/0" in sentence


def test_watching_ends_with_the_jobs(file_queue: Queue, worker: Callable[..., Command]) -> None:
    """Status --watch ID shows changes, and ends when the job has."""
    worker(file_queue.url)
    gate = file_queue.project / "gate"
    job_id = file_queue.submit("jobs:watched", str(gate))
    words = ("status", "--watch", "--every", "50ms", "--url", file_queue.url, job_id)
    with Command(file_queue.project, *words, name="s-") as command:
        eventually(lambda: "running" in command.out, "it to be seen running")
        gate.touch()
        assert command.wait() == 0
        assert "succeeded" in command.out


def test_narrowed_by_task_and_time(queue: Queue) -> None:
    """`--task` and `--since` narrow status, retry --failed and purge down, and mean what they mean in Python."""
    kept, gone = queue.submit("jobs:square", ":=2"), queue.submit("jobs:describe", "a")
    for words in (("--task", "jobs:describe"), ("--task", "jobs:describe", "--since", "1h")):
        found = json.loads(queue.run("status", "--json", *words).out)["jobs"]
        assert [job["id"] for job in found] == [gone]
    assert "soon" in queue.run("status", "--since", "soon", code=2).err
    assert "--since goes with --failed" in queue.run("retry", kept, "--since", "1h", code=2).err
    assert json.loads(queue.run("retry", "--failed", "--task", "jobs:square", "--json").out) == {"retried": []}
    assert queue.run("purge", "--yes", "--state", "queued", "--task", "jobs:describe").out == "1\n"
    assert queue.state(kept) == "queued"
