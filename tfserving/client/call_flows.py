"""Every call of the client as a flow, for all four clients: blocking or asyncio, gRPC or REST."""

from __future__ import annotations

import math
import operator
import random
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from tfserving.client.flow import Flow, Pause, Request
from tfserving.client.inputs import choose_signature
from tfserving.client.options import (
    UNSET,
    Retry,
    SplitKey,
    Timeout,
    Unset,
    check_timeout,
    is_encodable,
    names_of,
)
from tfserving.client.printable import escape_unprintable
from tfserving.client.rows import join_rows, split_outputs
from tfserving.client.signature_cache import CachedSignatures, Signatures
from tfserving.client.status_errors import is_retryable, is_row_error
from tfserving.client.types import RowResult
from tfserving.errors import (
    DeadlineError,
    ExhaustedError,
    InvalidInputError,
    NotFoundError,
    TfServingError,
    release_frames,
)
from tfserving.repository.config_text import parse_text_format
from tfserving.wire import messages
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import CLASSIFY_METHOD, REGRESS_METHOD

if TYPE_CHECKING:
    from tfserving.client.client_base import Codec
    from tfserving.client.features import Features
    from tfserving.client.label_split import LabelSplit
    from tfserving.client.types import Classification, Inference, VersionStatus
    from tfserving.wire.dtypes import Array, Arrays

T = TypeVar("T")

# Seconds between two polls of the status in wait_until_available, first and at most.
_FIRST_POLL_INTERVAL, _LONGEST_POLL_INTERVAL = 0.05, 1.0
# Seconds for one poll: it must not hang for the whole wait, since the server may come up meanwhile.
_POLL_TIMEOUT = 5.0
# Codes of errors whose cause can be a changed signature.
_STALE_CODES = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "DATA_LOSS"})


@lru_cache(1024)  # most calls have the spec of an earlier call
def _make_spec(name: str, version: int | None, label: str | None, signature: str) -> ModelSpec:
    for what, text in (("model", name), ("label", label), ("signature", signature)):
        if text is not None and not (isinstance(text, str) and is_encodable(text)):
            raise InvalidInputError(f"{what}={text!r} is not valid; pass a str that UTF-8 can represent")
    if version is not None:
        try:
            version = int(operator.index(version))
        except TypeError as error:
            raise InvalidInputError(f"version={version!r} is not valid; pass an int") from error
        if not -(2**63) <= version < 2**63:
            raise InvalidInputError(f"version={version} is not valid; versions are 64-bit integers")
    return ModelSpec(name, version, label, signature)


class CallFlows:
    """Makes flows. Holds what they share: defaults, and the cached signatures.

    Args:
        codec: writes requests and reads responses.
        address: for error messages.
        model: the default model.
        timeout: default timeout in seconds, already checked; None for no limit.
        retry: when to retry.
        split: the labels that calls of the default model go to; None for calls without a label.
        clock: monotonic time in seconds.
        rng: random numbers in [0, 1), for the jitter of pauses and the choice of labels.
    """

    def __init__(
        self,
        codec: Codec,
        address: str,
        model: str | None,
        *,
        timeout: float | None,
        retry: Retry,
        split: LabelSplit | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._codec = codec
        self._address = address
        self._model = model
        self._timeout = timeout
        self._retry = retry
        self._split = split
        self._clock = clock
        self._rng = rng
        # Plain dict operations: threads may fetch the same signatures twice, which does no harm.
        self._cache: dict[tuple[str, int | None, str | None], CachedSignatures] = {}

    def spec(
        self,
        model: str | None,
        version: int | None,
        label: str | None = None,
        signature: str | None = None,
        split_key: SplitKey | Unset = UNSET,
    ) -> ModelSpec:
        """The model spec for the arguments of a call; UNSET as the key means a call that is not split.

        Raises:
            InvalidInputError: no model name was given, both a version and a label were, or one of the
                arguments is not valid.
        """
        name = model or self._model
        if not name:
            raise InvalidInputError(
                "no model name was given; pass model=, or model_name= to the client", address=self._address
            )
        if self._split is not None and split_key is not UNSET:
            is_split = name == self._model and version is None and label is None
            label = self._split.choose(split_key, self._rng) if is_split else label
        if version is not None and label is not None:
            raise InvalidInputError(
                f"version={version} and label={label!r} are mutually exclusive; pass one of them"
            )
        try:
            return _make_spec(name, version, label, signature or "")
        except TypeError as error:  # not hashable
            raise InvalidInputError(
                f"model={name!r}, version={version!r}, label={label!r} or signature={signature!r} "
                "is not valid; names are str, a version is an int"
            ) from error

    def check_call(self, outputs: str | Sequence[str] | None, timeout: Timeout) -> None:
        """Raise InvalidInputError for arguments that every request of `infer_rows` would reject."""
        if outputs is not None:
            names_of(outputs, "outputs")
        self._deadline(timeout)

    def infer(
        self, inputs: Any, spec: ModelSpec, outputs: str | Sequence[str] | None, timeout: Timeout
    ) -> Flow[Arrays]:
        """Predict.

        The cached signature may belong to a version that is gone. So an input that it rejects, or that the
        server rejects, is an error only after the signature was fetched again; if it changed, the call is
        made once more.
        """
        names = () if outputs is None else names_of(outputs, "outputs")
        deadline = self._deadline(timeout)
        cached = self._cache.get(_cache_key(spec))
        is_new = cached is None
        if cached is None:
            cached = yield from self._fetch_signatures(spec, deadline)
        while True:
            try:
                request = cached.prepare(spec, names, self._codec)(inputs)
                return (yield from self._request(request, deadline))
            except TfServingError as error:
                self._add_context(error, spec.name)
                if is_new or error.code not in _STALE_CODES:
                    raise
                newer = yield from self._refetch_signatures(spec, deadline)
                if newer is None or cached.is_same(newer, spec.signature):
                    raise
                cached, is_new = newer, True

    def infer_rows(
        self,
        first: int,
        rows: Sequence[Any],
        spec: ModelSpec,
        outputs: str | Sequence[str] | None,
        timeout: Timeout,
    ) -> Flow[list[RowResult]]:
        """Predict for rows in one request, or in smaller ones to find the rows that fail.

        Args:
            first: number of the first row.
            rows: see `join_rows`.
            spec, outputs: as for `infer`.
            timeout: for each request. Errors that a retry can solve are retried until then.
        """
        try:
            arrays = yield from self._infer_until_deadline(join_rows(rows), spec, outputs, timeout)
            return split_outputs(arrays, first, len(rows))
        except TfServingError as error:
            self._add_context(error, spec.name)
            if len(rows) == 1 or not is_row_error(error):
                release_frames(error)
                return [RowResult(row, None, error) for row in range(first, first + len(rows))]
        middle = len(rows) // 2
        results = yield from self.infer_rows(first, rows[:middle], spec, outputs, timeout)
        results += yield from self.infer_rows(first + middle, rows[middle:], spec, outputs, timeout)
        return results

    def classify(
        self, examples: Sequence[Features], spec: ModelSpec, context: Features | None, timeout: Timeout
    ) -> Flow[list[list[Classification]]]:
        request = self._codec.classify(spec, examples, context)
        return (yield from self._request(request, self._deadline(timeout)))

    def regress(
        self, examples: Sequence[Features], spec: ModelSpec, context: Features | None, timeout: Timeout
    ) -> Flow[Array]:
        request = self._codec.regress(spec, examples, context)
        return (yield from self._request(request, self._deadline(timeout)))

    def multi_inference(
        self,
        examples: Sequence[Features],
        signatures: str | Sequence[str],
        spec: ModelSpec,
        context: Features | None,
        timeout: Timeout,
    ) -> Flow[Inference]:
        names = names_of(signatures, "signatures")
        deadline = self._deadline(timeout)
        cached = self._cache.get(_cache_key(spec))
        if cached is None or any(name not in cached.signatures for name in names):
            cached = yield from self._fetch_signatures(spec, deadline)
        tasks = []
        for name in names:
            method = choose_signature(cached.signatures, name).method_name
            if method not in (CLASSIFY_METHOD, REGRESS_METHOD):
                raise InvalidInputError(
                    f"signature {name!r} has the method {method}; multi_inference takes signatures for "
                    "classify and regress"
                )
            tasks.append((ModelSpec(spec.name, spec.version, spec.label, name), method))
        request = self._codec.multi_inference(tasks, examples, context)
        return (yield from self._request(request, deadline))

    def metadata(self, spec: ModelSpec, timeout: Timeout) -> Flow[Signatures]:
        cached = yield from self._fetch_signatures(spec, self._deadline(timeout))
        return dict(cached.signatures)

    def resolve_version(self, spec: ModelSpec, timeout: Timeout) -> Flow[int]:
        return (yield from self._request(self._codec.resolve_version(spec), self._deadline(timeout)))

    def status(self, spec: ModelSpec, timeout: Timeout) -> Flow[list[VersionStatus]]:
        return (yield from self._request(self._codec.status(spec), self._deadline(timeout)))

    def wait_until_available(self, spec: ModelSpec, timeout: float | None) -> Flow[None]:
        """Poll the status, with growing intervals, until the model is available."""
        deadline = self._deadline(timeout)
        interval = _FIRST_POLL_INTERVAL
        state: str | None = None
        cause: TfServingError | None = None
        while True:
            try:
                state = yield from self._poll_status(spec, deadline)
            except TfServingError as error:
                if not _is_temporary(error, spec):
                    raise
                # a poll that timed out says less than the one before it
                if state is None or not isinstance(error, DeadlineError):
                    state, cause = str(error), error
            else:
                cause = None
            if state is None:
                return
            left = math.inf if deadline is None else deadline - self._clock()
            yield Pause(max(0.0, min(interval, left)))
            if left <= interval:
                raise DeadlineError(
                    f"{self._address}: model {spec.name!r} is not available after {timeout} s; "
                    f"last status: {state}",
                    address=self._address,
                    model=spec.name,
                    server_message=cause.server_message if cause else None,
                ) from cause
            interval = min(interval * 1.5, _LONGEST_POLL_INTERVAL)

    def reload_config(self, config: Any, timeout: Timeout) -> Flow[None]:
        request = self._codec.reload_config(_config_message(config))
        yield from self._request(request, self._deadline(timeout))

    def _poll_status(self, spec: ModelSpec, deadline: float | None) -> Flow[str | None]:
        """None when the model can be called, else the states of its versions."""
        until = self._clock() + _POLL_TIMEOUT
        if deadline is not None:
            until = min(deadline, until)
        versions = yield from self._request(self._codec.status(spec), until, retry=False)
        if not any(version.state == "AVAILABLE" for version in versions):
            return "; ".join(
                escape_unprintable(f"version {one.version} {one.state} {one.error_message}".rstrip())
                for one in versions
            )
        if spec.label is not None:  # the status ignores labels, metadata does not
            yield from self._request(self._codec.metadata(spec), until, retry=False)
        return None

    def _infer_until_deadline(
        self, inputs: Any, spec: ModelSpec, outputs: str | Sequence[str] | None, timeout: Timeout
    ) -> Flow[Arrays]:
        """As `infer`, with as many retries as the deadline allows, so that a server can restart."""
        deadline = self._deadline(timeout)
        while True:
            left = None if deadline is None else max(0.0, deadline - self._clock())
            try:
                return (yield from self.infer(inputs, spec, outputs, left))
            except TfServingError as error:
                pause = self._retry.longest_pause * (1 - self._rng() / 2)
                is_late = deadline is not None and self._clock() + pause >= deadline
                if is_late or self._retry.attempts == 1 or not is_retryable(error):
                    raise
            yield Pause(pause)

    def _deadline(self, timeout: Timeout) -> float | None:
        seconds = self._timeout
        if timeout is not UNSET:
            check_timeout(timeout)
            seconds = timeout
        return None if seconds is None else self._clock() + float(seconds)

    def _fetch_signatures(self, spec: ModelSpec, deadline: float | None) -> Flow[CachedSignatures]:
        request = self._codec.metadata(ModelSpec(spec.name, spec.version, spec.label))
        cached = CachedSignatures((yield from self._request(request, deadline)))
        self._cache[_cache_key(spec)] = cached
        return cached

    def _refetch_signatures(self, spec: ModelSpec, deadline: float | None) -> Flow[CachedSignatures | None]:
        """As `_fetch_signatures`, but None on failure: the caller raises the error that led here."""
        self._cache.pop(_cache_key(spec), None)
        try:
            return (yield from self._fetch_signatures(spec, deadline))
        except TfServingError:
            return None

    def _request(self, request: Request[T], deadline: float | None, *, retry: bool = True) -> Flow[T]:
        """Send, and retry where that may help and the deadline allows it."""
        failures = 0
        while True:
            request.timeout = left = None if deadline is None else deadline - self._clock()
            if left is not None and left <= 0:
                raise DeadlineError(
                    f"{self._address}: the deadline passed before the request was sent; increase timeout=",
                    address=self._address,
                    model=request.model,
                )
            try:
                response = yield request
                break
            except MemoryError as error:
                raise self._make_memory_error(request) from error
            except TfServingError as error:
                self._add_context(error, request.model)
                failures += 1
                pause = self._retry.pause(failures, self._rng())
                is_late = deadline is not None and self._clock() + pause >= deadline
                if is_late or failures >= self._retry.attempts or not retry or not is_retryable(error):
                    raise
            yield Pause(pause)
        try:
            return request.decode(response)
        except MemoryError as error:
            raise self._make_memory_error(request) from error
        except TfServingError as error:
            self._add_context(error, request.model)
            raise

    def _make_memory_error(self, request: Request[Any]) -> ExhaustedError:
        error = ExhaustedError(
            "the response does not fit in memory; pass smaller inputs, or run the client with more memory"
        )
        self._add_context(error, request.model)
        return error

    def _add_context(self, error: TfServingError, model: str | None) -> None:
        """Add address and model to an error that was raised without them."""
        if error.address is None:
            error.address, error.model = self._address, model
            about = f", model {model!r}" if model else ""
            error.args = (f"{self._address}{about}: {error}",)


def _cache_key(spec: ModelSpec) -> tuple[str, int | None, str | None]:
    return spec.name, spec.version, spec.label


def _is_temporary(error: TfServingError, spec: ModelSpec) -> bool:
    """Whether waiting can help: no server yet, no such model yet, a label without a version yet."""
    if isinstance(error, (NotFoundError, DeadlineError)) or is_retryable(error):
        return True
    return spec.label is not None and error.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")


def _config_message(config: Any) -> Any:
    """A ModelServerConfig message from one, or from protobuf text format.

    Raises:
        ConfigError: the text does not parse; with line and column.
    """
    if isinstance(config, messages.ModelServerConfig):
        return config
    if not isinstance(config, str):
        raise InvalidInputError(
            f"config is a {type(config).__name__}; pass the text of a models.config, or a ModelServerConfig"
        )
    return parse_text_format(config)
