"""Signatures: the inputs and outputs of a model, from a server's metadata or a SavedModel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfserving.errors import RepositoryError
from tfserving.wire import tensors
from tfserving.wire.dtypes import Array, DType
from tfserving.wire.graph_files import DEFAULT_SIGNATURE as DEFAULT_SIGNATURE
from tfserving.wire.graph_files import read_graph_file

PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"

# The number of a reference dtype minus that of the dtype itself (kDataTypeRefOffset in types.h). A signature
# of TensorFlow 1 has one if an input or output is a variable.
_REFERENCE = 100

# TensorFlow 2 stores the initializer of a SavedModel as a signature; it cannot be called.
_INIT_SIGNATURE = "__saved_model_init_op"


@dataclass(frozen=True)
class TensorInfo:
    """One input or output.

    Attributes:
        name: the alias that requests use, e.g. "image".
        dtype: its DType.
        shape: sizes, None for a dimension of any size; None instead of a tuple for an unknown rank.
        tensor_name: the tensor in the graph, e.g. "serving_default_image:0" ("" for sparse tensors).
    """

    name: str
    dtype: DType
    shape: tuple[int | None, ...] | None
    tensor_name: str = ""

    @property
    def shape_text(self) -> str:
        """The shape as saved_model_cli prints it: -1 for any size, "unknown_rank" for an unknown rank."""
        if self.shape is None:
            return "unknown_rank"
        if not self.shape:
            return "()"
        return f"({', '.join(str(-1 if size is None else size) for size in self.shape)})"

    def is_valid_shape(self, shape: tuple[int, ...]) -> bool:
        """Whether the input or output accepts an array of this shape."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want is None or want == got for want, got in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Signature:
    """A signature of a model; inputs and outputs by alias, sorted; `defaults` has the optional inputs."""

    name: str
    method_name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    defaults: Mapping[str, Array] = field(default_factory=dict)


def signatures_of(signature_defs: Mapping[str, Any]) -> dict[str, Signature]:
    """Signatures by name from a map of `SignatureDef` messages (of a SignatureDefMap or a MetaGraphDef)."""
    return {
        name: Signature(
            name,
            signature.method_name,
            _infos(signature.inputs),
            _infos(signature.outputs),
            {alias: tensors.to_array(proto) for alias, proto in signature.defaults.items()},
        )
        for name, signature in sorted(signature_defs.items())
        if name != _INIT_SIGNATURE
    }


def _infos(infos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        alias: TensorInfo(
            alias,
            DType.from_number(info.dtype % _REFERENCE),
            None
            if info.tensor_shape.unknown_rank
            else tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim),
            info.name,
        )
        for alias, info in sorted(infos.items())
    }


def read_saved_model(
    version_dir: str | os.PathLike[str], *, tags: frozenset[str] = frozenset({"serve"})
) -> dict[str, Signature]:
    """The signatures of a SavedModel on disk, without TensorFlow.

    Args:
        version_dir: the directory that holds saved_model.pb or saved_model.pbtxt.
        tags: the meta graph's tags, which must be exactly these.

    Raises:
        RepositoryError: see `read_graph_file`; or no meta graph has the tags.
    """
    model = read_graph_file(version_dir)
    for graph in model.meta_graphs:
        if set(graph.meta_info_def.tags) == tags:
            return signatures_of(graph.signature_def)
    found = "; ".join(",".join(graph.meta_info_def.tags) for graph in model.meta_graphs)
    raise RepositoryError(
        f"{os.fspath(version_dir)} has no graph with the tags {','.join(sorted(tags))} (found: {found})"
    )


def describe(signatures: Mapping[str, Signature]) -> str:
    """Format signatures as text; names, dtypes and shapes as `saved_model_cli show --all` prints them."""
    lines = []
    for signature in signatures.values():
        lines.append(f"signature_def['{signature.name}'] ({signature.method_name})")
        for kind, infos in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            heads = {alias: f"{kind}['{alias}']" for alias in infos}
            width = max(map(len, heads.values()), default=0)
            for alias, info in infos.items():
                lines.append(
                    f"  {heads[alias]:{width}}  {info.dtype.name} {info.shape_text}  {info.tensor_name}"
                )
    return "\n".join(line.rstrip() for line in lines)
