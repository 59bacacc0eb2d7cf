"""What has been learned of the models' signatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import DEFAULT_SIGNATURE, Signature

# Model, version and label, as the caller chose them.
_Key = tuple[str, "int | None", "str | None"]

# Versions remembered, of all models together: a client may live through any number of updates.
_VERSIONS = 256


@dataclass(frozen=True)
class Known:
    """The signatures of a model, and the version that they were learned from (None where it is not told)."""

    version: int | None
    signatures: Mapping[str, Signature]

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


class SignatureCache:
    """By the caller's choice of model and version.

    "The newest version" and labels move. A reply tells which version gave it; when that is another than the
    one learned from, what is known of that other version takes its place, or nothing. (Two servers in the
    middle of a hot update answer with two versions in turn: neither is asked for its signature every other
    call.)

    Plain dict operations, each atomic: threads may learn the same twice, which does no harm.
    """

    def __init__(self) -> None:
        self._by_choice: dict[_Key, Known] = {}
        self._by_version: dict[tuple[str, int], Known] = {}

    def get(self, spec: ModelSpec) -> Known | None:
        return self._by_choice.get((spec.name, spec.version, spec.label))

    def learn(self, spec: ModelSpec, version: int | None, signatures: Mapping[str, Signature]) -> Known:
        known = Known(version, signatures)
        self._by_choice[spec.name, spec.version, spec.label] = known
        if version is not None:
            if len(self._by_version) >= _VERSIONS:
                self._by_version.clear()
            self._by_version[spec.name, version] = known
        return known

    def seen(self, spec: ModelSpec, known: Known, version: int | None) -> None:
        """A call by `known` was answered by this version."""
        if version is None or version == known.version:
            return
        other = self._by_version.get((spec.name, version))
        if other is None:
            self.forget(spec)
        else:
            self._by_choice[spec.name, spec.version, spec.label] = other

    def forget(self, spec: ModelSpec) -> None:
        self._by_choice.pop((spec.name, spec.version, spec.label), None)
