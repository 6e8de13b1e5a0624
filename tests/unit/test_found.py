"""Which settings files are believed: nobody else's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from taskq import config
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder two below one that has a settings file, in a home that is above both."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(config, "warned", set())
    (tmp_path / "above" / "here").mkdir(parents=True)
    settings(tmp_path / "above" / "taskq.toml")
    return tmp_path / "above" / "here"


def settings(path: Path, text: str = "retries = 7") -> Path:
    """Write a settings file as its owner would."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return path


def retries(folder: Path) -> int | None:
    """Return the setting, as found from a folder."""
    return config.load(environ={}, directory=str(folder)).retries


def test_one_s_own_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a folder below it, without a word."""
    assert retries(folder) == 7
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_others_may_write_is_passed_over(folder: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And said, once."""
    (folder.parent / "taskq.toml" if what == "file" else folder.parent).chmod(0o777)
    assert retries(folder) is None
    assert retries(folder) is None
    assert capsys.readouterr().err.count("taskq.toml are not read: others may write") == 1


def test_a_sticky_folder_is_as_good_as_the_file(folder: Path) -> None:
    """Nobody renames there what is another's."""
    folder.parent.chmod(0o1777)
    assert retries(folder) == 7


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", ["taskq.toml", "pyproject.toml"])
def test_another_user_s_is_passed_over(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever it lies, as /tmp/taskq.toml; a pyproject.toml that has nothing for us is not spoken of."""
    (folder.parent / "taskq.toml").unlink()
    theirs = settings(folder.parent / name, "[tool.taskq]\nretries = 7" if name == "pyproject.toml" else "retries = 7")
    os.chown(theirs, 12345, 12345)
    assert retries(folder) is None
    assert "it belongs to another user" in capsys.readouterr().err
    config.warned.clear()
    os.chown(settings(folder.parent / "pyproject.toml", "[project]"), 12345, 12345)
    (folder.parent / "taskq.toml").unlink(missing_ok=True)
    assert retries(folder) is None
    assert capsys.readouterr().err == ""


def test_nothing_is_read_above_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home folder itself is the last."""
    monkeypatch.setenv("HOME", str(folder.parent))
    assert retries(folder) == 7
    monkeypatch.setenv("HOME", str(folder))
    assert retries(folder) is None


@pytest.mark.parametrize("name", ["allow_pickle", "allow_callbacks", "allow_unsigned_rq", "rq_commands"])
def test_no_file_that_was_found_permits_code(folder: Path, name: str) -> None:
    """One that was named does."""
    path = settings(folder.parent / "taskq.toml", f'url = "redis://h/0?{name}=1"')
    with pytest.raises(ConfigError, match=name):
        config.load(environ={}, directory=str(folder))
    assert name in config.load(environ={"TASKQ_CONFIG": str(path)}, directory=str(folder)).url


def test_a_pipe_in_its_place_is_no_file(folder: Path) -> None:
    """Nothing waits for whoever would write it."""
    os.mkfifo(folder / "taskq.toml")
    assert retries(folder) == 7
