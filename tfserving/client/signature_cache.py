"""What is known of a model: its signatures, and the calls prepared by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfserving.client.flow import Exchange
from tfserving.client.inputs import check_outputs, choose
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import Arrays
from tfserving.wire.signatures import DEFAULT_SIGNATURE, Signature

Signatures = dict[str, Signature]
# A call without its body, and the body from a caller's inputs.
Predictor = tuple[Exchange[Arrays], Callable[[Any], bytes]]


class Known:
    """The signatures of a model, as they were when they were learned.

    Plain dict operations, each atomic: threads may prepare the same twice, which does no harm.
    """

    def __init__(self, signatures: Signatures) -> None:
        self.signatures = signatures
        self._prepared: dict[tuple[str, tuple[str, ...]], Predictor] = {}

    def prepared(self, signature: str, outputs: tuple[str, ...]) -> Predictor | None:
        """What `prepare` made of these before."""
        return self._prepared.get((signature, outputs))

    def prepare(
        self,
        spec: ModelSpec,
        outputs: tuple[str, ...],
        predictor: Callable[[ModelSpec, Signature, tuple[str, ...]], Predictor],
    ) -> Predictor:
        """The call of a signature for some outputs, () for all.

        Raises:
            NotFoundError: the model has no such signature.
            InvalidInputError: the signature has no such output.
        """
        found = self.prepared(spec.signature, outputs)
        if found is None:
            signature = choose(self.signatures, spec.signature)
            check_outputs(signature, outputs)
            found = self._prepared[spec.signature, outputs] = predictor(spec, signature, outputs)
        return found

    def same_as(self, other: Known, signature: str) -> bool:
        """Whether calls of this signature look the same by both."""
        name = signature or DEFAULT_SIGNATURE
        one, two = self.signatures.get(name), other.signatures.get(name)
        if one is None or two is None:
            return one is two
        return (one.inputs, one.outputs, one.defaults.keys()) == (
            two.inputs,
            two.outputs,
            two.defaults.keys(),
        )
