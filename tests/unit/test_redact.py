"""Passwords stay out of messages and logs."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.redact import HINT, MASK, PARTS, WORDS, is_secret, redacted, safe_text, safe_url, safe_words


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
        ("redis://:s3c/re?t#p w@host/0", "redis://:***@host/0"),
        ("redis://:abc?s3cret=1@host/0", "redis://:***@host/0"),
        ("redis:/:s3cret@host", "redis:/:***@host"),
        (":s3cret@host", ":***@host"),
        ("redis://:s3cret", "redis://***"),
        ("redis://s3/cret:x@host", "redis://***@host"),
        ("rediz://ann:s3cret@host", "rediz://ann:***@host"),
        ("sqlite://ann:s3cret@host/0", "sqlite://ann:***@host/0"),
        ("sqlite:///home/ann@corp/q.db", "sqlite:///home/ann@corp/q.db"),
        ("redis://host/0?pass=s3cret&pwd=s3cret#otp=s3cret", "redis://host/0?pass=***&pwd=***#otp=***"),
        ("", ""),
    ],
)
def test_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """The place stays readable, the secret goes, also in the middle of a sentence."""
    assert safe_url(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach redis://a:s3cret@host: refused", "cannot reach redis://a:***@host: refused"),
        ("a://u:s3cret@h,b://v:s3cret@h", "a://u:***@h,b://v:***@h"),
        ("mail ann@example.org", "mail ann@example.org"),
        ("login failed password=s3cret, again", "login failed password=***, again"),
        ('{"Authorization": "Bearer s3cret"}', '{"Authorization": "***"}'),
        (r'"{\"token\": \"s3cret\"}"', r'"{\"token\": \"***\"}"'),
        ("{'db_pass': 's3 cret', 'n': 1}", "{'db_pass': '***', 'n': 1}"),
        ("Authorization: Bearer s3cret", "Authorization: ***"),
        ("Cookie: a=s3cret; b=s3cret\nHost: h", "Cookie: ***\nHost: h"),
        ("error='pwd=s3cret'", "error='pwd=***'"),
        ("copy from ann:s3cret@host:/tmp", "copy from ann:***@host:/tmp"),
        ("GET https://x/?sig=s3cret&size=3", "GET https://x/?sig=***&size=3"),
        ("the author: Ann, size: 3", "the author: Ann, size: 3"),
    ],
)
def test_what_a_text_tells_is_masked(text: str, shown: str) -> None:
    """URLs, what stands behind a telling name, and users with their passwords; what else there is stays."""
    assert safe_text(text) == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("curl -u ann:s3cret https://x/", "curl -u ann:*** https://x/"),
        ("curl -uann:s3cret https://x/", "curl -uann:*** https://x/"),
        ("curl -H 'Authorization: Bearer s3cret'", "curl -H 'Authorization: ***'"),
        ("curl 'https://x/?code=s3cret&X-Amz-Signature=s3cret'", "curl 'https://x/?code=***&X-Amz-Signature=***'"),
        ("env PGPASSWORD=s3cret psql", "env 'PGPASSWORD=***' psql"),
        ("sh -c 'cd x && DB_PASS=s3cret ./run'", "sh -c 'cd x && DB_PASS=*** ./run'"),
        ("tool --password s3cret --api-key s3cret file", "tool --password '***' --api-key '***' file"),
        ("tool --private-key=s3cret --size=3", "tool '--private-key=***' --size=3"),
        ("mysql -ps3cret db", "mysql '-p***' db"),
        ("/usr/bin/redis-cli -a s3cret ping", "/usr/bin/redis-cli -a '***' ping"),
        ("ssh -p 22 host", "ssh -p 22 host"),
        ("curl --cookie=s3cret --authorization=Bearer s3cret x", "curl '--cookie=***' '--authorization=***' '***' x"),
        ("curl --header Authorization: Bearer s3cret x", "curl --header Authorization: '***' '***' x"),
        ("curl --header X-Token: s3cret x", "curl --header X-Token: '***' x"),
        ("tool --auth Basic s3cret x", "tool --auth '***' '***' x"),
        ("tool ann:s3cret@host:/path postgres://u:s3cret@h/db", "tool 'ann:***@host:/path' 'postgres://u:***@h/db'"),
    ],
)
def test_what_a_command_tells_is_masked(line: str, shown: str) -> None:
    """In a word, and in the word behind an option that tells."""
    assert safe_words(shlex.split(line)) == shlex.split(shown)


@pytest.mark.parametrize(
    ("name", "tells"),
    [
        *(
            (name, True)
            for name in [
                "password",
                "DB_PASS",
                "pwd",
                "passphrase",
                "auth",
                "private_key",
                "sessionId",
                "jwt",
                "otp",
                "pin",
            ]
        ),
        *((name, True) for name in ["access_key", "X-Api-Key", "X-Amz-Signature", "sig", "set-cookie", "accessToken"]),
        *(
            (name, False)
            for name in ["author", "bypass", "compass", "spin", "signal", "key", "size", "monkey", "design", "topic"]
        ),
    ],
)
def test_one_list_of_telling_names(name: str, tells: bool) -> None:
    """Words of a name count as such, whatever parts them."""
    assert is_secret(name) == tells


def test_what_a_text_is_searched_for_first_is_in_every_telling_name() -> None:
    """So that no name is passed over."""
    names = [*PARTS, *WORDS]
    assert [name for name in names if re.search(HINT, name) is None] == []


@given(st.text(st.characters(codec="ascii"), min_size=4).filter(lambda text: text not in "redis://user:***@host/0"))
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
