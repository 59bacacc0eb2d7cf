"""The layout of the package: which module may import which, and one name for one thing.

docs/architecture.md has the layers. The tests parse the sources and import nothing.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.embedded import ROOT

SOURCES = sorted((ROOT / "tfserving").rglob("*.py"))
ENTRY_POINTS = ("tf_rpc_client", "export_saved_model")

# What each part of the package may import besides itself and the parts that those may import.
LAYERS = {
    "errors": (),
    "wire": ("errors",),
    "repository": ("wire",),
    "client": ("repository",),
    "server": ("repository",),
    "export": ("repository",),
    "gateway": ("errors",),
    "release": ("client", "export"),
    "bench": ("client",),
    "tune": ("bench",),
    "cli": ("client", "server", "export", "gateway", "release", "bench", "tune"),
    "__main__": ("cli",),
}

# The packages whose functions may import TensorFlow.
USES_TENSORFLOW = ("tfserving.export", "tfserving.server.runtime")


def name_module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def find_imports(path: Path, *, only_at_import: bool = False) -> Iterator[str]:
    """Yield the full name of everything that a module imports; `only_at_import` skips functions."""
    package = name_module(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    nodes: list[ast.AST] = [parse(path)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        skipped = only_at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        skipped |= only_at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        nodes += [] if skipped else ast.iter_child_nodes(node)


def find_violations(prefixes: tuple[str, ...], sources: list[Path], **options: bool) -> list[str]:
    """List the imports of these modules or of what is in them."""
    return [
        f"{name_module(path)} imports {name}"
        for path in sources
        for name in find_imports(path, **options)
        if f"{name}.".startswith(tuple(f"{prefix}." for prefix in prefixes))
    ]


def find_sources(*packages: str) -> list[Path]:
    prefixes = tuple(f"{package}." for package in packages)
    return [path for path in SOURCES if f"{name_module(path)}.".startswith(prefixes)]


def all_below(part: str) -> set[str]:
    return {part, *(one for lower in LAYERS[part] for one in all_below(lower))}


@pytest.mark.parametrize("part", LAYERS)
def test_imports_only_lower_layers(part):
    forbidden = tuple(f"tfserving.{other}" for other in LAYERS if other not in all_below(part))
    assert find_violations(forbidden, find_sources(f"tfserving.{part}")) == []


def test_every_part_has_a_layer():
    parts = {path.relative_to(ROOT / "tfserving").parts[0].removesuffix(".py") for path in SOURCES}
    assert parts - {"__init__"} <= LAYERS.keys()


def test_the_package_does_not_import_an_entry_point_or_a_test():
    assert find_violations((*ENTRY_POINTS, "tests", "benchmarks", "examples"), SOURCES) == []


def test_importing_a_module_does_not_import_tensorflow():
    assert find_violations(("tensorflow", "keras"), SOURCES, only_at_import=True) == []


def test_only_export_and_the_runtime_use_tensorflow():
    others = [path for path in SOURCES if path not in find_sources(*USES_TENSORFLOW)]
    assert find_violations(("tensorflow", "keras"), others) == []


@pytest.mark.parametrize(
    ("package", "users"),
    [
        ("observability", ("grpc", "rest", "main")),
        ("core", ("grpc", "rest", "main", "runtime")),
        ("runtime", ("grpc", "rest", "main")),
        ("http", ("core", "grpc", "rest", "runtime", "service", "main")),
        ("rest", ("grpc", "main")),
        ("grpc", ("rest", "main")),
    ],
)
def test_a_package_of_the_server_does_not_import_its_users(package, users):
    names = tuple(f"tfserving.server.{user}" for user in users)
    assert find_violations(names, find_sources(f"tfserving.server.{package}")) == []


def test_module_names_are_unique():
    names = Counter(path.stem for path in SOURCES if path.stem not in ("__init__", "__main__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_class_names_are_unique():
    names = Counter(
        node.name for path in SOURCES for node in parse(path).body if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "tfserving", "examples"])
def test_nothing_changes_sys_path(folder):
    paths = [path for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)]
    calls = ("sys.path.insert", "sys.path.append", "sys.path +")
    assert [str(path) for path in paths if any(call in path.read_text("utf-8") for call in calls)] == []
