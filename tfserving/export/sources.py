"""The kinds of models that can be exported, and how each is saved as a SavedModel."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfserving.errors import ExportError, InvalidInputError
from tfserving.repository import versions
from tfserving.repository.model_files import copy_model_files
from tfserving.wire.graph_files import find_graph_file
from tfserving.wire.signatures import DEFAULT_SIGNATURE

log = logging.getLogger(__name__)

KERAS_SUFFIXES = (".keras", ".h5")

_REASON_LENGTH = 300
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
# Keras names the layer in the first paragraph and gives the cause in the next one.
_LAYER = "Exception encountered when calling "


def check_source(source: Any, base: Path) -> None:
    """Check a path before TensorFlow is imported; `base` is the directory of the model's versions.

    Raises:
        InvalidInputError: the path does not exist, is neither a Keras file nor a SavedModel, or is
            a SavedModel that contains `base`.
    """
    if not isinstance(source, str | os.PathLike):
        return
    path = Path(source)
    if path.is_dir():
        if find_graph_file(path) is not None:
            if base.resolve().is_relative_to(path.resolve()):
                raise InvalidInputError(
                    f"{path} contains {base}, and would contain its own copy; move it first"
                )
            return
        found = versions.list_versions(path)
        hint = f"did you mean {path / str(found[-1])}?" if found else "give a SavedModel, which has one"
        raise InvalidInputError(f"{path} has no saved_model.pb; {hint}")
    if not path.exists():
        raise InvalidInputError(
            f"{path} does not exist; give a {' or '.join(KERAS_SUFFIXES)} file or a SavedModel directory"
        )
    if path.suffix.lower() not in KERAS_SUFFIXES:
        raise InvalidInputError(
            f"{path} is not a {' or '.join(KERAS_SUFFIXES)} file or a SavedModel directory; "
            "load it in Python and call export_saved_model with the model"
        )


def write(source: Any, directory: Path) -> None:
    """Write `source` as a SavedModel into `directory`, which is empty.

    A SavedModel is copied file by file, except for hidden files; TensorFlow saves everything else.

    Raises:
        ExportError: TensorFlow or Keras cannot load or save it; the message contains the reason.
        InvalidInputError: the object has no signatures.
        RepositoryError: a SavedModel cannot be copied, or a link in it leaves its directory.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            hidden = copy_model_files(path, directory)
            if hidden:
                log.warning("hidden files of %s are not copied: %s", path, ", ".join(hidden))
        else:
            _write_keras(_load_keras(path), directory)
        return

    # A Keras model implies that Keras is imported; for a plain tf.Module, do not import it.
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(source, keras.Model):
        _write_keras(source, directory)
        return

    import tensorflow as tf

    if isinstance(source, tf.types.experimental.PolymorphicFunction | tf.types.experimental.ConcreteFunction):
        root, functions = _wrap_function(source)
    elif isinstance(source, tf.Module):
        functions = _functions_of(source)
        root = _without_keras(source, functions)
    else:
        raise InvalidInputError(
            f"{type(source).__name__} cannot be exported; give a Keras 3 model, a tf.Module, "
            "a tf.function with an input_signature, or a path"
        )
    save(root, directory, functions)


def save(root: Any, directory: Path, functions: Mapping[str, Any]) -> None:
    """Call `tf.saved_model.save`; any exception becomes an ExportError."""
    import tensorflow as tf

    try:
        tf.saved_model.save(root, str(directory), signatures=dict(functions))
    except Exception as error:
        hint = ""
        if "untracked" in str(error):
            hint = "; the model does not track a table or variable: make it an attribute of a tf.Module"
        raise ExportError(f"TensorFlow cannot save the model: {summarize(error)}{hint}") from error


def summarize(error: BaseException) -> str:
    """The reason in an exception of TensorFlow or Keras on one line; their messages can have pages."""
    message = _COLOR.sub("", str(error))
    paragraphs = [" ".join(part.split()) for part in message.split("\n\n") if part.strip()]
    if not paragraphs:
        return type(error).__name__
    text = paragraphs[0]
    if text.startswith("in user code"):
        text = paragraphs[-1]  # after the frames of the traceback
    elif text.endswith("error:"):
        text = paragraphs[min(1, len(paragraphs) - 1)]
    elif text.startswith(_LAYER):
        text = " ".join(paragraphs[:2])
    for paragraph in paragraphs:
        if "Exception encountered: " in paragraph:
            text = paragraph.removeprefix("Exception encountered: ")
    return text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]}..."


def _load_keras(path: Path) -> Any:
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise ExportError(
            f"Keras cannot load {path}: {summarize(error)}; "
            "if it has custom code, load it in Python and call export_saved_model with the model"
        ) from error


def _write_keras(model: Any, directory: Path) -> None:
    try:
        model.export(
            str(directory), format="tf_saved_model", verbose=False, input_signature=_fixed_signature(model)
        )
    except Exception as error:
        hint = ""
        if "argument names" in str(error):
            hint = "; use letters, digits and '_' in the names of Input layers"
        raise ExportError(f"Keras cannot export the model: {summarize(error)}{hint}") from error


def _fixed_signature(model: Any) -> list[Any] | None:
    """The inputs of a model that declares its batch size, which Keras would export as a free one; else None.

    A stateful RNN works only with the declared size.
    """
    import keras

    if not any(
        tensor.shape and tensor.shape[0] is not None for tensor in getattr(model, "inputs", None) or ()
    ):
        return None

    def spec(tensor: Any) -> Any:
        return keras.InputSpec(shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)

    if isinstance(model, keras.Sequential):
        return [spec(tensor) for tensor in model.inputs]
    return [keras.tree.map_structure(spec, model.input)]


def _wrap_function(function: Any) -> tuple[Any, dict[str, Any]]:
    """A module that tracks the variables of a function, and the function as its only signature."""
    import tensorflow as tf

    concrete = function
    if not isinstance(function, tf.types.experimental.ConcreteFunction):
        if function.input_signature is None:
            raise InvalidInputError(
                "the tf.function has no input_signature; add one, "
                "or export the result of its get_concrete_function(tf.TensorSpec(...))"
            )
        concrete = _trace(function)
    root = tf.Module()
    root.function = function
    root.captured_variables = list(concrete.graph.variables)
    return root, {DEFAULT_SIGNATURE: concrete}


def _without_keras(module: Any, functions: Mapping[str, Any]) -> Any:
    """The module; or, if its functions use variables of Keras, another one that tracks what they use.

    `tf.saved_model.save` writes a variable that belongs to a Keras layer twice, and servers restore only the
    copy that no function reads.
    """
    import tensorflow as tf

    keras = sys.modules.get("keras")
    if keras is None:
        return module
    descendants = tf.train.TrackableView(module).descendants()
    of_keras = {id(each.value) for each in descendants if isinstance(each, keras.Variable)}
    variables = {id(each): each for function in functions.values() for each in function.graph.variables}
    if not of_keras & variables.keys():
        return module
    root = tf.Module()
    root.captured_variables = list(variables.values())
    root.resources = [
        each for each in descendants if isinstance(each, tf.saved_model.experimental.TrackableResource)
    ]
    return root


def _functions_of(module: Any) -> dict[str, Any]:
    """The functions of a module with an input_signature, by the name of their signature.

    A single one becomes the default signature; of several, `__call__` or the one called serving_default.
    """
    import tensorflow as tf

    polymorphic = tf.types.experimental.PolymorphicFunction
    concrete = tf.types.experimental.ConcreteFunction
    found = {}
    # Methods are in the classes, functions added later in the object; do not evaluate properties.
    for holder in (*reversed(type(module).__mro__), module):
        for name, value in vars(holder).items():
            if isinstance(value, polymorphic):
                bound = getattr(module, name)
                if isinstance(bound, polymorphic) and bound.input_signature is not None:
                    found[name] = _trace(bound)
            elif isinstance(value, concrete):
                found[name] = value
    if not found:
        raise InvalidInputError(
            f"{type(module).__name__} has no tf.function with an input_signature; "
            "write @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name=...)]) above its method"
        )
    if len(found) == 1:
        return {DEFAULT_SIGNATURE: next(iter(found.values()))}
    if "__call__" in found:
        found.setdefault(DEFAULT_SIGNATURE, found.pop("__call__"))
    if DEFAULT_SIGNATURE not in found:
        raise InvalidInputError(
            f"{type(module).__name__} has several functions with signatures ({', '.join(sorted(found))}) "
            f"but no default; name one of them __call__ or {DEFAULT_SIGNATURE}"
        )
    return found


def _trace(function: Any) -> Any:
    try:
        return function.get_concrete_function()
    except Exception as error:
        raise ExportError(
            f"TensorFlow cannot trace the tf.function {function.name}: {summarize(error)}"
        ) from error
