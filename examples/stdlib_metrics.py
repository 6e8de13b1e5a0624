"""Measure one Python source file: its functions, branches and cyclomatic complexity.

An ordinary module with an ordinary function, which knows nothing of taskq:

    taskq map examples.stdlib_metrics:measure --jsonl files.jsonl > measured.jsonl

Cyclomatic complexity of a function is 1 and 1 more for each place where the way through it forks: `if`,
`elif`, a conditional expression, a loop, an `except`, a further operand of `and`/`or`, a `for` and an `if` of
a comprehension, a `case` that does not catch everything. What stands in a nested function counts for that
function only.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
FORKS = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function of a file, with what was counted in it."""

    name: str
    lines: int
    branches: int

    @property
    def complexity(self) -> int:
        """Tell the number of independent ways through the function."""
        return self.branches + 1


def measure(path: str) -> dict[str, object]:
    """Parse one source file and count what is in it.

    Raises:
        OSError: the file cannot be read.
        SyntaxError: it is not Python as this Python knows it; its encoding counts as syntax.
        ValueError: it holds null bytes.
        RecursionError: it is nested too deeply.
    """
    source = Path(path).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a compiler thinks of "\d" is of no interest here
        tree = ast.parse(source, filename=path)
    functions = list(functions_in(tree))
    longest = max(functions, key=lambda function: function.lines, default=None)
    hardest = max(functions, key=lambda function: function.complexity, default=None)
    return {
        "path": path,
        "module": module_name(Path(path)),
        "lines": len(source.splitlines()),
        "functions": len(functions),
        "branches": branches_in(tree) + sum(function.branches for function in functions),
        "complexity": sum(function.complexity for function in functions),
        "longest": longest and {"name": longest.name, "lines": longest.lines},
        "hardest": hardest and {"name": hardest.name, "complexity": hardest.complexity},
    }


def functions_in(tree: ast.AST, prefix: str = "") -> Iterator[Function]:
    """Yield every function below a node, methods and nested ones too, with its dotted name."""
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, (FunctionNode, ast.ClassDef)):
            yield from functions_in(child, prefix)
            continue
        name = prefix + child.name
        if isinstance(child, FunctionNode):
            lines = (child.end_lineno or child.lineno) - child.lineno + 1
            yield Function(name=name, lines=lines, branches=branches_in(child))
        yield from functions_in(child, f"{name}.")


def branches_in(scope: ast.AST) -> int:
    """Count the forks in a module or function, without those in the functions inside it."""
    found = 0
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        if isinstance(node, FunctionNode):
            continue
        found += forks_at(node)
        waiting.extend(ast.iter_child_nodes(node))
    return found


def forks_at(node: ast.AST) -> int:
    """Tell how many ways a single node adds to those through its function."""
    if isinstance(node, FORKS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        catches_all = isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None
        return 0 if catches_all and node.guard is None else 1
    return 0


def module_name(path: Path) -> str:
    """Name the module as it would be imported from the standard library; elsewhere, by its file alone."""
    try:
        parts = path.relative_to(standard_library()).with_suffix("").parts
    except ValueError:
        return path.stem
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@cache
def standard_library() -> Path:
    """Tell where this Python keeps its own modules."""
    return Path(sysconfig.get_path("stdlib"))


def main() -> None:
    """Do in one plain loop what `taskq map` does on all cores: lines of JSON in, lines of JSON out."""
    for line in sys.stdin:
        try:
            row = measure(json.loads(line))
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            row = {"error": {"type": type(error).__name__, "message": str(error)}}
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
