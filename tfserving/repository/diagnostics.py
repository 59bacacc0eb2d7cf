"""The findings of lint, and the models that they are about.

An error keeps a server from starting, or a model or label from being served. A note tells what a server will
pass over in silence.
"""

from __future__ import annotations

import enum
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tfserving.repository.config import VersionPolicy, entries_of, policy_of
from tfserving.repository.model_names import is_name
from tfserving.repository.text_positions import Field


class Kind(enum.Enum):
    """How bad a problem is."""

    ERROR = "error"
    NOTE = "note"


@dataclass(frozen=True)
class Problem:
    """One finding: what is wrong, on which line (counted from 1), and what to do about it."""

    kind: Kind
    line: int
    message: str
    mend: str

    def render(self, origin: str) -> str:
        """`FILE:LINE: error: what is wrong: what to do`."""
        return f"{origin}:{self.line}: {self.kind.value}: {self.message}: {self.mend}"


def errors_of(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems that are no mere notes."""
    return tuple(problem for problem in problems if problem.kind is Kind.ERROR)


@dataclass(frozen=True)
class Entry:
    """One model of a configuration: its ModelConfig message as parsed, and the place where it is written."""

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
        """(label, place) as written: repeated ones too, of which the message has only the last."""
        written = self.at.all("version_labels")
        if self.json:
            return [(member.name, member) for members in written for member in members.fields]
        return [(member.first("key").value or "", member) for member in written]

    def labels_in_force(self) -> list[tuple[str, int, Field]]:
        """(label, version, place) of those that a server takes up: of a repeated label the last."""
        places = dict(self.labels())
        labels = sorted(self.message.version_labels.items())
        return [(label, version, places.get(label, self.at)) for label, version in labels]

    def error(self, at: Field, message: str, mend: str) -> Problem:
        """An error that stands at `at`; its text begins with the model's name."""
        return Problem(Kind.ERROR, at.line, f"{self._who}: {message}", mend)

    def note(self, at: Field, message: str, mend: str) -> Problem:
        """A note that stands at `at`; its text begins with the model's name."""
        return Problem(Kind.NOTE, at.line, f"{self._who}: {message}", mend)

    @property
    def _who(self) -> str:
        return f"model {self.name!r}" if self.name else "a model without a name"


def entries(message: Any, root: Field, *, json: bool) -> list[Entry]:
    """The models of a ModelServerConfig message, with their places in the text that `root` was read from."""
    configs = message.model_config_list.config
    places = entries_of(root)
    if len(places) != len(configs):  # written in a way that the position reader does not know
        places = (root,) * len(configs)
    return [Entry(config, at, policy_of(config), json) for config, at in zip(configs, places, strict=True)]


def either(numbers: Iterable[int]) -> str:
    """The numbers, ascending, for a sentence; of many only the largest."""
    listed = sorted(set(numbers))
    shown = ", ".join(map(str, listed[-8:]))
    return shown if len(listed) <= 8 else f"…, {shown}"


def export_command(name: str, models_dir: str | os.PathLike[str]) -> str:
    """The command that makes a model, for the mend of a missing one."""
    where = os.fspath(models_dir)
    default = os.path.abspath(where) == os.path.abspath("models")
    option = "" if default else f" --models-dir {shlex.quote(where)}"
    return f"python export_saved_model.py SOURCE --name {name if is_name(name) else 'NAME'}{option}"
