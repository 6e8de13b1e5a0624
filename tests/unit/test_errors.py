"""The tree of exceptions: its root, the builtins beside it, and that all of it survives pickling."""

from __future__ import annotations

import concurrent.futures
import pickle

import pytest

from taskq import errors
from taskq.errors import EncodeError, JobCrashed, JobError, JobFailed, TaskqError

CLASSES = [getattr(errors, name) for name in errors.__all__]

BUILTINS = [
    (errors.ConfigError, ValueError),
    (errors.TaskRefused, TypeError),
    (errors.UnknownTask, LookupError),
    (errors.EncodeError, TypeError),
    (errors.DecodeError, ValueError),
    (errors.MissingExtra, ImportError),
    (errors.BackendUnavailable, ConnectionError),
    (errors.QueueClosed, RuntimeError),
    (errors.QueueFull, RuntimeError),
    (errors.StoreFull, errors.QueueFull),
    (errors.JobExists, ValueError),
    (errors.PoolBroken, concurrent.futures.BrokenExecutor),
    (errors.Deadlock, RuntimeError),
    (errors.JobNotFound, LookupError),
    (errors.NotInJob, LookupError),
    (errors.JobTimeout, TimeoutError),
    (errors.JobCancelled, concurrent.futures.CancelledError),
]

FULL = [
    EncodeError("object of type Foo", "args[1]['when']"),
    JobFailed("no", type="shop.Sold", traceback="Traceback ...", job_id="7"),
    JobCrashed("died", crashes=3, exitcode=-9, job_id="7"),
    errors.JobTimeout("too long", job_id="7"),
    errors.JobCancelled("by its user", job_id="7"),
    errors.JobExpired("too late", job_id="7"),
    errors.JobExists("job 7 has the key", job_id="7"),
]


@pytest.mark.parametrize("cls", CLASSES)
def test_one_root(cls: type[Exception]) -> None:
    """Every exception of taskq can be caught as TaskqError."""
    assert issubclass(cls, TaskqError)


@pytest.mark.parametrize("cls", CLASSES)
def test_drawn_in_the_docstring(cls: type[Exception]) -> None:
    """The tree at the top of the module leaves out no class."""
    assert cls.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(("cls", "builtin"), BUILTINS)
def test_is_also_the_fitting_builtin(cls: type[Exception], builtin: type[Exception]) -> None:
    """Code that catches the builtin exception catches ours."""
    assert issubclass(cls, builtin)


@pytest.mark.parametrize("cls", CLASSES)
def test_pickles_with_its_message(cls: type[Exception]) -> None:
    """A pickled exception comes back with its class, text and attributes."""
    error = cls("what happened")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is cls
    assert (str(copy), copy.args, copy.__dict__) == (str(error), error.args, error.__dict__)


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_pickles_with_its_attributes(error: TaskqError) -> None:
    """Attributes beyond the message survive pickling too."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert (str(copy), copy.args, copy.__dict__) == (str(error), error.args, error.__dict__)


def test_encode_error_begins_with_the_path() -> None:
    """The text of an EncodeError leads to the value first, then says what is wrong with it."""
    error = EncodeError("object of type Foo", "args[1]['when']")
    assert str(error) == "args[1]['when']: object of type Foo"
    assert error.path == "args[1]['when']"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (JobFailed("sold out", type="shop.Sold"), "shop.Sold: sold out"),
        (JobFailed("", type="shop.Sold"), "shop.Sold"),
        (JobFailed("sold out"), "sold out"),
    ],
)
def test_job_failed_names_the_class_it_could_not_be(error: JobFailed, text: str) -> None:
    """The text of a JobFailed is the original class and message, as far as known."""
    assert str(error) == text


def test_job_errors_know_their_job() -> None:
    """Each way for a job to end badly carries the job's id, None until it is known."""
    for cls in CLASSES:
        if issubclass(cls, JobError):
            assert cls("x").job_id is None
            assert cls("x", job_id="7").job_id == "7"
