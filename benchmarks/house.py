"""How large the house is, at one commit or side by side.

    python -m benchmarks.house BEFORE AFTER

prints, of the library and the command line (`dsonas_hw`, `cli`): files, lines, functions, imports inside
functions, circles (groups of modules that import each other, be it inside functions or for types alone), and
twins (functions of four statements or more that are another's but for their names).
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

FOLDERS = ("dsonas_hw", "cli")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MIN_STATEMENTS = 4


def read_tree(commit: str) -> dict[str, str]:
    """Module → its source, of one commit."""
    archive = subprocess.run(["git", "archive", commit, *FOLDERS], check=True, capture_output=True).stdout
    sources = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            path = PurePosixPath(member.name)
            if path.suffix == ".py" and (file := files.extractfile(member)) is not None:
                parts = path.with_suffix("").parts
                name = ".".join(parts if parts[0] == "dsonas_hw" else ("dsonas_hw", *parts))
                sources[name.removesuffix(".__init__")] = file.read().decode()
    return sources


def imported_by(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    """The modules of the house that a piece of code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                yield longer if longer in modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def count_circles(needs: dict[str, set[str]]) -> int:
    """Groups of modules each of which is reached from every other of the group."""

    def reach(start: str) -> set[str]:
        found, todo = set(), [start]
        while todo:
            for name in needs.get(todo.pop(), set()) - found:
                found.add(name)
                todo.append(name)
        return found

    reached = {name: reach(name) for name in needs}
    groups = {
        frozenset(other for other in reached[name] if name in reached.get(other, set()))
        for name in needs
        if name in reached[name]
    }
    return len(groups)


def shape_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """What a function does, without its docstring and whatever its names are."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if sum(isinstance(node, ast.stmt) for part in body for node in ast.walk(part)) < MIN_STATEMENTS:
        return ""
    copy = ast.parse(ast.unparse(ast.Module(body=body, type_ignores=[])) if body else "")
    names: dict[str, str] = {}
    for node in ast.walk(copy):
        if isinstance(node, ast.Name):
            node.id = names.setdefault(node.id, str(len(names)))
    return ast.dump(copy)


def measure(commit: str) -> dict[str, int]:
    """The numbers of one commit."""
    sources = read_tree(commit)
    trees = {name: ast.parse(source) for name, source in sources.items()}
    functions = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    inner = {
        id(node)
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    modules = set(sources)
    needs = {name: set(imported_by(tree, modules)) & modules - {name} for name, tree in trees.items()}
    shapes = Counter(shape for function in functions if (shape := shape_of(function)))
    lines = {name: source.count("\n") for name, source in sources.items()}
    return {
        "files": len(sources),
        "lines": sum(lines.values()),
        "lines of the library": sum(n for name, n in lines.items() if not name.startswith("dsonas_hw.cli")),
        "files over 300 lines": sum(n > 300 for n in lines.values()),
        "functions": len(functions),
        "imports inside functions": len(inner),
        "circles": count_circles(needs),
        "twins": sum(number - 1 for number in shapes.values()),
    }


if __name__ == "__main__":
    found = {commit: measure(commit) for commit in sys.argv[1:] or ["HEAD"]}
    print(f"{'':28}" + "".join(f"{commit[:12]:>14}" for commit in found))
    for key in next(iter(found.values())):
        print(f"{key:28}" + "".join(f"{numbers[key]:14,}" for numbers in found.values()))
