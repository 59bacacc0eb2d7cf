"""The graph file of a SavedModel, in binary or in text format, without TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tfserving.errors import RepositoryError
from tfserving.wire import messages

# Of several, a server reads the first one (tensorflow/cc/saved_model/reader.cc).
GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")

# The signature of requests that name none.
DEFAULT_SIGNATURE = "serving_default"


def find_graph_file(directory: str | os.PathLike[str]) -> Path | None:
    """The file in a SavedModel that a server reads the graph from; None if it has no such file."""
    for name in GRAPH_FILES:
        path = Path(directory, name)
        if path.is_file():
            return path
    return None


def read_graph_file(directory: str | os.PathLike[str]) -> Any:
    """The `SavedModel` message of a SavedModel.

    Raises:
        RepositoryError: there is no graph file, it is not readable, or it is not a SavedModel.
    """
    path = find_graph_file(directory)
    if path is None:
        raise RepositoryError(
            f"{os.fspath(directory)} has no saved_model.pb; give a SavedModel, which has one"
        )
    try:
        data = path.read_bytes()
        if path.suffix == ".pb":
            model = messages.SavedModel.FromString(data)
        else:
            text = data.decode("utf-8", "surrogateescape")
            # The messages of this package lack most fields of TensorFlow's.
            model = text_format.Parse(text, messages.SavedModel(), allow_unknown_field=True)
    except OSError as error:
        raise RepositoryError(
            f"{path}: {error.strerror}; the directory is not a complete SavedModel"
        ) from error
    except (messages.DecodeError, text_format.ParseError, UnicodeError, RecursionError) as error:
        raise RepositoryError(
            f"{path} is not a valid SavedModel: {error}; check that it was copied completely"
        ) from error
    if not model.meta_graphs:
        raise RepositoryError(f"{path} is not a valid SavedModel: it has no graph; export the model again")
    return model
