"""What starts taskq elsewhere says what the command line understands: docker-compose.yml and the systemd unit.

The compose file is checked against the Compose specification's own schema, which the package check-jsonschema
carries. No container is started here: that takes a Docker daemon, and a registry.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest
import redis
from ruamel.yaml import YAML

from taskq.cli.app import cli
from taskq.durations import parse_duration
from tests.project.commands import ROOT, run
from tests.redis_server import free_port
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.redis_server import RedisServer

COMPOSE = ROOT / "docker-compose.yml"
UNIT = ROOT / "contrib" / "taskq-worker.service"
DOCKERFILE = ROOT / "Dockerfile"

#: Subcommands of docker compose that the comments show.
DOCKER = {"up", "run", "down"}


def services() -> dict[str, Any]:
    """Return the services of the compose file."""
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(COMPOSE)["services"]
    return found


def unit() -> dict[str, str]:
    """Return the settings of the unit; those that stand in it twice are not looked at here."""
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w*=", line))


def parse(words: list[str]) -> click.Context:
    """Parse a taskq command line with the real commands' parsers, and run nothing."""
    name, *rest = words
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"there is no command {name}"
    return command.make_context(name, rest, parent=click.Context(cli, info_name="taskq"))


def shown_commands() -> list[list[str]]:
    """Return the commands in the compose file's comments."""
    lines = COMPOSE.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line.removeprefix("#")) for line in lines if line.startswith("#   docker ")]


def test_compose_file_fits_the_specification() -> None:
    """The schema of the Compose specification accepts the file."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_schema_refuses_what_compose_does_not_know(tmp_path: Path) -> None:
    """The check above can fail: a misspelt key is refused."""
    path = tmp_path / "docker-compose.yml"
    path.write_text(COMPOSE.read_text(encoding="utf-8").replace("stop_grace_period", "stop_grace_perod"), "utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "stop_grace_perod" in done.stdout


def test_services_are_what_a_newcomer_needs() -> None:
    """Redis keeps what it is told and says when it is ready; workers wait for it, and the demo for workers."""
    redis, worker, submit = (services()[name] for name in ("redis", "worker", "submit"))
    assert "--appendonly yes" in redis["command"][-1]
    assert redis["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]
    assert worker["depends_on"]["redis"]["condition"] == "service_healthy"
    assert worker["deploy"]["replicas"] > 1
    assert submit["depends_on"]["worker"]["condition"] == "service_healthy"
    assert submit["restart"] == "no"
    for service in (worker, submit):
        assert service["environment"]["TASKQ_URL"] == f"redis://:{redis['environment']['REDISCLI_AUTH']}@redis:6379/0"
    for service in (redis, worker, submit):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_compose_commands_are_of_the_real_command_line() -> None:
    """Every taskq command of a service is understood, and its grace fits into the time that Docker gives."""
    worker = services()["worker"]
    program, *words = worker["command"]
    assert program == "taskq"
    context = parse(words)
    assert parse_duration(context.params["grace"]) < parse_duration(worker["stop_grace_period"])
    assert str(context.params["health_port"]) in worker["healthcheck"]["test"][-1]
    for module in context.params["imports"]:
        assert importlib.util.find_spec(module)


def test_compose_submits_what_its_workers_were_told_to_trust() -> None:
    """The program of the service `submit` is a module here, and what it submits is in a module that workers import."""
    *python, program = services()["submit"]["command"]
    assert python == ["python", "-m"]
    (trusted,) = parse(services()["worker"]["command"][1:]).params["imports"]
    assert f"from {trusted} import" in (ROOT / program.replace(".", "/")).with_suffix(".py").read_text("utf-8")


@pytest.mark.parametrize("command", shown_commands(), ids=lambda words: "-".join(words[2:]))
def test_commands_in_the_comments_are_real(command: list[str]) -> None:
    """What the comments tell people to type names services that exist, and commands of taskq."""
    docker, compose, verb, *rest = command
    assert (docker, compose) == ("docker", "compose")
    assert verb in DOCKER
    for word in rest:
        if word.startswith("worker="):
            assert "worker" in services()
    if verb == "run":
        _flag, service, program, *words = rest
        assert service in services()
        assert program == "taskq"
        parse(words)


def test_image_has_what_the_commands_need() -> None:
    """Each file that the Dockerfile copies is here and let through by .dockerignore, and the extra exists."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in DOCKERFILE.read_text(encoding="utf-8").splitlines():
        word, *rest = line.split() or [""]
        if word == "COPY":
            for name in rest[:-1]:
                assert (ROOT / name).exists()
                assert f"!{name}" in ignored
        if "pip install" in line:
            assert '".[redis]"' in line
    assert "\nredis = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_services_work_together_without_docker(redis_server: RedisServer, tmp_path: Path) -> None:
    """The worker's command and the demo's, as they stand in the file, meet in a real Redis and do the work."""
    for number in range(20):
        (tmp_path / f"module{number}.py").write_text("def f(x):\n    return 1 if x else 0\n", encoding="utf-8")
    place = {"TASKQ_URL": redis_server.fresh_url()}
    command = [word if word != "8080" else "0" for word in services()["worker"]["command"]]
    worker = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **place},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, *program = services()["submit"]["command"]
        done = run([sys.executable, *program, str(tmp_path)], ROOT, environment=place)
        assert done.returncode == 0, done.stderr
        assert f"   20  on {socket.gethostname()}" in done.stdout
    finally:
        worker.terminate()
        _, log = worker.communicate(timeout=40)
    assert worker.returncode == 0, log


# --- the systemd unit


def test_unit_bounds_what_jobs_take() -> None:
    """Processes and memory of the unit have a limit, and its system calls are those of a service."""
    settings = unit()
    assert int(settings["TasksMax"]) > 0
    assert settings["MemoryMax"]
    assert settings["SystemCallFilter"] == "@system-service"


def test_redis_of_the_compose_file_wants_its_password(tmp_path: Path) -> None:
    """The very command of the service, run here, refuses who has no password and lets in who has it."""
    shell, flag, text = services()["redis"]["command"]
    port = free_port()
    line = f"{text.replace('$$', '$')} --port {port} --bind 127.0.0.1 --dir {tmp_path} --save ''"
    environment = {**os.environ, "REDISCLI_AUTH": "a b"}
    with subprocess.Popen([shell, flag, line], env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            client: Any = redis.Redis(port=port, password="a b")
            eventually(lambda: _answers(client), "redis-server to answer")
            stranger: Any = redis.Redis(port=port)
            with pytest.raises(redis.AuthenticationError):
                stranger.ping()
            stranger.close()
            with contextlib.suppress(redis.ConnectionError):
                client.shutdown(nosave=True)
            client.close()
        finally:
            server.terminate()


def _answers(client: Any) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def test_unit_starts_a_real_command() -> None:
    """The unit's command line is understood, and systemd waits longer than the jobs' grace."""
    program, *words = shlex.split(unit()["ExecStart"])
    assert program.endswith("/taskq")
    assert words[0] == "worker"
    context = parse(words)
    assert parse_duration(context.params["grace"]) < parse_duration(unit()["TimeoutStopSec"])


def test_unit_ends_the_worker_as_the_worker_expects() -> None:
    """SIGTERM goes to the worker alone; it is started again when it failed, but not when it was told nonsense."""
    settings = unit()
    assert (settings["KillSignal"], settings["KillMode"]) == ("SIGTERM", "mixed")
    assert (settings["Restart"], settings["RestartPreventExitStatus"]) == ("on-failure", "2")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
def test_unit_is_understood_by_systemd(tmp_path: Path) -> None:
    """The real systemd finds no unknown setting in it."""
    program = tmp_path / "taskq"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/taskq/bin/taskq", str(program)), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert copy.name not in done.stdout + done.stderr, done.stderr
