"""Finds the versions to serve in the file system."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from tfserving.errors import RepositoryError
from tfserving.repository import versions
from tfserving.repository.config import ModelConfig
from tfserving.wire.graph_files import GRAPH_FILES

log = logging.getLogger(__name__)

# A directory that has not changed for this long when it is first seen is complete; a newer one must stay the
# same from one poll to the next.
SETTLED_SECONDS = 2.0

_Fingerprint = tuple[tuple[str, int, int], ...]


class FileSystemSource:
    """Finds versions under the base paths of models.

    A version that is still being written is ignored: it has no saved_model.pb yet, or a file in it has
    changed between two polls. tensorflow_model_server loads whatever it finds.

    Args:
        models_dir: the directory that `/models` in base paths stands for; None uses base paths unchanged.
        clock: seconds since the epoch; compared with file times.
        settle: whether to wait until a version is complete; False if no second poll follows.
    """

    def __init__(
        self, models_dir: Path | None = None, clock: Callable[[], float] = time.time, *, settle: bool = True
    ) -> None:
        self._models_dir = models_dir
        self._clock = clock
        self._settle = settle
        self._settled: dict[Path, _Fingerprint] = {}
        self._seen: dict[Path, _Fingerprint] = {}
        self._logged: dict[str, str] = {}

    def poll(self, model: ModelConfig, failed: Collection[Path] = frozenset()) -> Mapping[int, Path] | None:
        """Selects the versions that the model's version policy serves.

        Args:
            failed: directories that could not be loaded. One whose files have changed since was incomplete,
                and is ignored until it is complete.

        Returns:
            The directory of each version; None if the base path cannot be read, in which case the served
            versions are to stay.
        """
        for path in failed:
            if path in self._settled and self._settled[path] != _fingerprint(path):
                del self._settled[path]
                self._seen[path] = ()
        try:
            base_path = versions.resolve(model.base_path, self._models_dir)
            found = versions.find_versions(base_path)
        except RepositoryError as error:
            self._log_once(model.name, f"model {model.name!r}: cannot list the versions: {error}")
            return None
        selected = self._select(model, dict(found))
        if not found:
            self._log_once(model.name, f"model {model.name!r}: no version in {base_path}")
        elif not selected:
            names = ", ".join(map(str, found))
            self._log_once(
                model.name,
                f"model {model.name!r}: none of the versions {names} is complete and selected by the version "
                "policy",
            )
        else:
            self._logged.pop(model.name, None)
        for path in {*self._settled, *self._seen} - set(found.values()):
            if path.parent == base_path:
                self._settled.pop(path, None)
                self._seen.pop(path, None)
        return selected

    def _select(self, model: ModelConfig, found: dict[int, Path]) -> Mapping[int, Path]:
        """What the version policy selects among the complete versions; reads only those it may select."""
        while True:
            selected = {version: found[version] for version in model.policy.select(found)}
            unsettled = [version for version, path in selected.items() if not self._is_settled(path)]
            if not unsettled:
                return selected
            for version in unsettled:
                del found[version]

    def _is_settled(self, path: Path) -> bool:
        if path in self._settled:
            return True
        fingerprint = _fingerprint(path)
        complete = any(os.path.basename(name) in GRAPH_FILES for name, _, _ in fingerprint)
        newest = max((changed for _, _, changed in fingerprint), default=0) / 1e9
        before = self._seen.get(path)
        unchanged = self._clock() - newest >= SETTLED_SECONDS if before is None else before == fingerprint
        self._seen[path] = fingerprint
        if not complete or (self._settle and not unchanged):
            return False
        del self._seen[path]
        self._settled[path] = fingerprint
        return True

    def _log_once(self, model: str, text: str) -> None:
        """Logs a warning unless it is the same as at the last poll."""
        if self._logged.get(model) != text:
            self._logged[model] = text
            log.warning(text)


def _fingerprint(path: Path) -> _Fingerprint:
    """Name, size in bytes and modification time in ns of a directory and everything in it.

    Empty if a file disappears meanwhile: the directory is being changed.
    """
    entries = []
    for folder, _, files in os.walk(path):
        for name in ("", *files):
            entry = os.path.join(folder, name)
            try:
                status = os.stat(entry)
            except OSError:
                return ()
            entries.append((entry, status.st_size if name else 0, status.st_mtime_ns))
    return tuple(sorted(entries))
