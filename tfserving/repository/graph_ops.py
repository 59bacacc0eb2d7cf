"""The operations that the graph of a SavedModel runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Operations of tf.py_function and tf.numpy_function: the graph has only a number for the Python function.
_PYTHON_OPS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})

_COMPILED = "_XlaMustCompile"


@dataclass(frozen=True)
class GraphOps:
    """The names of the operations, and whether some are compiled: `tf.function(jit_compile=True)`."""

    names: frozenset[str]
    has_compiled: bool

    def python_error(self) -> tuple[str, str] | None:
        """Why calls fail in every server, as the end of a sentence about the model, and a hint."""
        called = ", ".join(sorted(self.names & _PYTHON_OPS))
        if not called:
            return None
        return (
            f"calls Python functions ({called}), which exist only in the process that exported it",
            "replace tf.py_function and tf.numpy_function with operations of TensorFlow",
        )

    def compiled_note(self) -> tuple[str, str] | None:
        """Why calls fail in a server without a flag, as the end of a sentence, and a hint."""
        if not self.has_compiled:
            return None
        return (
            "has functions with jit_compile=True, whose calls fail in servers without XLA",
            "start the server with --xla_cpu_compilation_enabled=true, or --xla_gpu_compilation_enabled=true "
            "for GPUs (run_tf_serving.sh: XLA=true)",
        )


def find_ops(model: Any) -> GraphOps:
    """The operations of a `SavedModel` message, with those of the functions that its graphs call.

    A SavedModel also has functions that no signature calls, such as those for training.
    """
    names: set[str] = set()
    has_compiled = False
    for meta_graph in model.meta_graphs:
        functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
        pending = [meta_graph.graph_def.node]
        while pending:
            for node in pending.pop():
                names.add(node.op)
                has_compiled |= _is_compiled(node)
                for called in _called_functions(node):
                    function = functions.pop(called, None)
                    if function is not None:
                        pending.append(function.node_def)
                        has_compiled |= _is_compiled(function)
    return GraphOps(frozenset(names), has_compiled)


def _is_compiled(holder: Any) -> bool:
    return _COMPILED in holder.attr and holder.attr[_COMPILED].b


def _called_functions(node: Any) -> list[str]:
    called = [node.op]
    for value in node.attr.values():
        called.extend(item.name for item in (value.func, *value.list.func))
    return called
