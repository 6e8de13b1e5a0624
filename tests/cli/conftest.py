"""Fixtures of the command line's tests."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from taskq.connect import open_store
from tests.cli.command import Command, new_project, taskq
from tests.cli.store_queue import Queue
from tests.redis_server import RedisServer
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a folder with a user's project in it, to run commands in."""
    return new_project(tmp_path / "project")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give a Redis that the tests of a module share; each gets a database of its own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, project: Path) -> str:
    """Give the URL of an empty store of each kind."""
    if request.param == "sqlite":
        return empty_file(project)
    server: RedisServer = request.getfixturevalue("redis")
    return server.fresh_url()


@pytest.fixture
def queue(project: Path, url: str) -> Queue:
    """Give an empty store of each kind, to run commands on."""
    return Queue(project, url)


@pytest.fixture
def file_queue(project: Path) -> Queue:
    """Give an empty queue file, to run commands on: for what does not depend on the store."""
    return Queue(project, empty_file(project))


def empty_file(project: Path) -> str:
    """Make an empty queue file, as commands that look or change something want one; return its URL."""
    url = f"sqlite://{project}/queue.db"
    open_store(url).close()
    return url


@pytest.fixture
def worker(project: Path) -> Iterator[Callable[..., Command]]:
    """Start workers that run the project's tasks; they are ended after the test."""
    running: list[Command] = []

    def start(url: str | None = None, *flags: object) -> Command:
        where = ("--url", url) if url is not None else ()
        words = ("worker", *where, "--import", "jobs", "--processes", 2, *flags)
        place = project / "w"  # their temporary files stay as long as they run
        place.mkdir(exist_ok=True)
        env = {"TMPDIR": str(place)}
        command = Command(project, *words, name=f"worker-{len(running)}-", env=env).__enter__()
        running.append(command)
        eventually(lambda: len(workers(project, url)) == len(running), "the worker to sign on")
        return command

    yield start
    for command in running:
        command.__exit__(None, None, None)


def workers(project: Path, url: str | None) -> list[str]:
    """Return the names of the workers that are alive; none where there is no queue file yet. The user's own: None."""
    if url is None:
        done = taskq(project, "workers", "--json")
        return [found["name"] for found in json.loads(done.out)["workers"]] if done.out else []
    with contextlib.closing(open_store(url)) as store:
        return [found.name for found in store.workers()]
