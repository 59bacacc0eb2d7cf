"""The methods of the two blocking clients."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tfserving.client.flow import Call, Choice, carry_out
from tfserving.client.options import UNSET, Timeout

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np

    from tfserving.client.call_flows import Calls
    from tfserving.client.codec import Inference
    from tfserving.client.features import Features
    from tfserving.client.types import Classification, VersionStatus
    from tfserving.wire.predict import Arrays
    from tfserving.wire.signatures import Signature

T = TypeVar("T")
Self = TypeVar("Self", bound="BlockingClient")


class BlockingClient:
    """Calls to a server, each waiting for its answer. Threads may share a client.

    Every call takes, as keywords:

    * `version` (an int) or `label` (a str): which version shall answer; by default the newest that is served.
    * `signature`: which of the model's signatures, by default "serving_default".
    * `timeout`: seconds for the call with all its retries, None for no limit; by default the client's.

    and may raise, all children of `TfServingError`: `NotFoundError` (model, version, label, signature),
    `InvalidInputError`, `FailedPreconditionError`, `DeadlineError`, `UnavailableError`, `ExhaustedError`,
    `PermissionDeniedError`, `UnsupportedError`, `ProtocolError`; each knows address, model and the server's
    text.
    """

    @property
    def _calls(self) -> Calls:
        raise NotImplementedError

    def _send(self, path: str, body: bytes | None, timeout: float | None, model: str | None) -> bytes:
        """See `plan.Send`."""
        raise NotImplementedError

    def close(self) -> None:
        """End the connections; calls in flight fail. Further calls raise FailedPreconditionError."""
        raise NotImplementedError

    def _run(self, call: Call[T]) -> T:
        return carry_out(call, self._send, time.sleep)

    def infer(self, inputs: Any, **options: Any) -> Arrays:
        """`predict` on the client's model, with the same keywords."""
        return self.predict(inputs, **options)

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
    ) -> Arrays:
        """Ask the model.

        Args:
            inputs: values by the names of the signature's inputs; for a signature with one input the value
                will do. Python numbers, strings and (nested) lists take the signature's dtype; numpy arrays
                must have it. The first dimension is the batch with most models.
            model: another model than the client's.
            version, label, signature, timeout: see the class.
            outputs: names of the outputs to return, by default all.

        Returns:
            The outputs by name; numbers in the dtype that the server sent, strings as object arrays of bytes.

        Raises:
            InvalidInputError: names, dtypes or shapes that do not fit the signature (checked before sending),
                a request of 2 GiB or more, or what the server refuses.
            TfServingError: see the class.
        """
        return self._run(self._calls.predict(inputs, model, version, label, signature, outputs, timeout))

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
    ) -> list[list[Classification]]:
        """Ask a signature of method `tensorflow/serving/classify`.

        Args:
            examples: dicts from feature names to values: a number, str, bytes, or a list of these. Ints
                become int64 features, floats float features: write 2.0 where the graph parses a float.
            context: features that all examples share.
            model, version, label, signature, timeout: see `predict`.

        Returns:
            For each example its classes, (label, score).
        """
        choice = Choice(model, version, label, signature)
        return self._run(self._calls.classify(examples, choice, context, timeout))

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
    ) -> np.ndarray[Any, Any]:
        """Ask a signature of method `tensorflow/serving/regress`; arguments as for `classify`.

        Returns:
            float32, one value an example.
        """
        choice = Choice(model, version, label, signature)
        return self._run(self._calls.regress(examples, choice, context, timeout))

    def multi_inference(
        self,
        examples: Sequence[Features],
        signatures: Sequence[str],
        model: str | None = None,
        *,
        context: Features | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: Timeout = UNSET,
    ) -> Inference:
        """Ask several classify and regress signatures of one model about the same examples at once.

        Args:
            examples, context: see `classify`.
            signatures: their names; which method each takes is learned from the server.
            model, version, label, timeout: see `predict`.

        Returns:
            By signature what `classify` or `regress` would return.

        Raises:
            UnsupportedError: over REST, which has no such call.
        """
        choice = Choice(model, version, label)
        return self._run(self._calls.multi_inference(examples, signatures, choice, context, timeout))

    def metadata(
        self,
        model: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: Timeout = UNSET,
    ) -> dict[str, Signature]:
        """The model's signatures by name, asked for anew; `tfserving.wire.signatures.describe` prints
        them."""
        return self._run(self._calls.metadata(Choice(model, version, label), timeout))

    def status(
        self,
        model: str | None = None,
        *,
        version: int | None = None,
        timeout: Timeout = UNSET,
    ) -> list[VersionStatus]:
        """The state of each version that the server knows, newest first; unloaded ones stay listed as END."""
        return self._run(self._calls.status(Choice(model, version), timeout))

    def wait_until_available(
        self,
        timeout: float | None = 60.0,
        model: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
    ) -> None:
        """Return as soon as the model (or that version, or label) can be called.

        No server, and a server that does not know the model, are waited for as well.

        Raises:
            DeadlineError: it could not be within `timeout` seconds; says what was seen last.
        """
        self._run(self._calls.wait_until_available(Choice(model, version, label), timeout))

    def reload_config(self, config: Any, *, timeout: Timeout = UNSET) -> None:
        """Replace the server's whole list of models.

        Args:
            config: the text of a models.config (protobuf text format), or a `ModelServerConfig` message. A
                model left out is unloaded.
            timeout: seconds; the server answers when the new models are loaded.

        Raises:
            ConfigError: the text does not parse.
            UnsupportedError: over REST, which has no such call.
        """
        self._run(self._calls.reload_config(config, timeout))

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
