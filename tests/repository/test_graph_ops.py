"""The operations of a graph, and of the functions that it calls."""

from __future__ import annotations

from typing import Any

import pytest

from tests.saved_models import saved_model
from tfserving.repository.graph_ops import find_ops


def add_function(model: Any, name: str, *ops: str) -> Any:
    function = model.meta_graphs[0].graph_def.library.function.add()
    function.signature.name = name
    for op in ops:
        function.node_def.add(name=op, op=op)
    return function


@pytest.mark.parametrize("how", ["op", "attribute", "list"])
def test_finds_the_operations_of_called_functions(how: str) -> None:
    model = saved_model("Placeholder", "outer" if how == "op" else "StatefulPartitionedCall")
    add_function(model, "outer", "inner")
    add_function(model, "inner", "MatMul", "outer")  # functions can be recursive
    add_function(model, "unused", "PyFunc")
    attributes = model.meta_graphs[0].graph_def.node[1].attr
    if how == "attribute":
        attributes["f"].func.name = "outer"
    elif how == "list":
        attributes["branches"].list.func.add(name="outer")
    ops = find_ops(model)
    assert {"Placeholder", "inner", "MatMul"} <= ops.names
    assert ops.python_error() is None


@pytest.mark.parametrize("op", ["PyFunc", "PyFuncStateless", "EagerPyFunc"])
def test_finds_calls_of_python_functions(op: str) -> None:
    error = find_ops(saved_model("Placeholder", op)).python_error()
    assert error is not None
    assert error[0].startswith(f"calls Python functions ({op}), which exist only in")


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("where", ["node", "function", "unused function"])
def test_finds_compiled_functions(where: str, compiled: bool) -> None:
    model = saved_model("f")
    holder = {
        "node": model.meta_graphs[0].graph_def.node[0],
        "function": add_function(model, "f", "MatMul"),
        "unused function": add_function(model, "unused", "MatMul"),
    }[where]
    holder.attr["_XlaMustCompile"].b = compiled
    note = find_ops(model).compiled_note()
    if not compiled or where == "unused function":
        assert note is None
    else:
        assert note is not None
        assert "--xla_cpu_compilation_enabled=true" in note[1]
