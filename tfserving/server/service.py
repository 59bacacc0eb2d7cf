"""The service behind both APIs. gRPC and REST are codecs over it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from tfserving.errors import FailedPreconditionError, InvalidInputError, TfServingError
from tfserving.server.core.loader_harness import LoaderHarness
from tfserving.server.core.manager import ServableManager
from tfserving.server.core.servable import Inputs, complete_inputs, select_outputs
from tfserving.server.core.servable_state import ServableStatus
from tfserving.server.request_context import RequestContext
from tfserving.server.worker_pool import WorkerPools
from tfserving.wire import messages
from tfserving.wire.dtypes import Arrays
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import (
    CLASSIFY_METHOD,
    DEFAULT_SIGNATURE,
    PREDICT_METHOD,
    REGRESS_METHOD,
    Signature,
)

METADATA_FIELD = "signature_def"

# Predict takes signatures of any kind.
_PREDICT_TAKES = (PREDICT_METHOD, CLASSIFY_METHOD, REGRESS_METHOD)
# The lengths of so many strings are looked up.
_WEIGHED_STRINGS = 64

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """The result of Predict: the spec with the version that ran, its signature, the outputs by alias."""

    spec: ModelSpec
    signature: Signature
    outputs: Arrays


class Service:
    """Serves requests with the versions of the manager. Errors are those of tfserving.errors.

    Args:
        manager: finds the version for a request.
        workers: run inference; the other methods are fast and may run in the event loop.
        check_method_names: whether a signature serves only the methods that its method name is for.
    """

    def __init__(
        self, manager: ServableManager, workers: WorkerPools, *, check_method_names: bool = False
    ) -> None:
        self._manager = manager
        self._workers = workers
        self._check_method_names = check_method_names

    def run_in_worker(
        self, model: str, size: int, function: Callable[..., Future[T]], *args: object
    ) -> asyncio.Future[T]:
        """Runs `function(*args)` in a worker thread of the model, and waits for its future without one.

        Args:
            size: bytes of the request.

        Raises:
            ExhaustedError: too many requests for the model are waiting.
        """
        return self._workers.run(model, size, function, *args)

    def run_where_fast(
        self,
        model: str,
        size: int,
        function: Callable[..., Future[T]],
        context: RequestContext,
        *args: object,
    ) -> asyncio.Future[T]:
        """As `run_in_worker`, but in the event loop if `function(context, *args)` is known to be fast.

        Raises:
            ExhaustedError: see `run_in_worker`.
        """
        return self._workers.run_where_fast(model, size, function, context, *args)

    def predict(
        self,
        context: RequestContext,
        spec: ModelSpec,
        make_inputs: Callable[[Signature], Inputs],
        outputs: Sequence[str] = (),
        *,
        method: str | None = None,
    ) -> Future[Prediction]:
        """Runs a signature of a model; to be called by `run_in_worker` or `run_where_fast`.

        Args:
            context: the request.
            spec: the model, version and signature.
            make_inputs: returns the inputs by alias for the signature that will run.
            outputs: the aliases to return; all outputs if empty.
            method: the method name that the signature must have, of Classify or Regress; None for Predict.

        Returns:
            A future that is already done, or that the event loop or a worker thread completes.

        Raises:
            NotFoundError: the model or the version is not served.
            FailedPreconditionError: Predict is called with a signature that the version does not have.
            InvalidInputError: names or dtypes do not match the signature, or an output does not exist or is
                selected twice, or Classify or Regress is called with a signature that does not exist.
            TfServingError: the method name of the signature is checked and is another; or the graph failed,
                with the code that TensorFlow gave. What the model raises comes from the future if it waits
                for a batch.
        """
        context.requested_spec = spec
        return self.with_version(
            spec,
            lambda harness: self.predict_with(context, harness, spec, make_inputs, outputs, method=method),
        )

    def with_version(self, spec: ModelSpec, function: Callable[[LoaderHarness], Future[T]]) -> Future[T]:
        """Calls the function with the version of a spec, which stays loaded until the future is done.

        Raises:
            NotFoundError: the model or the version is not served.
        """
        harness = self._manager.acquire(spec)
        try:
            future = function(harness)
        except BaseException:
            harness.unpin()
            raise
        future.add_done_callback(lambda _: harness.unpin())
        return future

    def predict_with(
        self,
        context: RequestContext,
        harness: LoaderHarness,
        spec: ModelSpec,
        make_inputs: Callable[[Signature], Inputs],
        outputs: Sequence[str] = (),
        *,
        method: str | None = None,
    ) -> Future[Prediction]:
        """As `predict`, for a version from `with_version`."""
        context.requested_spec, context.version = spec, harness.version
        name = spec.signature or DEFAULT_SIGNATURE
        servable = harness.servable
        signature = servable.signatures.get(name)
        # Codes as in predict_util.cc, classifier.cc and regressor.cc
        if signature is None:
            missing = FailedPreconditionError if method is None else InvalidInputError
            raise missing(
                f"model {spec.name!r} version {harness.version} has no signature {name!r} "
                f"(signatures: {', '.join(servable.signatures) or 'none'})",
                model=spec.name,
            )
        accepted = _PREDICT_TAKES if method is None else (method,)
        if self._check_method_names and signature.method_name not in accepted:
            raise TfServingError(
                f"signature {name!r} of model {spec.name!r} has method name {signature.method_name!r}, "
                f"expected {' or '.join(accepted)}",
                code="INTERNAL" if method is None else "INVALID_ARGUMENT",
                model=spec.name,
            )
        context.signature = name
        inputs = complete_inputs(signature, make_inputs(signature), spec.name)
        future = servable.submit(context, signature, inputs, select_outputs(signature, outputs, spec.name))
        served = ModelSpec(spec.name, harness.version, signature=name)
        size_of = _weigh if method is None else _outweigh
        return self._workers.then(
            spec.name, future, lambda arrays: Prediction(served, signature, arrays), size_of, context
        )

    def check_served(self, spec: ModelSpec) -> None:
        """Raises what a request for the model would raise if its version is not served.

        Raises:
            NotFoundError: the model or the version is not served.
            InvalidInputError: the label does not exist.
        """
        self._manager.acquire(spec).unpin()

    def metadata(self, context: RequestContext, spec: ModelSpec) -> tuple[ModelSpec, Any]:
        """The spec with the version that it means, and its signatures as a `SignatureDefMap` message.

        Raises:
            NotFoundError: the model or the version is not served.
        """
        context.requested_spec = spec
        harness = self._manager.acquire(spec)
        try:
            context.version = harness.version
            return ModelSpec(spec.name, harness.version), harness.servable.signature_def_map
        finally:
            harness.unpin()

    def status(self, context: RequestContext, spec: ModelSpec) -> Any:
        """A `GetModelStatusResponse` with every version, or with the one of the spec; labels are ignored.

        Raises:
            NotFoundError: the model or the version does not exist.
        """
        context.requested_spec = spec
        if not spec.name:
            raise InvalidInputError("no model name was given; set model_spec.name")
        response = messages.GetModelStatusResponse()
        for status in self._manager.status(spec.name, spec.version):
            _add_status(response, status)
        return response


def _weigh(arrays: Arrays) -> int:
    """The bytes of arrays, at least eight for each value: writing JSON takes time per value.

    More than any limit if there are more strings than _WEIGHED_STRINGS.
    """
    size = 0
    for array in arrays.values():
        if array.dtype != object:
            size += max(array.nbytes, 8 * array.size)
        elif array.size <= _WEIGHED_STRINGS:
            size += sum(8 + len(text) for text in array.flat)
        else:
            return sys.maxsize
    return size


def _outweigh(_: Arrays) -> int:
    """More than any limit: results of tf.Examples have a message per value, and can be joined."""
    return sys.maxsize


def _add_status(response: Any, status: ServableStatus) -> None:
    entry = response.model_version_status.add(version=status.version, state=int(status.state))
    entry.status.SetInParent()
    if status.error is not None:
        entry.status.error_code = status.error.code
        entry.status.error_message = str(status.error)
