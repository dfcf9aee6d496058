"""No two modules of ours import each other, directly or through others: not even within functions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "galip": ROOT / "galip",
    "galip_export": ROOT / "export" / "galip_export",
    "galip_runtime": ROOT / "runtime" / "galip_runtime",
    "galip_bench": ROOT / "benchmarks" / "galip_bench",
}


def modules_of(package):
    """Names of the package's modules and their files."""
    files = {}
    for file in PACKAGES[package].rglob("*.py"):
        parts = (package, *file.relative_to(PACKAGES[package]).with_suffix("").parts)
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def imported(name, file, known):
    """Those of the `known` modules that the module imports, type checkers' imports aside."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inner & known) or {node.module}
    return names & known


def find_cycle(graph):
    """The names along one cycle of a graph {name: names}; [] if there is none."""
    finished = set()

    def walk(name, path):
        if name in path:
            return path[path.index(name) :]
        if name in finished:
            return []
        cycle = next((cycle for other in sorted(graph[name]) if (cycle := walk(other, [*path, name]))), [])
        finished.add(name)
        return cycle

    return next((cycle for name in sorted(graph) if (cycle := walk(name, []))), [])


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_modules_do_not_import_each_other(package):
    files = modules_of(package)
    assert len(files) > 5
    graph = {name: imported(name, file, files.keys()) for name, file in files.items()}
    assert find_cycle(graph) == []


def test_cycles_are_found(tmp_path):
    def graph(**sources):
        files = {name: tmp_path / f"{name}.py" for name in sources}
        for name, source in sources.items():
            files[name].write_text(source)
        return {name: imported(name, file, files.keys()) for name, file in files.items()}

    hidden = graph(a="import b", b="def f():\n    from c import x", c="from a import y", d="import a")
    assert find_cycle(hidden) == ["a", "b", "c"]
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a"
    assert find_cycle(graph(a="import b", b=for_types)) == []
