"""Errors in the versions on disk of a model that a models.config lists."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tfserving.errors import RepositoryError
from tfserving.repository import versions
from tfserving.repository.completeness import find_notes, find_version_error
from tfserving.repository.config import Specific
from tfserving.repository.diagnostics import Diagnostic, Entry, export_command, list_numbers
from tfserving.repository.model_names import quote

# Usual names of version directories that servers ignore: v1, V2, 1.0, v1.2.3.
_LIKE_A_VERSION = re.compile(r"[vV]?(?P<number>[0-9]+)(\.[0-9]+)*", re.ASCII)


def lint_versions(entry: Entry, models_dir: Path) -> Iterator[Diagnostic]:
    """What prevents a server from serving the versions in a base_path, which is a valid one."""
    at = entry.at.first("base_path")
    base = versions.resolve(entry.base_path, models_dir)
    export = export_command(entry.name, models_dir)
    hint = f"export it: {export}"
    if base.name != entry.name:
        hint = f"fix base_path, or export the model to {versions.MODELS_ROOT}/{entry.name}: {export}"
    if not base.is_dir():
        what = "is not a directory" if os.path.lexists(base) else "does not exist"
        yield entry.error(at, f"has base_path {base}, which {what}", hint)
        return
    try:
        found = versions.find_versions(base)
    except RepositoryError as error:
        yield entry.error(at, f"has an unreadable base_path: {error}", "give this user read access")
        return
    if not found and find_version_error(base) is None:
        yield entry.error(
            at,
            f"has base_path {base}, which is a SavedModel, not a directory of versions",
            "remove the version from base_path, or move the files into a directory named 1",
        )
        return
    yield from _lint_children(entry, base)
    if not found:
        yield entry.error(at, f"has no version in {base}", hint)
        return
    yield from _lint_completeness(entry, found)
    if isinstance(entry.policy, Specific):
        # lint checks its labels against its list, and the list is checked here
        yield from _lint_listed_versions(entry, entry.policy, found, export)
    else:
        yield from _lint_labels_on_disk(entry, found)


def _lint_completeness(entry: Entry, found: dict[int, Path]) -> Iterator[Diagnostic]:
    at = entry.at.first("base_path")
    served = entry.policy.select(found)
    for version, path in found.items():
        error = find_version_error(path)
        hint = f"copy or export it again, or remove {shlex.quote(str(path))}"
        if error is not None and version in served:
            yield entry.error(at, f"has an incomplete version: {path} {error}", hint)
        elif error is not None:
            yield entry.note(at, f"has an incomplete version, which is not served: {path} {error}", hint)
        elif version in served:
            for message, advice in find_notes(path):
                yield entry.note(at, f"has a version whose model {message}: {path}", advice)


def _lint_listed_versions(
    entry: Entry, policy: Specific, found: dict[int, Path], export: str
) -> Iterator[Diagnostic]:
    policy_at = entry.policy_at.first("specific")
    positions = policy_at.all("versions")
    for index, version in enumerate(policy.versions):
        if version not in found:
            yield entry.error(
                positions[index] if index < len(positions) else policy_at,
                f"has no version {version} on disk (found {list_numbers(found)})",
                f"remove it from the policy or export it: {export} --version {version}",
            )


def _lint_labels_on_disk(entry: Entry, found: dict[int, Path]) -> Iterator[Diagnostic]:
    served = entry.policy.select(found)
    for label, version, at in entry.effective_labels():
        what = f"has label {quote(label)} for version {version}, which is not"
        hint = f"assign it to another version ({list_numbers(served)})"
        if version not in found:
            yield entry.error(at, f"{what} on disk", hint)
        elif version not in served:
            yield entry.error(
                at,
                f"{what} among the newest that the policy serves",
                f"{hint}, or serve it: model_version_policy {{ all {{}} }}",
            )


def _lint_children(entry: Entry, base: Path) -> Iterator[Diagnostic]:
    """Names in a base_path that servers ignore, or read otherwise than they look."""
    at = entry.at.first("base_path")
    by_version: dict[int, list[Path]] = {}
    for path in sorted(base.iterdir()):
        version = versions.parse_version(path.name)
        if version is None:
            if path.is_dir() and _looks_like_version(path):
                message = f"has {path}, which servers ignore: the name is not a 64-bit integer"
                yield entry.note(at, message, _rename_hint(path, _unused_number(path)))
        elif path.is_dir():
            by_version.setdefault(version, []).append(path)
        else:
            message = f"has {path}, which is not a directory; tensorflow_model_server loads it as a version"
            yield entry.error(at, message, "remove or rename it")
    for version, paths in by_version.items():
        if len(paths) > 1:
            names = " and ".join(map(str, paths))
            yield entry.error(at, f"has {names}, both version {version}", "give each its own number")
        elif version < 0:
            message = f"has version {version}, which REST requests cannot name"
            yield entry.note(at, message, _rename_hint(paths[0], versions.next_version(base)))
        elif paths[0].name != str(version):
            yield entry.note(
                at, f"has {paths[0]}, served as version {version}", _rename_hint(paths[0], version)
            )


def _looks_like_version(path: Path) -> bool:
    if path.name.startswith("."):
        return False  # an unfinished export
    return bool(_LIKE_A_VERSION.fullmatch(path.name)) or find_version_error(path) is None


def _unused_number(path: Path) -> int:
    match = _LIKE_A_VERSION.fullmatch(path.name)
    number = int(match["number"]) if match else versions.MAX_VERSION + 1
    if number <= versions.MAX_VERSION and not os.path.lexists(path.parent / str(number)):
        return number
    return versions.next_version(path.parent)


def _rename_hint(path: Path, number: int) -> str:
    return f"rename it: mv {shlex.quote(str(path))} {shlex.quote(str(path.parent / str(number)))}"
