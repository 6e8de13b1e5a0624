"""Passwords stay out of messages and logs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.redact import MASK, redacted, safe_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://ann:s3cret@host:6379/0", "redis://ann:***@host:6379/0"),
        ("redis://:s3cret@host/0", "redis://:***@host/0"),
        ("redis://s3cret@host/0", "redis://***@host/0"),
        ("redis://ann:s3/c@ret@host/0", "redis://ann:***@host/0"),
        ("redis://host/0?password=s3cret&db=1", "redis://host/0?password=***&db=1"),
        ("redis://host/0?db=1&auth_token=s3cret", "redis://host/0?db=1&auth_token=***"),
        ("local://?processes=4", "local://?processes=4"),
        ("sqlite:///home/ann/q.db", "sqlite:///home/ann/q.db"),
        ("cannot reach redis://a:s3cret@host: refused", "cannot reach redis://a:***@host: refused"),
        ("mail ann@example.org", "mail ann@example.org"),
        ("", ""),
    ],
)
def test_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """The place stays readable, the secret goes, also in the middle of a sentence."""
    assert safe_url(url) == shown


@given(st.text(st.characters(codec="ascii", exclude_characters=" ?#@\n\t\r\f\v\x1c\x1d\x1e\x1f"), min_size=4))
def test_no_password_survives(password: str) -> None:
    """Whatever the password is made of, it is not in what is shown."""
    shown = safe_url(f"redis://user:{password}@host/0")
    assert shown == f"redis://user:{MASK}@host/0"


def test_fields_with_telling_names_are_masked_at_any_depth() -> None:
    """Names decide, then URLs in values; everything else stays as it is."""
    fields = {
        "password": "x",
        "url": "redis://a:b@h",
        "nested": {"Authorization": "y", "list": [{"api_key": "z"}], "n": 1},
        "count": 3,
        "token": None,
    }
    assert redacted(fields) == {
        "password": MASK,
        "url": "redis://a:***@h",
        "nested": {"Authorization": MASK, "list": [{"api_key": MASK}], "n": 1},
        "count": 3,
        "token": None,
    }


def test_a_cycle_ends() -> None:
    """A value that contains itself does not hang the log."""
    cycle: list[object] = []
    cycle.append(cycle)
    assert isinstance(redacted(cycle), list)
