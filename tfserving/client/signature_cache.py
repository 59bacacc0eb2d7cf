"""The signatures of a model, cached together with the requests prepared from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfserving.client.flow import Request
from tfserving.client.inputs import check_outputs, choose_signature
from tfserving.wire.dtypes import Arrays
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import DEFAULT_SIGNATURE, Signature

if TYPE_CHECKING:
    from tfserving.client.client_base import Codec

Signatures = dict[str, Signature]
# From a caller's inputs to a Predict request.
PreparedPredict = Callable[[Any], Request[Arrays]]


class CachedSignatures:
    """The signatures of a model as they were when they were fetched.

    Threads may share it: dict operations are atomic, and preparing the same request twice does no harm.
    """

    def __init__(self, signatures: Signatures) -> None:
        self.signatures = signatures
        self._prepared: dict[tuple[str, tuple[str, ...]], PreparedPredict] = {}

    def prepare(self, spec: ModelSpec, outputs: tuple[str, ...], codec: Codec) -> PreparedPredict:
        """What makes Predict requests for a signature and some outputs, () for all.

        Raises:
            NotFoundError: the model has no such signature.
            InvalidInputError: the signature has no such output.
        """
        found = self._prepared.get((spec.signature, outputs))
        if found is None:
            signature = choose_signature(self.signatures, spec.signature)
            check_outputs(signature, outputs)
            found = self._prepared[spec.signature, outputs] = codec.prepare_predict(spec, signature, outputs)
        return found

    def is_same(self, other: CachedSignatures, signature: str) -> bool:
        """Whether requests to this signature are the same by both."""
        name = signature or DEFAULT_SIGNATURE
        one, two = self.signatures.get(name), other.signatures.get(name)
        if one is None or two is None:
            return one is two
        return (one.inputs, one.outputs, one.defaults.keys()) == (
            two.inputs,
            two.outputs,
            two.defaults.keys(),
        )
