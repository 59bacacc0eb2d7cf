"""The methods of the two blocking clients."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tfserving.client.client_base import ClientBase
from tfserving.client.flow import Request, run
from tfserving.client.flow_window import batches, check_window, run_in_order
from tfserving.client.options import DEFAULT_TIMEOUT, UNSET, SplitKey, Timeout

if TYPE_CHECKING:
    from types import TracebackType

    from tfserving.client.features import Features
    from tfserving.client.types import Classification, Inference, RowResult, VersionStatus
    from tfserving.wire.dtypes import Array, Arrays
    from tfserving.wire.signatures import Signature

Self = TypeVar("Self", bound="BlockingClient")


class BlockingClient(ClientBase):
    """Calls to a server that block until the response arrives. Threads may share a client.

    Arguments of every call:

    * `model`: the model's name, by default the client's `model_name`.
    * `version` (int) or `label` (str): which version to use, by default the newest that is served.
    * `signature`: which signature of the model, by default "serving_default".
    * `timeout`: seconds for the call including its retries, None for no limit; by default the client's.
    * `split_key`: with `split` in the constructor, calls with the same key (str, bytes or int; an int is the
      same key as its digits) get the same label, in every process; None for a random choice. Calls with a
      version or label, or of another model than `model_name`, are not split.

    Every error is a `TfServingError` and has the address, the model and the server's message:
    `NotFoundError` (model, version, label, signature), `InvalidInputError`, `FailedPreconditionError`,
    `DeadlineError`, `UnavailableError`, `ExhaustedError`, `PermissionDeniedError`, `UnsupportedError`,
    `ProtocolError`.
    """

    def _send(self, request: Request[Any]) -> bytes:
        """Send a request and return the bytes of its response, or raise a TfServingError."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connections; calls in flight fail. Later calls raise FailedPreconditionError."""
        raise NotImplementedError

    def infer(
        self,
        inputs: Any,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: str | Sequence[str] | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> Arrays:
        """Run the model on inputs and return its outputs.

        Args:
            inputs: values by the names of the signature's inputs; for a signature with a single input, its
                value alone is enough. Python numbers, strings and (nested) lists take the signature's dtype;
                numpy arrays must have it. The first dimension is the batch with most models.
            outputs: names of the outputs to return, by default all.
            model, version, label, signature, timeout, split_key: see the class.

        Returns:
            The outputs by name; numbers in the dtype that the server sent, strings as object arrays of bytes.

        Raises:
            InvalidInputError: names, dtypes or shapes do not fit the signature (checked before sending), the
                request is 2 GiB or larger, or the server rejects it.
            TfServingError: see the class.
        """
        flows = self._flows
        spec = flows.spec(model, version, label, signature, split_key)
        return run(flows.infer(inputs, spec, outputs, timeout), self._send, time.sleep)

    def predict(
        self,
        inputs: Any,
        model: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: str | Sequence[str] | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> Arrays:
        """The same as `infer`, which is preferred; takes the model as second positional argument."""
        return self.infer(
            inputs,
            model=model,
            version=version,
            label=label,
            signature=signature,
            outputs=outputs,
            timeout=timeout,
            split_key=split_key,
        )

    def infer_many(
        self,
        inputs: Iterable[Any],
        *,
        batch_size: int = 32,
        concurrency: int = 4,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: str | Sequence[str] | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> Generator[RowResult, None, None]:
        """Run the model on many rows, several of them in each request, and yield the results in order.

        The iterable is read as results are taken: at most `2 * concurrency` requests are ahead of them. Close
        the generator to stop early. An exception of the iterable is raised here.

        Errors of requests are not raised: each row has its outputs or its error. A request that fails because
        of a row, or because it is too large, is sent again in halves, until the row is found. A server that
        is unavailable is retried until `timeout`, however many attempts `retry` allows, unless it allows one.

        Args:
            inputs: for each row what `infer` takes, without the dimension of the batch.
            batch_size: maximum number of rows in a request.
            concurrency: maximum number of requests at a time, each in a thread.
            timeout: seconds for each request including its retries, None for no limit.
            outputs: see `infer`.
            model, version, label, signature, split_key: see the class. A label is chosen for each request.

        Raises:
            InvalidInputError: an argument is not valid; raised before anything is sent.
        """
        flows = self._flows
        check_window(inputs, batch_size, concurrency)
        flows.check_call(outputs, timeout)
        make_spec = partial(flows.spec, model, version, label, signature, split_key)
        make_spec()  # raises before the first row is read
        return run_in_order(
            (
                flows.infer_rows(first, rows, make_spec(), outputs, timeout)
                for first, rows in batches(inputs, batch_size)
            ),
            self._send,
            concurrency,
        )

    def classify(
        self,
        examples: Sequence[Features],
        model: str | None = None,
        *,
        context: Features | None = None,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> list[list[Classification]]:
        """Call a signature with the method `tensorflow/serving/classify`.

        Args:
            examples: dicts from feature names to values: a number, str, bytes, or a list of these. Ints
                become int64 features, floats float features: pass 2.0 where the graph parses a float.
            context: features that all examples share.
            model, version, label, signature, timeout, split_key: see the class.

        Returns:
            For each example its classes, (label, score).
        """
        spec = self._flows.spec(model, version, label, signature, split_key)
        return run(self._flows.classify(examples, spec, context, timeout), self._send, time.sleep)

    def regress(
        self,
        examples: Sequence[Features],
        model: str | None = None,
        *,
        context: Features | None = None,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> Array:
        """Call a signature with the method `tensorflow/serving/regress`; arguments as for `classify`.

        Returns:
            float32, shape [number of examples].
        """
        spec = self._flows.spec(model, version, label, signature, split_key)
        return run(self._flows.regress(examples, spec, context, timeout), self._send, time.sleep)

    def multi_inference(
        self,
        examples: Sequence[Features],
        signatures: str | Sequence[str],
        model: str | None = None,
        *,
        context: Features | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> Inference:
        """Call several classify and regress signatures of one model with the same examples, in one request.

        Args:
            examples, context: see `classify`.
            signatures: their names.
            model, version, label, timeout, split_key: see the class.

        Returns:
            By signature, what `classify` or `regress` would return.

        Raises:
            UnsupportedError: over REST, which has no such call.
        """
        spec = self._flows.spec(model, version, label, split_key=split_key)
        flow = self._flows.multi_inference(examples, signatures, spec, context, timeout)
        return run(flow, self._send, time.sleep)

    def metadata(
        self,
        model: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: Timeout = UNSET,
    ) -> dict[str, Signature]:
        """Fetch the model's signatures, by name; `describe` formats them."""
        spec = self._flows.spec(model, version, label)
        return run(self._flows.metadata(spec, timeout), self._send, time.sleep)

    def resolve_version(
        self, model: str | None = None, *, label: str | None = None, timeout: Timeout = UNSET
    ) -> int:
        """The version that requests with this label get or, without a label, that all others get.

        Raises:
            InvalidInputError: the server has no such label.
            NotFoundError: no version of the model is available.
            TfServingError: see the class.
        """
        spec = self._flows.spec(model, None, label)
        return run(self._flows.resolve_version(spec, timeout), self._send, time.sleep)

    def status(
        self, model: str | None = None, *, version: int | None = None, timeout: Timeout = UNSET
    ) -> list[VersionStatus]:
        """The state of each version that the server knows, newest first; unloaded versions are END."""
        spec = self._flows.spec(model, version)
        return run(self._flows.status(spec, timeout), self._send, time.sleep)

    def wait_until_available(
        self,
        timeout: float | None = DEFAULT_TIMEOUT,
        model: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
    ) -> None:
        """Wait until the model (or that version or label of it) can be called.

        The server, and the model on it, may still be missing when the wait begins.

        Raises:
            DeadlineError: the model was not available within `timeout` seconds; has the last status.
        """
        spec = self._flows.spec(model, version, label)
        run(self._flows.wait_until_available(spec, timeout), self._send, time.sleep)

    def reload_config(self, config: Any, *, timeout: Timeout = UNSET) -> None:
        """Replace the server's whole list of models.

        Args:
            config: the text of a models.config (protobuf text format), or a `ModelServerConfig` message. A
                model that it omits is unloaded.
            timeout: seconds; the server responds when the new models are loaded.

        Raises:
            ConfigError: the text does not parse.
            UnsupportedError: over REST, which has no such call.
        """
        run(self._flows.reload_config(config, timeout), self._send, time.sleep)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
