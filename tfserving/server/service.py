"""What the server answers, whatever the transport. gRPC and REST are codecs over these calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tfserving.errors import FailedPreconditionError, InvalidInputError
from tfserving.server.core.loader_harness import Harness
from tfserving.server.core.manager import Manager
from tfserving.server.core.servable import Arrays
from tfserving.server.core.servable_state import VersionStatus
from tfserving.server.observability import call_context
from tfserving.server.worker_pool import Workers
from tfserving.wire import messages
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import (
    CLASSIFY_METHOD,
    DEFAULT_SIGNATURE,
    PREDICT_METHOD,
    REGRESS_METHOD,
    Signature,
)

METADATA_FIELD = "signature_def"

# Predict takes signatures of any kind (predict_util.cc).
METHODS = (PREDICT_METHOD, CLASSIFY_METHOD, REGRESS_METHOD)

T = TypeVar("T")

Inputs = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Prediction:
    """An answered Predict: the spec with the version that answered, its signature, the outputs by alias."""

    spec: ModelSpec
    signature: Signature
    outputs: Arrays


class Service:
    """Answers calls with what the manager serves. Errors are of tfserving.errors.

    `predict` blocks and belongs into `in_worker`; the other calls are quick. With `check_method_names` a
    signature answers only the calls that its method name is for.
    """

    def __init__(self, manager: Manager, workers: Workers, *, check_method_names: bool = False) -> None:
        self._manager = manager
        self._workers = workers
        self._check_method_names = check_method_names

    async def in_worker(self, model: str, function: Callable[..., T], *args: object) -> T:
        """Awaits `function(*args)` in a thread of the model, so that it keeps nobody else waiting."""
        # with the context goes the call that is being answered
        return await self._workers.run(model, copy_context().run, function, *args)

    def predict(
        self,
        spec: ModelSpec,
        read: Callable[[Signature], Inputs],
        outputs: Sequence[str] = (),
        *,
        methods: Sequence[str] = METHODS,
    ) -> Prediction:
        """Runs a signature of a model.

        Args:
            spec: which model, version and signature.
            read: gives the inputs by alias for the signature of the version that is going to answer.
            outputs: the aliases wanted, all of them when empty.
            methods: the method names that the signature may have, where these are checked.

        Raises:
            NotFoundError: the model or version is not served.
            FailedPreconditionError: the version has no such signature.
            InvalidInputError: names or dtypes do not fit the signature, an output is not known, or the method
                name is another.
            TfServingError: the graph failed, with the code that TensorFlow gave.
        """
        call_context.current().asked = spec
        with self.pinned(spec) as version:
            return self.predict_with(version, spec, read, outputs, methods=methods)

    @contextmanager
    def pinned(self, spec: ModelSpec) -> Iterator[Harness]:
        """The version that a spec means now, for `predict_with`.

        While the block runs it is not freed, and answers even if it goes out of service meanwhile.

        Raises:
            NotFoundError: the model or version is not served.
        """
        with self._manager.acquire(spec) as version:
            yield version

    def predict_with(
        self,
        version: Harness,
        spec: ModelSpec,
        read: Callable[[Signature], Inputs],
        outputs: Sequence[str] = (),
        *,
        methods: Sequence[str] = METHODS,
    ) -> Prediction:
        """As `predict`, with a version that is `pinned`."""
        call = call_context.current()
        call.asked, call.version = spec, version.version
        name = spec.signature or DEFAULT_SIGNATURE
        servable = version.servable
        signature = servable.signatures.get(name)
        if signature is None:
            raise FailedPreconditionError(
                f"model {spec.name!r} version {version.version} has no signature {name!r} "
                f"(signatures: {', '.join(servable.signatures) or 'none'})",
                model=spec.name,
            )
        if self._check_method_names and signature.method_name not in methods:
            raise InvalidInputError(
                f"signature {name!r} of model {spec.name!r} is of method {signature.method_name!r}; this "
                f"call takes {' or '.join(methods)}",
                model=spec.name,
            )
        call.signature = name
        inputs = _checked_inputs(signature, read(signature), spec.name)
        wanted = _checked_outputs(signature, outputs, spec.name)
        began = time.perf_counter()
        answer = servable.run(signature, inputs, wanted)
        call.run_seconds = time.perf_counter() - began
        return Prediction(ModelSpec(spec.name, version.version, signature=name), signature, answer)

    def metadata(self, spec: ModelSpec) -> tuple[ModelSpec, Any]:
        """The spec with the version that answers, and its signatures as a `SignatureDefMap` message.

        Raises:
            NotFoundError: the model or version is not served.
        """
        call = call_context.current()
        call.asked = spec
        with self._manager.acquire(spec) as harness:
            call.version = harness.version
            return ModelSpec(spec.name, harness.version), harness.servable.signature_def_map

    def status(self, spec: ModelSpec) -> Any:
        """A `GetModelStatusResponse`: every version, or the one of the spec; labels do not count.

        Raises:
            NotFoundError: no such model or version.
        """
        call_context.current().asked = spec
        if not spec.name:
            raise InvalidInputError("the request names no model: set model_spec.name")
        response = messages.GetModelStatusResponse()
        for status in self._manager.status(spec.name, spec.version):
            _add_status(response, status)
        return response


def _add_status(response: Any, status: VersionStatus) -> None:
    entry = response.model_version_status.add(version=status.version, state=int(status.state))
    entry.status.SetInParent()
    if status.error is not None:
        entry.status.error_code = status.error.code
        entry.status.error_message = str(status.error)


def _checked_inputs(signature: Signature, inputs: Inputs, model: str) -> Inputs:
    """The inputs with the signature's defaults filled in, once the names are known to fit."""
    missing = signature.inputs.keys() - inputs.keys() - signature.defaults.keys()
    unknown = inputs.keys() - signature.inputs.keys()
    if missing or unknown:
        raise InvalidInputError(
            f"signature {signature.name!r} of model {model!r} takes {_names(signature.inputs)}"
            + (f"; missing: {_names(missing)}" if missing else "")
            + (f"; not known: {_names(unknown)}" if unknown else ""),
            model=model,
        )
    return {**signature.defaults, **inputs} if signature.defaults else inputs


def _checked_outputs(signature: Signature, outputs: Sequence[str], model: str) -> tuple[str, ...]:
    if not outputs:
        return tuple(signature.outputs)
    unknown = set(outputs) - signature.outputs.keys()
    if unknown:
        raise InvalidInputError(
            f"signature {signature.name!r} of model {model!r} gives {_names(signature.outputs)}, "
            f"not {_names(unknown)}",
            model=model,
        )
    # one that is asked for twice is answered once: a map has no room for it
    return tuple(dict.fromkeys(outputs))


def _names(names: Any) -> str:
    return ", ".join(map(repr, sorted(names))) or "nothing"
