"""Passwords in URLs that fall apart by them are not shown."""

from __future__ import annotations

from contextlib import closing

import pytest

from taskq.connect import open_store
from taskq.errors import BackendUnavailable, ConfigError


@pytest.mark.parametrize(
    "password",
    ["s3cr/etpart", "s3cr?etpart", "s3cr#etpart", "s3cr etpart", "s3cr:etpart", "p@etpart:/w#%rd?", "etpart?db"],
)
@pytest.mark.parametrize("user", ["", "ann"])
def test_a_password_that_is_not_escaped_is_not_shown(user: str, password: str) -> None:
    """However the URL falls apart by it."""
    with (
        pytest.raises((ConfigError, BackendUnavailable)) as caught,
        closing(open_store(f"redis://{user}:{password}@127.0.0.1:1/0")) as store,
    ):
        store.workers()
    assert "etpart" not in str(caught.value)
    assert "s3cr" not in str(caught.value)
