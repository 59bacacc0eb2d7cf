"""The diagnostics of lint, and the model entries that they are about.

An error prevents a server from starting, or a model or label from being served. A note reports what a server
silently ignores or accepts.
"""

from __future__ import annotations

import enum
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfserving.repository.config import VersionPolicy, policy_of
from tfserving.repository.config_text import find_entries
from tfserving.repository.model_names import name_or_placeholder, quote
from tfserving.repository.text_positions import Field

_MAX_LISTED = 8


class Severity(enum.Enum):
    """How serious a diagnostic is."""

    ERROR = "error"
    NOTE = "note"


@dataclass(frozen=True)
class Diagnostic:
    """An error or a note: what is wrong, on which line (counted from 1), and how to fix it."""

    severity: Severity
    line: int
    message: str
    hint: str

    def format(self, origin: str) -> str:
        """`FILE:LINE: error: message; hint`."""
        return f"{origin}:{self.line}: {self.severity.value}: {self.message}; {self.hint}"


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Whether one of the diagnostics is an error."""
    return any(diagnostic.severity is Severity.ERROR for diagnostic in diagnostics)


@dataclass(frozen=True)
class Entry:
    """One model of a configuration: its ModelConfig message, and where it is written."""

    message: Any
    at: Field
    policy: VersionPolicy
    json: bool

    @property
    def name(self) -> str:
        return str(self.message.name)

    @property
    def base_path(self) -> str:
        return str(self.message.base_path)

    @property
    def policy_at(self) -> Field:
        return self.at.first("model_version_policy")

    def labels(self) -> list[tuple[str, Field]]:
        """(label, position) as written, with repeated labels, of which the message has only the last."""
        written = self.at.all("version_labels")
        if self.json:
            return [(member.name, member) for members in written for member in members.fields]
        return [(member.first("key").value or "", member) for member in written]

    def effective_labels(self) -> list[tuple[str, int, Field]]:
        """(label, version, position) as a server uses them: of a repeated label, the last one."""
        positions = dict(self.labels())
        labels = sorted(self.message.version_labels.items())
        return [(label, version, positions.get(label, self.at)) for label, version in labels]

    def error(self, at: Field, message: str, hint: str) -> Diagnostic:
        """An error at `at`; `message` is the end of a sentence that begins with the model."""
        return Diagnostic(Severity.ERROR, at.line, f"{self._subject} {message}", hint)

    def note(self, at: Field, message: str, hint: str) -> Diagnostic:
        """A note at `at`; see `error`."""
        return Diagnostic(Severity.NOTE, at.line, f"{self._subject} {message}", hint)

    @property
    def _subject(self) -> str:
        return f"model {quote(self.name)}" if self.name else "a model without a name"


def read_entries(message: Any, root: Field, *, json: bool) -> list[Entry]:
    """The models of a ModelServerConfig message, with their positions in the text that is read as `root`."""
    configs = message.model_config_list.config
    fields = find_entries(root)
    if len(fields) != len(configs):  # written in a way that `text_positions` does not know
        fields = (root,) * len(configs)
    return [Entry(config, at, policy_of(config), json) for config, at in zip(configs, fields, strict=True)]


def list_numbers(numbers: Iterable[int]) -> str:
    """The numbers in ascending order for a message; only the largest of many."""
    listed = sorted(set(numbers))
    shown = ", ".join(map(str, listed[-_MAX_LISTED:]))
    return shown if len(listed) <= _MAX_LISTED else f"…, {shown}"


def export_command(name: str, models_dir: Path) -> str:
    """The command that exports a model into `models_dir`."""
    is_default = os.path.abspath(models_dir) == os.path.abspath("models")
    option = "" if is_default else f" --models-dir {shlex.quote(str(models_dir))}"
    return f"tfserving export SOURCE --name {name_or_placeholder(name)}{option}"
