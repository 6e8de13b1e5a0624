"""The figures of the code itself: sizes, cycles of imports, docstrings, types; whole, and for each package."""

from __future__ import annotations

import ast
import collections
import io
import json
import statistics
import tokenize
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

#: What is counted as the product; the executors' folder is imported as `taskq.executors`.
HOUSES = {"taskq": "taskq", "executors": "taskq.executors"}
#: Counted by files and lines only.
BESIDE = ("tests", "bench", "examples")
#: Kinds of imports: which of them make up a graph, from those that run at the start to those that never run.
TOP, LATE, TYPING = "top", "late", "typing"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file, parsed."""

    name: str
    package: str
    text: str
    tree: ast.Module
    #: (kind, imported module or module.name), as written.
    imports: list[tuple[str, str]] = field(default_factory=list)

    @cached_property
    def lines(self) -> int:
        """Count its lines."""
        return self.text.count("\n")

    @cached_property
    def functions(self) -> list[Function]:
        """Return all functions, those inside others too."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        """Return all classes."""
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]


def survey(root: Path) -> dict[str, Any]:
    """Read the code below that folder; return its figures."""
    modules = [module for house in HOUSES for module in _modules(root, house)]
    return {
        **_sizes(modules),
        **_imports(modules),
        **_prose(modules),
        "packages": _packages(modules) | {name: _amount(root / name, "*.py") for name in BESIDE},
        "lua": _amount(root / "executors", "*.lua"),
    }


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    """Print them."""
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    table = Table("figure", "value")
    for name, value in figures.items():
        if not isinstance(value, dict):
            table.add_row(
                name.replace("_", " "), " / ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            )
    table.add_section()
    for name, amount in (figures["packages"] | {"lua": figures["lua"]}).items():
        table.add_row(f"{name}: files / lines", f"{amount['files']} / {amount['lines']:,}")
    Console().print(table)


def _modules(root: Path, house: str) -> Iterator[Module]:
    for path in sorted((root / house).rglob("*.py")):
        inside = path.relative_to(root / house).with_suffix("").parts
        name = ".".join((HOUSES[house], *(part for part in inside if part != "__init__")))
        package = ".".join((house, *inside[:-1]))
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        yield Module(name, package, text, tree, list(_imports_of(tree.body, TOP)))


def _imports_of(body: Iterable[ast.AST], kind: str) -> Iterator[tuple[str, str]]:
    """Walk statements; what stands in a function comes late, below `if TYPE_CHECKING` it never runs."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((kind, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((kind, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            yield from _imports_of(node.body, TYPING)
            yield from _imports_of(node.orelse, kind)
        else:
            inner = LATE if isinstance(node, Function) and kind == TOP else kind
            yield from _imports_of(ast.iter_child_nodes(node), inner)


def _sizes(modules: Sequence[Module]) -> dict[str, Any]:
    files = [module.lines for module in modules]
    functions = [_length(node) for module in modules for node in module.functions]
    classes = [node for module in modules for node in module.classes]
    largest = max(classes, key=_length)
    methods = [_methods(node) for node in classes]
    return {
        "files_and_lines": (len(files), sum(files)),
        "file_lines_median_max": (round(statistics.median(files)), max(files)),
        "files_under_60_lines": sum(lines < 60 for lines in files),
        "function_lines_median_p90_max": (round(statistics.median(functions)), _p90(functions), max(functions)),
        "functions_above_25_lines_percent": _percent(sum(length > 25 for length in functions), len(functions)),
        "functions_above_50_lines": sum(length > 50 for length in functions),
        "largest_class_lines_methods": (largest.name, _length(largest), _methods(largest)),
        "classes_above_200_lines": sum(_length(node) > 200 for node in classes),
        "methods_of_a_class_median_p90": (round(statistics.median(methods)), _p90(methods)),
    }


def _imports(modules: Sequence[Module]) -> dict[str, Any]:
    names = {module.name for module in modules}
    cycles = {}
    for title, kinds in (("top", {TOP}), ("run_time", {TOP, LATE}), ("with_TYPE_CHECKING", {TOP, LATE, TYPING})):
        graph = {
            module.name: {
                found
                for kind, target in module.imports
                if kind in kinds and (found := _known(target, names)) and found != module.name
            }
            for module in modules
        }
        cycles[f"files_in_cycles_{title}"] = tuple(sorted(map(len, _cycles(graph)), reverse=True)) or 0
    return {**cycles, "imports_in_functions": sum(_late(module.tree) for module in modules)}


def _prose(modules: Sequence[Module]) -> dict[str, Any]:
    functions = [node for module in modules for node in module.functions]
    public = [node for module in modules for node in _public(module.tree)]
    comments = docs = code = 0
    for module in modules:
        kinds = _lines_by_kind(module)
        comments, docs, code = comments + kinds["comment"], docs + kinds["docstring"], code + kinds["code"]
    return {
        "public_with_docstring_percent": _percent(
            sum(ast.get_docstring(node) is not None for node in public), len(public)
        ),
        "functions_typed_percent": _percent(sum(map(_is_typed, functions)), len(functions)),
        "comments_docstring_lines_per_100_of_code": (round(100 * comments / code), round(100 * docs / code)),
    }


def _packages(modules: Sequence[Module]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for module in modules:
        amount = found.setdefault(module.package, {"files": 0, "lines": 0})
        amount["files"] += 1
        amount["lines"] += module.lines
    return dict(sorted(found.items()))


def _amount(folder: Path, pattern: str) -> dict[str, int]:
    texts = [path.read_text(encoding="utf-8") for path in folder.rglob(pattern)]
    return {"files": len(texts), "lines": sum(text.count("\n") for text in texts)}


def _length(node: Function | ast.ClassDef) -> int:
    """Count the lines of a definition, its decorators left out."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _methods(node: ast.ClassDef) -> int:
    return sum(isinstance(inner, Function) for inner in node.body)


def _p90(values: Sequence[int]) -> int:
    return sorted(values)[len(values) * 9 // 10]


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1)


def _late(tree: ast.Module) -> int:
    """Count the import statements inside functions."""
    return len(
        {
            node
            for function in ast.walk(tree)
            if isinstance(function, Function)
            for node in ast.walk(function)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
    )


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.Module | ast.ClassDef | Function]:
    """Return the module, its public classes and functions, and their public methods."""
    yield tree
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public(node)


def _is_typed(node: Function) -> bool:
    """Tell whether all parameters (but self and cls) and the result have their types."""
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return node.returns is not None and all(
        argument is None or argument.annotation is not None or argument.arg in {"self", "cls"} for argument in named
    )


def _lines_by_kind(module: Module) -> dict[str, int]:
    """Count lines that are only a comment, lines of docstrings, and lines of code."""
    docs: set[int] = set()
    for node in (module.tree, *module.classes, *module.functions):
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and ast.get_docstring(node, clean=False) is not None:
            docs.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    code: set[int] = set()
    comments: set[int] = set()
    no_code = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in no_code:
            code.update(range(token.start[0], token.end[0] + 1))
    return {"comment": len(comments), "docstring": len(docs), "code": len(code - docs)}


def _known(target: str, names: set[str]) -> str | None:
    """Return the module that an import names: itself, or what the last part is taken from."""
    return next((name for name in (target, target.rpartition(".")[0]) if name in names), None)


def _cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of modules that reach each other."""
    reach = {name: _reachable(graph, name) for name in graph}
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    return [set(group) for group in groups if len(group) > 1]


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = collections.deque(graph[start])
    while waiting:
        name = waiting.popleft()
        if name not in found:
            found.add(name)
            waiting.extend(graph[name])
    return found
