"""Nothing of real modules can be called but what their own source defines as a public function, whatever is walked to.

The oracle reads source text and runs nothing: `def` at the top of a module, and in its classes, without `_` in front.
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from taskq.allowlist import AllowList
from taskq.errors import UnknownTask
from taskq.tasks import registered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

#: Modules of the standard library, and of what is installed for the tests.
MODULES = (
    *("argparse", "ast", "asyncio.events", "base64", "calendar", "code", "collections", "concurrent.futures._base"),
    *("configparser", "contextlib", "copy", "csv", "ctypes", "dataclasses", "datetime", "decimal", "email.message"),
    *("enum", "fractions", "functools", "gzip", "http.client", "http.server", "inspect", "json", "json.decoder"),
    *("logging", "mailbox", "multiprocessing.pool", "numbers", "os", "pathlib", "pickle", "platform", "pprint"),
    *("random", "shelve", "shutil", "socketserver", "statistics", "subprocess", "tarfile", "tempfile", "textwrap"),
    *("threading", "typing", "unittest.mock", "urllib.request", "uuid", "webbrowser", "xml.dom.minidom", "zipfile"),
    *("click.core", "click.types", "hypothesis.strategies", "msgpack", "redis", "redis.client", "rq", "rq.job"),
    *("rq.queue", "rq.worker.base", "tests.sample_tasks", "taskq", "taskq.shell"),
)

#: How deep attributes of attributes are followed, and how many are looked at below one.
DEPTH, WIDTH = 3, 120


def defined(module: ModuleType) -> set[str]:
    """Return the names of the public functions that stand in a module's source."""
    return set(_functions(ast.parse(inspect.getsource(module)).body, ""))


def _functions(body: list[ast.stmt], before: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield before + node.name
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _functions(node.body, f"{before}{node.name}.")
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            branches = [node.body, *(getattr(node, name, []) for name in ("orelse", "finalbody"))]
            for branch in (*branches, *(handler.body for handler in getattr(node, "handlers", ()))):
                yield from _functions(branch, before)


def reachable(module: ModuleType) -> Iterator[str]:
    """Yield every attribute of a module, of its attributes and of theirs, inherited ones too."""
    ways: list[tuple[str, object, int]] = [("", module, 0)]
    while ways:
        before, where, depth = ways.pop()
        for name in dir(where)[: WIDTH if depth else None]:
            yield before + name
            try:
                found = inspect.getattr_static(where, name) if depth else getattr(where, name)
            except AttributeError:
                continue
            if depth + 1 < DEPTH and (isinstance(found, type) or depth == 0):
                ways.append((f"{before}{name}.", found, depth + 1))


@pytest.mark.parametrize("name", MODULES)
def test_every_attribute_of_a_module(name: str) -> None:
    """Each attribute that can be walked to is refused, unless the module's source defines it as a public function."""
    module = import_module(name)
    allowed, listed, lent = AllowList([name]), defined(module), set()
    for attribute in set(reachable(module)):
        task = f"{name}:{attribute}"
        if task in registered():
            continue
        try:
            allowed.find(task)
        except UnknownTask:
            continue
        lent.add(attribute)
    assert lent <= listed
    assert lent or not {word for word in listed if "." not in word}, "what it defines is refused"


def test_classes_lend_nothing_of_their_bases() -> None:
    """A class of one's own brings neither itself nor what its base, its metaclass or `object` can do."""
    allowed = AllowList(["tests.sample_trust"])
    names = (
        *("Tar", "Tar.open", "Tar.gzopen", "Tar.extractall", "Home.cwd", "Home.home", "Table.fromkeys"),
        *("Table.__init__", "Process", "Colour.RED", "_own", "system", "posix.system", "wrapped", "spread", "alias"),
        *("cached", "bound", "lent", "Handler.made", "Handler._own", "Handler.alias", "Handler.inherited"),
        *("Handler.Meta", "Handler.Meta.mro"),
    )
    for name in names:
        with pytest.raises(UnknownTask):
            allowed.find(f"tests.sample_trust:{name}")
    assert allowed.find("tests.sample_trust:Handler.own")(None) == "own"
    assert allowed.find("tests.sample_trust:Handler.still")() == "still"
    assert allowed.find("tests.sample_trust:Handler.Inner.deep")(None) == "deep"
