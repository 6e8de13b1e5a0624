"""Secrets kept out of messages, logs and labels: one list of telling names for all of them.

    safe_url      a setting that is, or should be, a URL: all of it up to its last "@", whatever else is wrong with it
    safe_text     any text: URLs in it, `password=x`, `"Authorization": "Bearer x"`, `user:x@host`
    safe_words    a command: that in each word, and the words behind `--password`, `-u user:x`
    redacted      a value with names in it: what stands under a telling one

A text may come from a job, so each of these takes time in proportion to its length: names and values are scanned once,
from left to right, by expressions that do not go back.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "KEYS_FILE_VARIABLE",
    "KEYS_VARIABLE",
    "MASK",
    "URL_VARIABLE",
    "is_secret",
    "redacted",
    "safe_text",
    "safe_url",
    "safe_words",
    "without_password",
]

#: What stands in the place of a secret.
MASK = "***"

#: The variable that names the queue.
URL_VARIABLE = "TASKQ_URL"

#: The variables with the keys that sign, see `signing`: themselves, or the file that they stand in.
KEYS_VARIABLE = "TASKQ_SIGNING_KEYS"
KEYS_FILE_VARIABLE = "TASKQ_SIGNING_KEYS_FILE"

#: Levels of dicts and lists that are searched; log fields are shallow, and a cycle must end.
MAX_DEPTH = 6

#: Characters of a text in a log line that are looked at and written, half from its start and half from its end.
MAX_TEXT = 4096

#: Characters of the longest name that is looked at.
MAX_NAME = 200

#: What tells a secret anywhere in a name, in lower case and without what parts its words.
PARTS = (
    *("password", "passwd", "passphrase", "passcode", "secret", "token", "authorization", "credential", "cookie"),
    *("apikey", "accesskey", "privatekey", "signingkey", "encryptionkey", "sessionid", "authkey", "signature"),
)

#: What tells a secret as a word of a name.
WORDS = frozenset(("pass", "pwd", "auth", "jwt", "otp", "totp", "pin", "sig", "bearer", "sid", "passin", "passout"))

#: What tells a secret in the query of a URL besides.
IN_QUERY = frozenset(("code", "key"))

# Texts, which `re` compiles when they are needed first and keeps: to do so here would take 0.4 ms of every start.
WORD = r"[A-Z]?[a-z]++|[A-Z]++(?![a-z])|[A-Z]|\d++"
#: A name, and what stands between it and its value: `password=`, `"password": `, `\"password\": `.
NAMED = r"(?<![\w-])([\w-][\w.-]{0,63}+)(?:\\{0,4}+[\"']?[ \t]{0,4}+[=:][ \t]{0,4}+)"
#: The kind of a credential, which stands before it.
KIND = r"(?i:bearer|basic|digest|token|negotiate|apikey)"
#: A value: what stands in quotes, or a word, with the kind of credential before it.
VALUE = (
    r"\\{1,4}+\"(?:[^\"\\]|\\++[^\"\\])*+|\"(?:[^\"\\]|\\.)*+|'(?:[^'\\]|\\.)*+"
    rf"|(?:{KIND}[ \t]{{1,4}}+)?+"
    r"[^\s,;&\"'\\})\]]++"
)
#: `user:password@` before a host, outside of a URL.
USER_AT = r"(?<![\w.+%/@:-])(?!mailto:)([\w.+%-]{1,64}+):(?!//)[^\s@/\"']{1,128}+@(?=[\w\[])"
#: The value of a header that has several words.
HEADER = rf"(?=[\"'\\])(?:{VALUE})|[^\n\"'\\]++"
#: What any telling name has in it: most texts have none of these, and need not be looked at more closely.
HINT = r"(?i:pass|pwd|secret|token|auth|cred|cookie|key|session|sig|jwt|otp|pin|bearer|sid)"
SCHEME = r"([a-zA-Z][a-zA-Z0-9+.-]{0,31}+:)(/{0,3})"
USER = r"[\w.+%-]{1,64}"

#: Options of programs, of one letter, whose value is a secret: apart by a space, or joined.
SHORT_OPTIONS = {
    **dict.fromkeys(("mysql", "mysqladmin", "mysqldump", "mysqlimport", "mariadb", "mariadb-dump"), ("-p",)),
    **dict.fromkeys(("sshpass", "docker", "podman", "7z", "unrar"), ("-p",)),
    **dict.fromkeys(("redis-cli", "valkey-cli"), ("-a",)),
    **dict.fromkeys(("zip", "unzip", "sqlcmd"), ("-P",)),
    **dict.fromkeys(("ldapsearch", "ldapmodify", "ldapadd"), ("-w",)),
}
#: Options whose value is `user:password`.
USER_OPTIONS = ("-u", "--user", "-U", "--proxy-user", "--userpwd")


# --- names


@lru_cache(maxsize=1024)
def is_secret(name: str) -> bool:
    """Tell whether a name says that what stands under it is to be kept secret."""
    name = name[:MAX_NAME]
    joined = re.sub(r"[\W_]++", "", name).lower()
    return any(part in joined for part in PARTS) or not WORDS.isdisjoint(map(str.lower, re.findall(WORD, name)))


def _is_header(name: str) -> bool:
    """Tell whether the value of a telling name goes on behind blanks and semicolons."""
    return name.lower().endswith(("cookie", "authorization"))


# --- URLs


def safe_url(text: str) -> str:
    """Return a URL without its password, whatever else it may hold, and be it none.

    >>> safe_url("redis://ann:s3cret@queue-host/0")
    'redis://ann:***@queue-host/0'
    """
    found = re.match(SCHEME, text)
    scheme = found[0] if found is not None else ""
    rest = text[len(scheme) :]
    if found is not None and found[2] == "///":  # a path, in which an "@" is a character like others
        return scheme + _safe_query(rest)
    before, at, host = rest.rpartition("@")
    if not at:
        return scheme + _safe_query(MASK if rest.startswith(":") else rest)
    return f"{scheme}{_without_password(before)}@{_safe_query(host)}"


def _without_password(before: str) -> str:
    """Mask a lone name too: in `redis://s3cret@host` it is a password put in the wrong place."""
    user, colon, _ = before.partition(":")
    return f"{user}:{MASK}" if colon and (not user or re.fullmatch(USER, user)) else MASK


def _safe_query(text: str) -> str:
    """Mask the values of telling names behind the first of `?`, `&`, `#`, `;`."""
    parts = re.split(r"([?&#;])", text)
    for at in range(2, len(parts), 2):
        name, mark, value = parts[at].partition("=")
        if value and (is_secret(name) or name.lower() in IN_QUERY):
            parts[at] = name + mark + MASK
    return "".join(parts)


def without_password(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return variables without the queue's URL, where that has a password, and without the keys that sign.

    Commands and jobs need not know them.
    """
    url = environ.get(URL_VARIABLE, "")
    if safe_url(url) == url and KEYS_VARIABLE not in environ:
        return environ
    hidden = (KEYS_VARIABLE,) if safe_url(url) == url else (KEYS_VARIABLE, URL_VARIABLE)
    return {name: value for name, value in environ.items() if name not in hidden}


# --- texts


def safe_text(text: str) -> str:
    """Return a text without the passwords that it tells."""
    if "@" in text or ("=" in text and "://" in text):
        text = "".join(_safe_word(word) for word in re.split(r"([\s\"'<>]++)", text))
    return _safe_named(text) if ("=" in text or ":" in text) and re.search(HINT, text) is not None else text


def _safe_word(word: str) -> str:
    """Mask the passwords of the URLs in a word; what is before the second scheme belongs to the first URL."""
    if "://" not in word:
        return re.sub(USER_AT, rf"\1:{MASK}@", word) if "@" in word else word
    head, *urls = word.split("://")
    safe = [head]
    for url in urls:
        before, at, host = url.rpartition("@")
        safe.append(f"{_without_password(before)}@{_safe_query(host)}" if at else _safe_query(url))
    return "://".join(safe)


def _safe_named(text: str) -> str:
    """Mask the values behind telling names."""
    safe, done = [], 0
    value, header = re.compile(VALUE), re.compile(HEADER)
    for found in re.finditer(NAMED, text):
        if found.start() < done or not is_secret(found[1]):
            continue
        masked = (header if _is_header(found[1]) else value).match(text, found.end())
        if masked is not None and not masked[0].startswith(("//", MASK)):
            start = found.end() + len(masked[0]) - len(masked[0].lstrip("\\\"'"))
            safe += [text[done:start], MASK]
            done = masked.end()
    return "".join([*safe, text[done:]])


# --- commands


def safe_words(argv: Sequence[str]) -> list[str]:
    """Return the words of a command without the passwords that they tell."""
    safe: list[str] = []
    short = SHORT_OPTIONS.get(argv[0].rpartition("/")[2], ()) if argv else ()
    hidden = user = False
    for word in argv:
        if hidden:
            safe.append(MASK)
        elif user and ":" in word:
            safe.append(f"{word.partition(':')[0]}:{MASK}")
        else:
            safe.append(_safe_argument(word, short))
        hidden = word in short or _hides_next(word, hidden=hidden)
        user = word in USER_OPTIONS
    return safe


def _hides_next(word: str, *, hidden: bool) -> bool:
    """Tell whether the next word is a secret: behind `--password`, `Authorization:`, `--authorization=Bearer`."""
    if word.startswith("-") and "=" not in word and is_secret(word):
        return True
    name, mark, value = word.partition("=" if "=" in word else ":")
    if not mark:
        return hidden and re.fullmatch(KIND, word) is not None
    return is_secret(name) and ((mark == ":" and not value) or re.fullmatch(KIND, value) is not None)


def _safe_argument(word: str, short: Sequence[str]) -> str:
    """Mask what a word of a command tells by itself."""
    option = next((option for option in short if word.startswith(option) and word != option), None)
    if option is not None and not word.startswith("--"):
        return option + MASK
    name, mark, value = word.partition("=")
    if mark and value and re.fullmatch(r"[\w.-]{1,200}+", name) and is_secret(name):
        return name + mark + MASK
    if word.startswith("-u") and ":" in word[2:] and not word.startswith("--"):
        return f"{word.partition(':')[0]}:{MASK}"
    return safe_text(word)


# --- values


def redacted(value: Any, depth: int = 0) -> Any:
    """Return a value with the secrets masked: what stands under a telling name, and what texts tell; these are cut."""
    if isinstance(value, str):
        return safe_text(_cut(value))
    if depth >= MAX_DEPTH:
        return value
    if isinstance(value, dict):
        return {key: _field(key, entry, depth + 1) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(redacted(entry, depth + 1) for entry in value)
    return value


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]} ... {len(text) - 2 * half} characters left out ... {text[-half:]}"


def _field(name: object, value: Any, depth: int) -> Any:
    if isinstance(name, str) and value is not None and is_secret(name):
        return MASK
    return redacted(value, depth)
