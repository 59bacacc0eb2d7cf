"""What the gRPC and the REST client differ in: how a question is written and its answer read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tfserving.client.features import Features
from tfserving.client.flow import Exchange
from tfserving.client.types import Classification, VersionStatus
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import Arrays
from tfserving.wire.signatures import Signature

Inference = Mapping[str, "list[list[Classification]] | np.ndarray[Any, Any]"]


class Codec(Protocol):
    """One method a call."""

    def predictor(
        self, spec: ModelSpec, signature: Signature, outputs: Sequence[str]
    ) -> tuple[Exchange[Arrays], Callable[[Any], bytes]]:
        """What many calls share, without a body, and what makes their bodies of a caller's inputs.

        The latter raises InvalidInputError where they do not fit the signature (see `inputs.arrays_for`), and
        UnsupportedError where the transport has no form for them.
        """
        ...

    def classify(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Exchange[list[list[Classification]]]: ...

    def regress(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Exchange[np.ndarray[Any, Any]]: ...

    def multi_inference(
        self,
        tasks: Sequence[tuple[ModelSpec, str]],
        examples: Sequence[Features],
        context: Features | None,
    ) -> Exchange[Inference]: ...

    def metadata(self, spec: ModelSpec) -> Exchange[dict[str, Signature]]: ...

    def status(self, spec: ModelSpec) -> Exchange[list[VersionStatus]]: ...

    def reload_config(self, config: Any) -> Exchange[None]: ...
