"""Writes configurations of a server as a models.config."""

from __future__ import annotations

from typing import Any

from tfserving.repository.config import PLATFORM, All, Latest, ServerConfig, Specific
from tfserving.repository.config_text import format_message
from tfserving.wire import messages


def to_message(config: ServerConfig) -> Any:
    """The ModelServerConfig message of a configuration."""
    message = messages.ModelServerConfig()
    message.model_config_list.SetInParent()
    for model in config.models:
        entry = message.model_config_list.config.add(
            name=model.name, base_path=model.base_path, model_platform=PLATFORM
        )
        entry.version_labels.update(model.labels)
        policy = entry.model_version_policy
        if isinstance(model.policy, All):
            policy.all.SetInParent()
        elif isinstance(model.policy, Specific):
            policy.specific.SetInParent()
            policy.specific.versions.extend(model.policy.versions)
        elif model.policy != Latest():
            policy.latest.num_versions = model.policy.num_versions
    return message


def to_text(config: ServerConfig) -> str:
    """The configuration in text format."""
    return format_message(to_message(config))
