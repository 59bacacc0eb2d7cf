"""Ops outside TensorFlow: their libraries, and what to do about ops that no library has.

tensorflow_model_server is linked with the ops of TF Text and of TensorFlow Decision Forests
(SUPPORTED_TENSORFLOW_OPS in model_servers/BUILD). Here, a model that needs them loads them from the Python
packages, if these are installed.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpLibrary:
    """A Python package with ops.

    Attributes:
        package: its name on PyPI.
        module: its top-level module.
        files: a glob pattern for the shared libraries that register the ops, relative to the module.
        ops: matches the names of the ops.
    """

    package: str
    module: str
    files: str
    ops: re.Pattern[str]


_DECISION_FORESTS = re.compile("SimpleML")
_LIBRARIES = (
    OpLibrary(
        "tensorflow-text",
        "tensorflow_text",
        "python/**/_*.so",
        re.compile(
            "TFText>|CaseFoldUTF8|ConstrainedSequence|FastBert|FastWordpiece|FindSourceOffsets|"
            "MaxSpanningTree|NormalizeUTF8|PhraseTokenize|RegexSplit|RougeL|SentenceFragments|Sentencepiece|"
            "SplitMerge|TokenizerFromLogits|UnicodeScriptTokenize|WhitespaceTokenize|WordpieceTokenize"
        ),
    ),
    OpLibrary(
        "tensorflow-decision-forests",
        "tensorflow_decision_forests",
        "tensorflow/ops/inference/inference.so",
        _DECISION_FORESTS,
    ),
    OpLibrary("ydf-tf", "ydf_tf", "inference.so", _DECISION_FORESTS),
)
# Packages whose ops tensorflow_model_server does not have, by the prefix of the ops.
_NOT_SERVED = {"Addons>": "tensorflow-addons", "IO>": "tensorflow-io"}

_loading = threading.Lock()
# The reason why each library could not be loaded, "" if it was loaded.
_load_errors: dict[OpLibrary, str] = {}


def load_libraries_for(graph_def: Any) -> set[str]:
    """Load the libraries of the ops in a `GraphDef` that TensorFlow lacks; return the ops that no one has."""
    missing = _find_missing(graph_def)
    for library in _LIBRARIES:
        if any(library.ops.match(op) for op in missing):
            _load(library)
            missing = _find_missing(graph_def)
    return missing


def explain(ops: Iterable[str]) -> str:
    """What to do about missing ops: one sentence for each op, with its name and the package that has it."""
    return "; ".join(_explain(op) for op in sorted(ops))


def is_served(op: str) -> bool:
    """Whether tensorflow_model_server has an op that TensorFlow lacks."""
    return any(library.ops.match(op) for library in _LIBRARIES)


def _explain(op: str) -> str:
    for library in _LIBRARIES:
        if library.ops.match(op):
            if error := _load_errors.get(library):
                return (
                    f"op {op!r} is in the package {library.package}, which cannot be loaded: {error}; "
                    "install the release of it that belongs to the installed TensorFlow"
                )
            if library in _load_errors:
                return f"op {op!r} is not in the installed release of {library.package}; install a newer one"
            return f"op {op!r} is in the package {library.package}, which is not installed; install it"
    for prefix, package in _NOT_SERVED.items():
        if op.startswith(prefix):
            return (
                f"op {op!r} is in the package {package}, which no server has, not even "
                "tensorflow_model_server; export the model without it"
            )
    return (
        f"op {op!r} is not in TensorFlow nor in a package that this server loads; export the model without "
        "it, or with the TensorFlow of the server or an older one"
    )


def _find_missing(graph_def: Any) -> set[str]:
    from tensorflow.python.framework import op_def_registry

    used = {node.op for node in graph_def.node}
    for function in graph_def.library.function:
        used.update(node.op for node in function.node_def)
    # A function can be called by a node whose op is its name
    used -= {function.signature.name for function in graph_def.library.function}
    return {op for op in used if op_def_registry.get(op) is None}


def _load(library: OpLibrary) -> None:
    """Load a library once, if its package is installed. Its modules are not imported: they import others."""
    import tensorflow as tf

    with _loading:
        if library in _load_errors:
            return
        spec = importlib.util.find_spec(library.module)
        if spec is None or not spec.submodule_search_locations:
            return
        directory = Path(spec.submodule_search_locations[0])
        try:
            for file in sorted(directory.glob(library.files)):
                tf.load_op_library(str(file))
        except (tf.errors.OpError, RuntimeError) as error:
            _load_errors[library] = str(error)
        else:
            _load_errors[library] = ""
            log.info("loaded the ops of %s", library.package)
