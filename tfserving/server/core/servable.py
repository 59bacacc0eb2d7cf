"""What a loaded version can do, whatever runtime it runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tfserving.errors import InvalidInputError
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import Signature

Arrays = dict[str, np.ndarray[Any, Any]]


class Servable(Protocol):
    """A version in memory. `run` may be called from many threads at once, and never after `close`."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures by name."""

    @property
    def signature_def_map(self) -> Any:
        """The same as a `SignatureDefMap` message, as the SavedModel has it."""

    def run(
        self, signature: Signature, inputs: Mapping[str, np.ndarray[Any, Any]], outputs: Sequence[str]
    ) -> Arrays:
        """The named outputs for inputs whose names are the signature's.

        Raises:
            InvalidInputError: an input of another dtype than the signature's.
            TfServingError: the graph failed; the code is the one that TensorFlow gave.
        """

    def close(self) -> None:
        """Frees memory and devices."""


class Loader(Protocol):
    """Brings a version into memory, warmed up and ready to answer."""

    def __call__(self, model: str, version: int, path: Path) -> Servable:
        """Loads the version in the directory `path`.

        Raises:
            TfServingError: the version cannot be loaded.
        """


def check_dtypes(signature: Signature, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Makes sure that every input has the dtype of the signature.

    Raises:
        InvalidInputError: names the input, what is expected and what was given.
    """
    for alias, array in inputs.items():
        expected, given = signature.inputs[alias].dtype, DType.of(array.dtype)
        if expected is not given:
            raise InvalidInputError(
                f"input {alias!r} of signature {signature.name!r} is {expected.label}, "
                f"the request has {given.label}"
            )
