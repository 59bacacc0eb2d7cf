"""Every call of the client, as plans for all four clients: blocking or asyncio, gRPC or REST."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tfserving.client.flow import Call, Choice, Exchange, Outcome, Pause, Plan, Send
from tfserving.client.inputs import choose
from tfserving.client.options import UNSET, Retry, Timeout
from tfserving.client.signature_cache import Known, Signatures
from tfserving.client.status_errors import worth_retrying
from tfserving.errors import (
    ConfigError,
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    TfServingError,
)
from tfserving.wire import messages
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import CLASSIFY_METHOD, REGRESS_METHOD

if TYPE_CHECKING:
    import numpy as np

    from tfserving.client.codec import Codec, Inference
    from tfserving.client.features import Features
    from tfserving.client.types import Classification, VersionStatus
    from tfserving.wire.predict import Arrays

T = TypeVar("T")

# Between two looks at the status of a model that is waited for.
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0
# One look must not hang for as long as the wait may take: the server may come up meanwhile.
_LOOK_TIMEOUT = 5.0


class Calls:
    """Makes plans. Holds what they share: defaults, and the signatures learned so far.

    Args:
        codec: how questions are written and answers read.
        address: for error messages.
        model: the model of calls that name none.
        timeout: seconds for calls that give none; None for no limit.
        retry: when to ask again.
        clock, chance: time in seconds and a number in [0, 1), for tests to replace.
    """

    def __init__(
        self,
        codec: Codec,
        address: str,
        model: str | None,
        *,
        timeout: float | None,
        retry: Retry,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self._codec = codec
        self._address = address
        self._model = model
        self._timeout = timeout
        self._retry = retry
        self._clock = clock
        self._chance = chance or _chance
        # By model, version and label, as callers chose them. Plain dict operations: threads may learn the
        # same twice, which does no harm.
        self._learned: dict[tuple[str | None, int | None, str | None], Known] = {}

    def predict(
        self,
        inputs: Any,
        model: str | None,
        version: int | None,
        label: str | None,
        signature: str | None,
        outputs: str | Sequence[str] | None,
        timeout: Timeout,
    ) -> Call[Arrays]:
        """Inputs to outputs by way of the signature."""
        names = () if outputs is None else (outputs,) if isinstance(outputs, str) else tuple(outputs)
        deadline = self._deadline(timeout)
        known = self._learned.get((model or self._model, version, label))
        arguments = inputs, (model, version, label, signature), names, deadline, known
        prepared = known and known.prepared(signature or "", names)
        if prepared:
            exchange, body_of = prepared
            try:
                body = body_of(inputs)
            except TfServingError:
                return self._predict(*arguments)
            left = None if deadline is None else deadline - self._clock()
            if left is None or left > 0:
                return exchange, body, left, self._predict, (*arguments, body)
        return self._predict(*arguments)

    def _predict(
        self,
        inputs: Any,
        choice: tuple[Any, ...],
        names: tuple[str, ...],
        deadline: float | None,
        known: Known | None,
        body: bytes | None = None,
        outcome: Outcome | None = None,
    ) -> Plan[Arrays]:
        """`predict` with all that can come between.

        `body` is there where it was made already, `outcome` as for `_ask`.

        What is known of the signature may be of a version that is gone. So nothing is refused, here or by the
        server, before the signature has been asked for anew; when it did change, the call is made again with
        it.
        """
        spec = self._spec(Choice(*choice))
        fresh = known is None
        if known is None:
            known = yield from self._learn(spec, deadline)
        while True:
            try:
                exchange, body_of = known.prepare(spec, names, self._codec.predictor)
                asking = self._ask(exchange, deadline, body or body_of(inputs), outcome)
                outcome = None  # an error must not hold the frame that it came through
                return (yield from asking)
            except TfServingError as error:
                self._place(error, spec.name)
                if fresh or not _may_be_stale(error):
                    raise
                newer = yield from self._learn_again(spec, deadline)
                if newer is None or known.same_as(newer, spec.signature):
                    raise
                known, fresh, body = newer, True, None

    def classify(
        self, examples: Sequence[Features], choice: Choice, context: Features | None, timeout: Timeout
    ) -> Plan[list[list[Classification]]]:
        spec = self._spec(choice)
        exchange = self._codec.classify(spec, examples, context)
        return (yield from self._ask(exchange, self._deadline(timeout)))

    def regress(
        self, examples: Sequence[Features], choice: Choice, context: Features | None, timeout: Timeout
    ) -> Plan[np.ndarray[Any, Any]]:
        spec = self._spec(choice)
        exchange = self._codec.regress(spec, examples, context)
        return (yield from self._ask(exchange, self._deadline(timeout)))

    def multi_inference(
        self,
        examples: Sequence[Features],
        signatures: Sequence[str],
        choice: Choice,
        context: Features | None,
        timeout: Timeout,
    ) -> Plan[Inference]:
        spec = self._spec(choice)
        deadline = self._deadline(timeout)
        known = self._learned.get(_key(spec))
        if known is None or any(name not in known.signatures for name in signatures):
            known = yield from self._learn(spec, deadline)
        tasks = []
        for name in signatures:
            method = choose(known.signatures, name).method_name
            if method not in (CLASSIFY_METHOD, REGRESS_METHOD):
                raise InvalidInputError(
                    f"signature {name!r} is called by {method}: multi_inference takes signatures for "
                    "classify and regress"
                )
            tasks.append((ModelSpec(spec.name, spec.version, spec.label, name), method))
        exchange = self._codec.multi_inference(tasks, examples, context)
        return (yield from self._ask(exchange, deadline))

    def metadata(self, choice: Choice, timeout: Timeout) -> Plan[Signatures]:
        known = yield from self._learn(self._spec(choice), self._deadline(timeout))
        return dict(known.signatures)

    def status(self, choice: Choice, timeout: Timeout) -> Plan[list[VersionStatus]]:
        exchange = self._codec.status(self._spec(choice))
        return (yield from self._ask(exchange, self._deadline(timeout)))

    def wait_until_available(self, choice: Choice, timeout: float | None) -> Plan[None]:
        """Look at the status, ever less often, until it is good. A label is good once it leads to a
        version."""
        spec = self._spec(choice)
        deadline = self._deadline(timeout)
        pause = _FIRST_LOOK
        saw: str | None = None
        cause: TfServingError | None = None
        while True:
            try:
                saw = yield from self._look(spec, deadline)
            except TfServingError as error:
                if not _may_pass(error, spec):
                    raise
                if saw is None or not isinstance(error, DeadlineError):
                    saw, cause = str(error), error
            else:
                cause = None
            if saw is None:
                return
            left = math.inf if deadline is None else deadline - self._clock()
            yield Pause(max(0.0, min(pause, left)))
            if left <= pause:
                raise DeadlineError(
                    f"{self._address}: model {spec.name!r} is not available after {timeout} s; "
                    f"last seen: {saw}",
                    address=self._address,
                    model=spec.name,
                    server_message=cause.server_message if cause else None,
                ) from cause
            pause = min(pause * 1.5, _LONGEST_LOOK)

    def reload_config(self, config: Any, timeout: Timeout) -> Plan[None]:
        exchange = self._codec.reload_config(_config(config))
        yield from self._ask(exchange, self._deadline(timeout))

    def _look(self, spec: ModelSpec, deadline: float | None) -> Plan[str | None]:
        """None when the model can be called; else what stands in its way."""
        now = self._clock()
        until = now + _LOOK_TIMEOUT if deadline is None else min(deadline, now + _LOOK_TIMEOUT)
        versions = yield from self._ask(self._codec.status(spec), until, patient=False)
        if not any(version.state == "AVAILABLE" for version in versions):
            return "; ".join(
                f"version {one.version} {one.state} {one.error_message}".rstrip() for one in versions
            )
        if spec.label is not None:  # status ignores labels
            yield from self._ask(self._codec.metadata(spec), until, patient=False)
        return None

    def _spec(self, choice: Choice) -> ModelSpec:
        model = choice.model or self._model
        if not model:
            raise InvalidInputError(
                "which model? give model= with the call, or model_name to the client", address=self._address
            )
        if choice.version is not None and choice.label is not None:
            raise InvalidInputError(
                f"version={choice.version} and label={choice.label!r}: a call can name one of them, not both"
            )
        return ModelSpec(model, choice.version, choice.label, choice.signature or "")

    def _deadline(self, timeout: Timeout) -> float | None:
        seconds = self._timeout if timeout is UNSET else timeout
        return None if seconds is None else self._clock() + seconds

    def _learn(self, spec: ModelSpec, deadline: float | None) -> Plan[Known]:
        exchange = self._codec.metadata(ModelSpec(spec.name, spec.version, spec.label))
        known = self._learned[_key(spec)] = Known((yield from self._ask(exchange, deadline)))
        return known

    def _learn_again(self, spec: ModelSpec, deadline: float | None) -> Plan[Known | None]:
        """As `_learn`; None when that fails: the error that made it necessary is the one to tell."""
        self._learned.pop(_key(spec), None)
        try:
            return (yield from self._learn(spec, deadline))
        except TfServingError:
            return None

    def _ask(
        self,
        exchange: Exchange[T],
        deadline: float | None,
        body: bytes | None = None,
        outcome: Outcome | None = None,
        *,
        patient: bool = True,
    ) -> Plan[T]:
        """Send, and send again where that may help and the deadline allows.

        Args:
            body: where the exchange has none.
            outcome: of the first attempt, if it was made already.
        """
        failures = 0
        while True:
            if outcome is None:
                outcome = yield from self._attempt(exchange, deadline, body)
            if not isinstance(outcome, TfServingError):
                break
            failures += 1
            pause = self._retry.pause(failures, self._chance())
            late = deadline is not None and self._clock() + pause >= deadline
            if late or failures >= self._retry.attempts or not patient or not worth_retrying(outcome):
                try:
                    raise outcome
                finally:
                    outcome = None  # as above
            yield Pause(pause)
            outcome = None
        try:
            return exchange.decode(outcome)
        except TfServingError as error:
            self._place(error, exchange.model)
            raise

    def _attempt(self, exchange: Exchange[Any], deadline: float | None, body: bytes | None) -> Plan[Outcome]:
        left = None if deadline is None else deadline - self._clock()
        if left is not None and left <= 0:
            raise DeadlineError(
                f"{self._address}: the deadline passed before the call was made; raise timeout=",
                address=self._address,
                model=exchange.model,
            )
        try:
            reply: bytes = yield Send(exchange.path, body or exchange.body, left, exchange.model)
        except TfServingError as error:
            return error
        return reply

    def _place(self, error: TfServingError, model: str | None) -> None:
        """Give address and model to an error that arose without knowing them."""
        if error.address is None:
            error.address, error.model = self._address, model
            about = f", model {model!r}" if model else ""
            error.args = (f"{self._address}{about}: {error}",)


def _chance() -> float:
    from random import random  # not needed but for the second attempt

    return random()


def _key(spec: ModelSpec) -> tuple[str, int | None, str | None]:
    return spec.name, spec.version, spec.label


def _may_be_stale(error: TfServingError) -> bool:
    """Whether a changed signature can be the reason."""
    return error.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "DATA_LOSS")


def _may_pass(error: TfServingError, spec: ModelSpec) -> bool:
    """Whether waiting can help: no server yet, no such model yet, a label that leads nowhere yet."""
    if isinstance(error, (NotFoundError, DeadlineError)) or worth_retrying(error):
        return True
    return spec.label is not None and error.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")


def _config(config: Any) -> Any:
    """A ModelServerConfig message from one, or from protobuf text format.

    Raises:
        ConfigError: the text does not parse; with line and column.
    """
    if isinstance(config, messages.ModelServerConfig):
        return config
    if not isinstance(config, str):
        raise InvalidInputError(
            "reload_config takes the text of a models.config or a ModelServerConfig, "
            f"not {type(config).__name__}"
        )
    from google.protobuf import text_format

    try:
        return text_format.Parse(config, messages.ModelServerConfig())
    except text_format.ParseError as error:
        raise ConfigError(
            f"Error parsing text-format tensorflow.serving.ModelServerConfig: {error}"
        ) from error
