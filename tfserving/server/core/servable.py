"""The interface of a loaded version, independent of the runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from tfserving.errors import InvalidInputError
from tfserving.server.request_context import RequestContext
from tfserving.wire.dtypes import Array, Arrays, DType
from tfserving.wire.signatures import Signature

Inputs = Mapping[str, Array]


class NotKnownFastError(Exception):
    """A request is not run in the event loop, because it may take long there."""


class Servable(Protocol):
    """A version in memory. Many threads may call `submit` at the same time, none after `close`."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures by name."""

    @property
    def signature_def_map(self) -> Any:
        """The same as a `SignatureDefMap` message, as the SavedModel has it."""

    def submit(
        self, context: RequestContext, signature: Signature, inputs: Inputs, outputs: Sequence[str]
    ) -> Future[Arrays]:
        """Runs a signature, now or as soon as possible, and records how long it took in the context.

        Args:
            context: the request.
            inputs: by alias; the aliases are those of the signature.
            outputs: the aliases to return.

        Returns:
            A future for the outputs by alias. It is already done if the model ran in the calling thread.

        Raises:
            NotKnownFastError: `context.in_event_loop` is set, and this call may take long.
            InvalidInputError: the dtype of an input is not that of the signature.
            TfServingError: the graph failed; the code is the one that TensorFlow gave. Both errors are either
                raised by this call or by the future.
        """

    def close(self) -> None:
        """Frees memory and devices. No future is pending by then."""


class Loader(Protocol):
    """Brings a version into memory, warmed up and ready to serve."""

    def __call__(self, model: str, version: int, path: Path) -> Servable:
        """Loads the version in the directory `path`.

        Raises:
            TfServingError: the version cannot be loaded.
        """


def check_dtypes(signature: Signature, inputs: Inputs) -> None:
    """Checks that every input has the dtype of the signature.

    Raises:
        InvalidInputError: names the input, the expected dtype and the given one.
    """
    for alias, array in inputs.items():
        expected, given = signature.inputs[alias].dtype, DType.of(array.dtype)
        if expected is not given:
            raise InvalidInputError(
                f"input {alias!r} of signature {signature.name!r} is {expected.label}, "
                f"the request has {given.label}"
            )


def complete_inputs(signature: Signature, inputs: Inputs, model: str) -> Inputs:
    """The inputs of a request, and the defaults of the signature for those that it lacks.

    Raises:
        InvalidInputError: names the inputs that are missing or that the signature does not have.
    """
    missing = signature.inputs.keys() - inputs.keys() - signature.defaults.keys()
    unknown = inputs.keys() - signature.inputs.keys()
    if missing or unknown:
        raise InvalidInputError(
            f"signature {signature.name!r} of model {model!r} takes {_join(signature.inputs)}"
            + (f"; missing: {_join(missing)}" if missing else "")
            + (f"; unknown: {_join(unknown)}" if unknown else ""),
            model=model,
        )
    return {**signature.defaults, **inputs} if signature.defaults else inputs


def select_outputs(signature: Signature, outputs: Sequence[str], model: str) -> tuple[str, ...]:
    """The outputs that a request selects; all outputs of the signature if it selects none.

    Raises:
        InvalidInputError: names the outputs that do not exist or that are selected more than once
            (PreProcessPrediction in predict_util.cc).
    """
    if not outputs:
        return tuple(signature.outputs)
    unknown = set(outputs) - signature.outputs.keys()
    if unknown:
        raise InvalidInputError(
            f"signature {signature.name!r} of model {model!r} returns {_join(signature.outputs)}, "
            f"not {_join(unknown)}",
            model=model,
        )
    repeated = [alias for alias, count in Counter(outputs).items() if count > 1]
    if repeated:
        raise InvalidInputError(
            f"the request selects an output more than once: {_join(repeated)}; select each output once",
            model=model,
        )
    return tuple(outputs)


def _join(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "nothing"
