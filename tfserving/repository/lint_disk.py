"""What is wrong with the models on disk that a models.config names."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfserving.errors import RepositoryError
from tfserving.repository import versions
from tfserving.repository.config import Specific
from tfserving.repository.diagnostics import Entry, Problem, either, export_command

# How people name version directories that a server then ignores: v1, V2, 1.0, v1.2.3.
_LIKE_A_VERSION = re.compile(r"[vV]?(?P<number>[0-9]+)(\.[0-9]+)*", re.ASCII)


@dataclass(frozen=True)
class Disk:
    """Where the models of a configuration are looked for.

    Attributes:
        models_dir: what `/models` of a base_path means.
        shipped: names of the example models that quickstart.sh makes, for the mend of a missing one.
    """

    models_dir: Path
    shipped: frozenset[str] = frozenset()


def disk_problems(entry: Entry, disk: Disk) -> Iterator[Problem]:
    """What keeps a model from being served out of its base_path, which is known to be well written."""
    at = entry.at.first("base_path")
    base = versions.resolve(entry.base_path, disk.models_dir)
    if not base.is_dir():
        what = f"{base} is no directory" if os.path.lexists(base) else f"{base} does not exist"
        yield entry.error(at, what, _how_to_make(entry, disk, base))
        return
    try:
        found = versions.find_versions(base)
    except RepositoryError as error:
        yield entry.error(at, str(error), "let this user read it")
        return
    if not found and versions.flaw_of(base) is None:
        yield entry.error(
            at,
            f"{base} is a SavedModel itself, where directories of versions should be",
            "end base_path before the number, or move the files into a directory named 1",
        )
        return
    yield from _child_problems(entry, base)
    if not found:
        yield entry.error(at, f"{base} has no version in it", _how_to_make(entry, disk, base))
        return
    yield from _half_copied(entry, found)
    yield from _missing_versions(entry, found, disk)
    yield from _unserved_labels(entry, found)


def _half_copied(entry: Entry, found: dict[int, Path]) -> Iterator[Problem]:
    at = entry.at.first("base_path")
    served = entry.policy.select(found)
    for version, path in found.items():
        flaw = versions.flaw_of(path)
        mend = f"copy or export it again, or remove {shlex.quote(str(path))}"
        if flaw is not None and version in served:
            yield entry.error(at, f"{path} {flaw}", mend)
        elif flaw is not None:
            yield entry.note(at, f"{path} {flaw}, but is not served", mend)


def _missing_versions(entry: Entry, found: dict[int, Path], disk: Disk) -> Iterator[Problem]:
    if not isinstance(entry.policy, Specific):
        return
    make = export_command(entry.name, disk.models_dir)
    policy = entry.policy_at.first("specific")
    places = policy.all("versions")
    for index, version in enumerate(entry.policy.versions):
        if version not in found:
            yield entry.error(
                places[index] if index < len(places) else policy,
                f"version {version} is not on disk",
                f"list one that is ({either(found)}), or make it: {make} --version {version}",
            )


def _unserved_labels(entry: Entry, found: dict[int, Path]) -> Iterator[Problem]:
    if isinstance(entry.policy, Specific):
        return  # its list has been compared with the labels, and with the disk
    served = entry.policy.select(found)
    for label, version, at in entry.labels_in_force():
        what = f"label {label!r} stands for version {version}, which is not"
        if version not in found:
            yield entry.error(at, f"{what} on disk", f"point it to {either(served)}")
        elif version not in served:
            yield entry.error(
                at,
                f"{what} among the newest that the policy serves",
                f"point it to {either(served)}, or serve it: model_version_policy {{ all {{}} }}",
            )


def _child_problems(entry: Entry, base: Path) -> Iterator[Problem]:
    """Children that a server passes over, or takes for something else than their maker did."""
    at = entry.at.first("base_path")
    by_version: dict[int, list[Path]] = {}
    for path in sorted(base.iterdir()):
        version = versions.parse_version(path.name)
        if version is None:
            if path.is_dir() and _meant_as_version(path):
                what = f"{path} is ignored: its name is no integer of 64 bits"
                yield entry.note(at, what, _rename(path, _free_number(path)))
        elif path.is_dir():
            by_version.setdefault(version, []).append(path)
        else:
            what = f"{path} is no directory, and the real server tries to load it as version {version}"
            yield entry.error(at, what, "remove or rename it")
    for version, paths in by_version.items():
        if len(paths) > 1:
            which = " and ".join(map(str, paths))
            yield entry.error(at, f"{which} are both version {version}", "give each its own number")
        elif version < 0:
            what = f"version {version} cannot be asked for over REST"
            yield entry.note(at, what, _rename(paths[0], versions.next_version(base)))
        elif paths[0].name != str(version):
            yield entry.note(at, f"{paths[0]} is served as version {version}", _rename(paths[0], version))


def _meant_as_version(path: Path) -> bool:
    if path.name.startswith("."):
        return False  # an export under way
    return bool(_LIKE_A_VERSION.fullmatch(path.name)) or versions.flaw_of(path) is None


def _free_number(path: Path) -> int:
    match = _LIKE_A_VERSION.fullmatch(path.name)
    number = int(match["number"]) if match else versions.MAX_VERSION + 1
    if number <= versions.MAX_VERSION and not os.path.lexists(path.parent / str(number)):
        return number
    return versions.next_version(path.parent)


def _rename(path: Path, number: int) -> str:
    return f"rename it: mv {shlex.quote(str(path))} {shlex.quote(str(path.parent / str(number)))}"


def _how_to_make(entry: Entry, disk: Disk, base: Path) -> str:
    export = export_command(entry.name, disk.models_dir)
    if entry.name in disk.shipped:
        return f"bash quickstart.sh makes the example models; one of your own is made by {export}"
    if base.name != entry.name:
        return f"mend base_path or put a model there; {export} makes {versions.MODELS_ROOT}/{entry.name}"
    return f"make it: {export}"
