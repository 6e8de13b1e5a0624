"""Settings: who wins, what is refused, and where the message says it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskq.config import Settings, default_url, load
from taskq.errors import ConfigError
from tests.scripts import run

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str) -> Path:
    """Write a file, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load_in(folder: Path, environ: dict[str, str] | None = None, **flags: object) -> Settings:
    """Load as a command in this folder would."""
    return load(flags, environ=environ or {}, directory=str(folder))


def test_defaults_without_any_source(tmp_path: Path) -> None:
    """Nothing said: the local queue, and everything else left open."""
    assert load_in(tmp_path) == Settings()
    assert default_url(environ={}, directory=str(tmp_path)) == "local://"


def test_each_source_wins_over_the_next(tmp_path: Path) -> None:
    """Flag, then environment, then taskq.toml, then pyproject.toml."""
    write(tmp_path / "pyproject.toml", "[tool.taskq]\nprocesses = 1\n")
    assert load_in(tmp_path).processes == 1
    write(tmp_path / "taskq.toml", "processes = 2\n")
    assert load_in(tmp_path).processes == 2
    environ = {"TASKQ_PROCESSES": "3"}
    assert load_in(tmp_path, environ).processes == 3
    assert load_in(tmp_path, environ, processes=4).processes == 4
    assert load_in(tmp_path, environ, processes=None).processes == 3


def test_sources_are_merged_key_by_key(tmp_path: Path) -> None:
    """A file that says one thing leaves the others to the next source."""
    write(tmp_path / "pyproject.toml", '[tool.taskq]\nurl = "local://?processes=2"\ntimeout = 5\n')
    write(tmp_path / "taskq.toml", 'timeout = "10m"\n')
    settings = load_in(tmp_path, {"TASKQ_RETRIES": "2"}, log_level="debug")
    assert (settings.url, settings.timeout, settings.retries) == ("local://?processes=2", 600.0, 2)
    assert settings.log_level == "debug"


def test_files_are_found_upwards_and_the_nearest_counts(tmp_path: Path) -> None:
    """A project's settings hold in its folders; an inner file of the same name takes over."""
    write(tmp_path / "taskq.toml", "retries = 1\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert load_in(inner).retries == 1
    write(tmp_path / "a" / "taskq.toml", "retries = 2\n")
    assert load_in(inner).retries == 2


def test_a_pyproject_without_our_table_is_passed_over(tmp_path: Path) -> None:
    """Someone else's pyproject.toml, valid or not, neither counts nor disturbs."""
    write(tmp_path / "pyproject.toml", "[tool.taskq]\nretries = 1\n")
    write(tmp_path / "a" / "pyproject.toml", "[tool.other]\nretries = 5\n")
    write(tmp_path / "a" / "b" / "pyproject.toml", "this is not TOML = = =\n")
    assert load_in(tmp_path / "a" / "b").retries == 1


def test_a_named_file_is_read_in_the_place_of_found_ones(tmp_path: Path) -> None:
    """TASKQ_CONFIG names one file, of either kind."""
    write(tmp_path / "taskq.toml", "retries = 1\n")
    other = write(tmp_path / "other.toml", "processes = 7\n")
    settings = load_in(tmp_path, {"TASKQ_CONFIG": str(other)})
    assert (settings.processes, settings.retries) == (7, None)
    project = write(tmp_path / "x" / "pyproject.toml", "[tool.taskq]\nprocesses = 8\n")
    assert load_in(tmp_path, {"TASKQ_CONFIG": str(project)}).processes == 8
    with pytest.raises(ConfigError, match=r"cannot read the settings in .*missing.toml"):
        load_in(tmp_path, {"TASKQ_CONFIG": str(tmp_path / "missing.toml")})


def test_an_empty_variable_was_not_set(tmp_path: Path) -> None:
    """`TASKQ_TIMEOUT= command` takes the variable back, as shells' users expect."""
    assert load_in(tmp_path, {"TASKQ_TIMEOUT": ""}).timeout is None


def test_variables_of_others_and_those_given_to_commands_are_no_settings(tmp_path: Path) -> None:
    """TASKQ_JOB_ID is set for commands that run as jobs; such a command may use taskq itself."""
    assert load_in(tmp_path, {"TASKQ_JOB_ID": "x", "TASKQ_ATTEMPT": "1", "HOME": "/"}) == Settings()


def test_default_url_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """`TaskQueue()` asks the same sources."""
    write(tmp_path / "taskq.toml", 'url = "local://?processes=3"\n')
    assert default_url(environ={}, directory=str(tmp_path)) == "local://?processes=3"
    assert default_url(environ={"TASKQ_URL": "local://"}, directory=str(tmp_path)) == "local://"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("proceses = 2", r"taskq\.toml: proceses: no such setting; did you mean processes"),
        ("zzz = 2", r"taskq\.toml: zzz: no such setting; the settings are url, processes"),
        ("processes = 0", r"taskq\.toml: processes: 0 is not a whole number from 1 up"),
        ("processes = true", r"processes: True is not a whole number"),
        ('processes = "many"', r"processes: 'many' is not a whole number"),
        ("url = 5", r"taskq\.toml: url: 5 is not a text"),
        ('timeout = "soon"', r"timeout: 'soon' is not a length of time"),
        ('start_method = "thread"', r"start_method: 'thread': write fork, forkserver or spawn"),
        ('log_format = "xml"', r"log_format: 'xml': write console or json"),
        ('log_level = "loud"', r"log_level: 'loud': write debug"),
        ('progress = "maybe"', r"progress: 'maybe': write true or false"),
        ("processes = = 2", r"taskq\.toml are not valid TOML: .*line 1"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_key(tmp_path: Path, text: str, message: str) -> None:
    """The message says which file, which key, and what may stand there."""
    write(tmp_path / "taskq.toml", f"{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_in(tmp_path)


def test_a_bad_value_is_named_as_it_was_written(tmp_path: Path) -> None:
    """A flag is called --log-level, a variable TASKQ_LOG_LEVEL."""
    with pytest.raises(ConfigError, match="--log-level: 'x'"):
        load_in(tmp_path, log_level="x")
    with pytest.raises(ConfigError, match="TASKQ_LOG_LEVEL: 'x'"):
        load_in(tmp_path, {"TASKQ_LOG_LEVEL": "x"})


def test_a_bad_file_is_refused_even_under_a_flag(tmp_path: Path) -> None:
    """A typing error in a file is told at once, not on the day the flag is left out."""
    write(tmp_path / "taskq.toml", "processes = 0\n")
    with pytest.raises(ConfigError, match="processes"):
        load_in(tmp_path, processes=2)


def test_a_table_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    """`taskq = 5` under [tool] is a mistake that is named."""
    write(tmp_path / "pyproject.toml", "# [tool.taskq]\n[tool]\ntaskq = 5\n")
    with pytest.raises(ConfigError, match="make it a table"):
        load_in(tmp_path)


def test_a_deleted_working_directory_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no folder, there are no files."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load(environ={}) == Settings()


def test_toml_is_read_only_when_there_is_a_file(tmp_path: Path) -> None:
    """Without a settings file nothing imports tomllib: starting stays quick."""
    source = """
        import sys
        from taskq.config import load
        load(environ={}, directory=sys.argv[1])
        assert "tomllib" not in sys.modules
    """
    empty = tmp_path / "empty"
    empty.mkdir()
    run(tmp_path, source, empty)
