"""Whether a directory is a complete SavedModel: its graph parses, and its variables are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tfserving.errors import ProtocolError, RepositoryError
from tfserving.repository.graph_ops import find_ops
from tfserving.repository.variables_index import read_shard_sizes
from tfserving.wire.graph_files import DEFAULT_SIGNATURE, find_graph_file, read_graph_file

# The tag of the graph that servers load unless --saved_model_tags names others.
SERVE = "serve"

_VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}
_RESTORE = {"RestoreV2", "RestoreSlice", "Restore"}


def check_version_dir(path: str | os.PathLike[str]) -> None:
    """Check that `path` is a complete SavedModel.

    Raises:
        RepositoryError: see `find_version_error`.
    """
    error = find_version_error(path)
    if error is not None:
        raise RepositoryError(f"{os.fspath(path)} {error}; copy or export the model again")


def find_version_error(path: str | os.PathLike[str]) -> str | None:
    """Why `path` is not a complete SavedModel, as the end of a sentence about it; None if it is one.

    It is not if the graph file is missing, empty, not a SavedModel or without a graph for serving, if the
    graph has variables but their index is missing or damaged, or if a shard is missing or shorter than the
    index says.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            return "is not a directory" if os.path.lexists(path) else "does not exist"
        file = find_graph_file(path)
        if file is None:
            return "has no saved_model.pb"
        if file.stat().st_size == 0:
            return f"has an empty {file.name}"
        try:
            model = read_graph_file(path)
        except RepositoryError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            return f"has a {file.name} that is not a valid SavedModel"
        if not any(SERVE in graph.meta_info_def.tags for graph in model.meta_graphs):
            found = "; ".join(",".join(graph.meta_info_def.tags) for graph in model.meta_graphs)
            return f"has no graph with the tag {SERVE} (found: {found})"
        return _find_variables_error(path / "variables", model)
    except OSError as error:
        return f"is not readable ({error.strerror})"


def find_notes(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """What makes calls of a complete SavedModel fail: the end of a sentence about the model, and a hint."""
    model = read_graph_file(path)
    ops = find_ops(model)
    notes = (_signature_note(model), ops.python_error(), ops.compiled_note())
    return [note for note in notes if note is not None]


def _signature_note(model: Any) -> tuple[str, str] | None:
    graph = next(graph for graph in model.meta_graphs if SERVE in graph.meta_info_def.tags)
    names = sorted(name for name in graph.signature_def if not name.startswith("__"))
    if DEFAULT_SIGNATURE in names:
        return None
    found = ", ".join(names) or "none"
    return (
        f"has no signature {DEFAULT_SIGNATURE} (found: {found}), so requests without signature_name fail",
        f"name a signature in each request, or export the model with a signature {DEFAULT_SIGNATURE}",
    )


def _find_variables_error(variables: Path, model: Any) -> str | None:
    # Servers read only this name (tensorflow/cc/saved_model/constants.h); without it, they restore nothing.
    index = variables / "variables.index"
    if not index.is_file():
        has_shard = any(variables.glob("variables.data-*"))
        return "has no variables/variables.index" if has_shard or _restores_variables(model) else None
    try:
        sizes = read_shard_sizes(index.read_bytes())
    except ProtocolError:
        return "has a truncated or damaged variables/variables.index"
    for number, size in enumerate(sizes or ()):
        shard = variables / f"variables.data-{number:05d}-of-{len(sizes or ()):05d}"
        if not shard.is_file():
            return f"has no variables/{shard.name}"
        if shard.stat().st_size < size:
            return f"has a truncated variables/{shard.name} ({shard.stat().st_size} of {size} bytes)"
    return None


def _restores_variables(model: Any) -> bool:
    # Local variables, which an operation initializes, are not restored.
    ops = find_ops(model).names
    return bool(ops & _VARIABLES and ops & _RESTORE)
