"""Which versions should be served, read from the file system."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from tfserving.errors import RepositoryError
from tfserving.repository import versions
from tfserving.repository.config import ModelConfig

log = logging.getLogger(__name__)

# What has not changed for this long when it is first seen is complete; younger directories must stay the same
# from one poll to the next.
SETTLED_SECONDS = 2.0

_GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")

_Fingerprint = tuple[tuple[str, int, int], ...]


class FileSystemSource:
    """Looks for versions under the base paths of models.

    A version that is still being written is left alone: it has no saved_model.pb yet, or a file under it
    changed between two polls. The real server loads whatever it sees.

    Args:
        models_dir: where `/models` lies, None where base paths are meant as they stand.
        clock: seconds since the epoch; file times are compared with it.
        settle: False where no second look follows: whatever has its graph is then taken as it is.
    """

    def __init__(
        self,
        models_dir: Path | None = None,
        clock: Callable[[], float] = time.time,
        *,
        settle: bool = True,
    ) -> None:
        self._models_dir = models_dir
        self._clock = clock
        self._settle = settle
        self._settled: dict[Path, _Fingerprint] = {}
        self._seen: dict[Path, _Fingerprint] = {}
        self._said: dict[str, str] = {}

    def poll(self, model: ModelConfig, failed: Collection[Path] = frozenset()) -> Mapping[int, Path] | None:
        """The versions that the model's policy serves, with their directories.

        None when the base path cannot be read: what is served shall then stay served. Of the directories in
        `failed`, which could not be loaded, those whose files have changed are left out until they settle
        again: they had not been written to their end.
        """
        for path in failed:
            if path in self._settled and self._settled[path] != _fingerprint(path):
                del self._settled[path]
                self._seen[path] = ()
        try:
            base_path = versions.resolve(model.base_path, self._models_dir)
            there = versions.find_versions(base_path)
        except RepositoryError as error:
            self._say(model.name, f"{model.name}: cannot look for versions: {error}")
            return None
        chosen = self._choose(model, dict(there))
        if not there:
            self._say(model.name, f"{model.name}: no version under {base_path}")
        elif not chosen:
            names = ", ".join(map(str, there))
            self._say(
                model.name,
                f"{model.name}: of versions {names} none is named by its policy and complete so far",
            )
        else:
            self._said.pop(model.name, None)
        self._forget(
            {path for path in (*self._settled, *self._seen) if path.parent == base_path} - set(there.values())
        )
        return chosen

    def _choose(self, model: ModelConfig, there: dict[int, Path]) -> Mapping[int, Path]:
        """What the policy selects of the complete versions; only those that it may select are looked at."""
        while True:
            chosen = {version: there[version] for version in model.policy.select(there)}
            unsettled = [version for version, path in chosen.items() if not self._is_settled(path)]
            if not unsettled:
                return chosen
            for version in unsettled:
                del there[version]

    def _is_settled(self, path: Path) -> bool:
        if path in self._settled:
            return True
        fingerprint = _fingerprint(path)
        complete = any(os.path.basename(name) in _GRAPH_FILES for name, _, _ in fingerprint)
        newest = max((changed for _, _, changed in fingerprint), default=0) / 1e9
        before = self._seen.get(path)
        unchanged = self._clock() - newest >= SETTLED_SECONDS if before is None else before == fingerprint
        self._seen[path] = fingerprint
        if not complete or (self._settle and not unchanged):
            return False
        del self._seen[path]
        self._settled[path] = fingerprint
        return True

    def _forget(self, gone: set[Path]) -> None:
        for path in gone:
            self._settled.pop(path, None)
            self._seen.pop(path, None)

    def _say(self, model: str, text: str) -> None:
        """Logs a thing once, not at every poll."""
        if self._said.get(model) != text:
            self._said[model] = text
            log.warning(text)


def _fingerprint(path: Path) -> _Fingerprint:
    """Name, size in bytes and change time in ns of everything under a directory, itself included.

    Nothing if a file went away meanwhile: then somebody is at work there.
    """
    found = []
    for folder, _, files in os.walk(path):
        for name in ("", *files):
            entry = os.path.join(folder, name)
            try:
                status = os.stat(entry)
            except OSError:
                return ()
            found.append((entry, status.st_size if name else 0, status.st_mtime_ns))
    return tuple(sorted(found))
