"""The packages of the server depend on each other in one direction."""

import ast
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[2] / "tfserving" / "server"


def imported_modules(package):
    """The modules that a package imports, wherever in its files."""
    for path in (SERVER / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                for name in node.names:
                    yield f"{node.module}.{name.name}"
            elif isinstance(node, ast.Import):
                yield from (name.name for name in node.names)


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("observability", ("grpc", "rest", "main")),
        ("core", ("grpc", "rest", "main", "runtime")),
        ("runtime", ("grpc", "rest", "main")),
        ("rest", ("grpc", "main")),
        ("grpc", ("rest", "main")),
    ],
)
def test_a_package_does_not_import_those_that_use_it(package, forbidden):
    modules = set(imported_modules(package))
    assert modules
    for name in forbidden:
        prefix = f"tfserving.server.{name}"
        assert [m for m in modules if m == prefix or m.startswith(f"{prefix}.")] == []
