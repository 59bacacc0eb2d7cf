"""What differs between the gRPC and the REST client: how requests are written and responses read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tfserving.client.features import Features
from tfserving.client.flow import Request
from tfserving.client.signature_cache import PreparedPredict
from tfserving.client.types import Classification, VersionStatus
from tfserving.wire.dtypes import Array
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import Signature

Inference = Mapping[str, "list[list[Classification]] | Array"]


class Codec(Protocol):
    """One method for each call."""

    def prepare_predict(
        self, spec: ModelSpec, signature: Signature, outputs: Sequence[str]
    ) -> PreparedPredict:
        """What makes the requests of many calls from their inputs.

        It raises InvalidInputError for inputs that do not fit the signature (see `inputs.arrays_for`), and
        UnsupportedError for inputs that the transport cannot represent.
        """
        ...

    def classify(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Request[list[list[Classification]]]: ...

    def regress(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Request[Array]: ...

    def multi_inference(
        self, tasks: Sequence[tuple[ModelSpec, str]], examples: Sequence[Features], context: Features | None
    ) -> Request[Inference]: ...

    def metadata(self, spec: ModelSpec) -> Request[dict[str, Signature]]: ...

    def status(self, spec: ModelSpec) -> Request[list[VersionStatus]]: ...

    def reload_config(self, config: Any) -> Request[None]: ...
