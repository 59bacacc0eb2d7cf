"""Renaming of inputs and outputs in a SavedModel, and the signature for encoded images.

Keras 3 names outputs `output_0`, and inputs often `keras_tensor`, whatever the layers are called. To rename
them, each signature is wrapped in a function with the new names.
"""

from __future__ import annotations

import keyword
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfserving.errors import ExportError, InvalidInputError
from tfserving.export import images, sources
from tfserving.wire.graph_files import find_graph_file
from tfserving.wire.signatures import DEFAULT_SIGNATURE, PREDICT_METHOD, Signature, read_saved_model

# TensorFlow uses the name of an input as a Python parameter, and changes an unsuitable one silently.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True)
class Renaming:
    """New names of inputs and outputs by old name, for every signature that has the old name.

    Raises:
        InvalidInputError: TensorFlow would change a new name, or two old names get the same one.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, names in (("input", self.inputs), ("output", self.outputs)):
            new = list(names.values())
            for name in new:
                if not _NAME.fullmatch(name) or keyword.iskeyword(name):
                    raise InvalidInputError(
                        f"{name!r} is not a valid name of an {kind}; use letters, digits and '_', beginning "
                        "with a letter, but not a keyword of Python"
                    )
                if new.count(name) > 1:
                    raise InvalidInputError(
                        f"two {kind}s cannot both be renamed to {name!r}; choose another name"
                    )

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs)

    def check(self, signatures: Iterable[Signature]) -> None:
        """Check that the old names exist and the new ones are not in use.

        Raises:
            InvalidInputError: they do not, or are.
        """
        signatures = list(signatures)
        _check("input", self.inputs, {signature.name: list(signature.inputs) for signature in signatures})
        _check("output", self.outputs, {signature.name: list(signature.outputs) for signature in signatures})


def rewrite(original: Path, directory: Path, renaming: Renaming, *, image_bytes: bool = False) -> None:
    """Write the SavedModel at `original` into the empty `directory` with new names.

    Signatures, functions, variables, assets, tables and assets.extra are preserved. `image_bytes` adds the
    signature of `images.bytes_function`.

    Raises:
        InvalidInputError: see `Renaming.check` and `images.bytes_function`; or `image_bytes` is set for a
            TensorFlow 1 SavedModel, whose graph cannot be wrapped.
        ExportError: TensorFlow cannot load or save the model.
    """
    signatures = read_saved_model(original)
    renaming.check(signatures.values())
    if _is_tensorflow_1(original):
        if image_bytes:
            raise InvalidInputError(
                "--image-bytes needs a TensorFlow 2 SavedModel, but TensorFlow 1 wrote this one; "
                "export the model with tf.saved_model.save"
            )
        shutil.copytree(original, directory, dirs_exist_ok=True)
        _edit_signatures(directory, lambda definitions: _rename_definitions(definitions, renaming))
        return

    loaded = _load(original)
    functions = {
        name: _renamed(function, renaming)
        for name, function in loaded.signatures.items()
        if name in signatures
    }
    if image_bytes:
        if images.SIGNATURE in functions:
            raise InvalidInputError(
                f"the model already has a signature {images.SIGNATURE!r}; omit --image-bytes"
            )
        if DEFAULT_SIGNATURE not in functions:
            raise InvalidInputError(
                f"--image-bytes needs a signature {DEFAULT_SIGNATURE!r}; "
                f"the model has only {', '.join(functions)}"
            )
        functions[images.SIGNATURE] = images.bytes_function(functions[DEFAULT_SIGNATURE])
    sources.save(loaded, directory, functions)

    extra = original / "assets.extra"
    if extra.is_dir():
        shutil.copytree(extra, directory / "assets.extra")
    # tf.saved_model.save sets every method to predict.
    methods = {name: old.method_name for name, old in signatures.items() if old.method_name != PREDICT_METHOD}
    if methods:

        def set_methods(definitions: Any) -> None:
            for name, method in methods.items():
                definitions[name].method_name = method

        _edit_signatures(directory, set_methods)


def _check(kind: str, renamed: Mapping[str, str], names_of: Mapping[str, list[str]]) -> None:
    known = sorted({name for names in names_of.values() for name in names})
    for old in renamed:
        if old not in known:
            raise InvalidInputError(
                f"the model has no {kind} {old!r}; its {kind}s are: {', '.join(known) or 'none'}"
            )
    for signature, names in names_of.items():
        new = [renamed.get(name, name) for name in names]
        for name in new:
            if new.count(name) > 1:
                raise InvalidInputError(
                    f"signature {signature!r} would have two {kind}s {name!r}; choose another name"
                )


def _load(path: Path) -> Any:
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(path))
    except Exception as error:
        raise ExportError(f"TensorFlow cannot load the model: {sources.summarize(error)}") from error


def _renamed(function: Any, renaming: Renaming) -> Any:
    """A concrete function that calls `function`, a signature, with the new names."""
    import tensorflow as tf

    specs = function.structured_input_signature[1]
    old_names = {renaming.inputs.get(old, old): old for old in specs}

    def wrapped(**inputs: Any) -> dict[str, Any]:
        outputs = function(**{old_names[name]: tensor for name, tensor in inputs.items()})
        return {renaming.outputs.get(old, old): tensor for old, tensor in outputs.items()}

    return tf.function(wrapped, autograph=False).get_concrete_function(
        **{new: tf.TensorSpec(specs[old].shape, specs[old].dtype, name=new) for new, old in old_names.items()}
    )


def _is_tensorflow_1(path: Path) -> bool:
    graphs = _read_graph_file(path).meta_graphs
    # as tf.saved_model.load decides (tensorflow/python/saved_model/load.py)
    return len(graphs) != 1 or not graphs[0].HasField("object_graph_def")


def _read_graph_file(path: Path) -> Any:
    """The SavedModel as a message of TensorFlow's, which has every field that text format may name."""
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    file = find_graph_file(path)
    assert file is not None
    if file.suffix == ".pb":
        return saved_model_pb2.SavedModel.FromString(file.read_bytes())
    return text_format.Parse(file.read_text(encoding="utf-8"), saved_model_pb2.SavedModel())


def _edit_signatures(path: Path, edit: Callable[[Any], None]) -> None:
    """Apply `edit` to the map of SignatureDefs of every graph of a SavedModel; writes saved_model.pb."""
    model = _read_graph_file(path)
    for graph in model.meta_graphs:
        edit(graph.signature_def)
    (path / "saved_model.pb").write_bytes(model.SerializeToString())
    (path / "saved_model.pbtxt").unlink(missing_ok=True)
    # It contains a checksum of the original graph.
    (path / "fingerprint.pb").unlink(missing_ok=True)


def _rename_definitions(definitions: Any, renaming: Renaming) -> None:
    for definition in definitions.values():
        for tensors, names in ((definition.inputs, renaming.inputs), (definition.outputs, renaming.outputs)):
            # Read all before the first write, so that names can be swapped.
            renamed = {names.get(name, name): info.SerializeToString() for name, info in tensors.items()}
            tensors.clear()
            for name, info in renamed.items():
                tensors[name].ParseFromString(info)
