"""The model spec of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfserving.wire import messages


@dataclass(frozen=True)
class ModelSpec:
    """Model name, and either a version, a version label or neither (the newest version that is served).

    `signature` "" is the server's default, `serving_default`. In a response, `version` is the version that
    was used.
    """

    name: str
    version: int | None = None
    label: str | None = None
    signature: str = ""

    def to_message(self) -> Any:
        """This as a `tensorflow.serving.ModelSpec`."""
        message = messages.ModelSpec(name=self.name, signature_name=self.signature)
        if self.label is not None:
            message.version_label = self.label
        elif self.version is not None:
            message.version.value = self.version
            message.version.SetInParent()
        return message

    @classmethod
    def from_message(cls, message: Any) -> ModelSpec:
        """From a `tensorflow.serving.ModelSpec`; an empty label is a label, as in tensorflow_model_server."""
        choice = message.WhichOneof("version_choice")
        return cls(
            message.name,
            message.version.value if choice == "version" else None,
            message.version_label if choice == "version_label" else None,
            message.signature_name,
        )
