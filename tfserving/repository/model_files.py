"""The files of a SavedModel: all regular files in its directory that are not hidden.

`lib/repository.sh` has the same rule for images.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tfserving.errors import RepositoryError


def copy_model_files(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> list[str]:
    """Copy the files of the SavedModel `source` into the directory `target`.

    Links are copied as the files that they point to, which have to be in `source`: a link such as
    `assets/vocab.txt -> ~/.ssh/id_rsa` would publish a file that is not part of the model.

    Args:
        source: an existing directory.
        target: an existing, empty directory.

    Returns:
        The hidden files and directories that are not copied, such as `.git` and `.env`, relative to `source`.

    Raises:
        RepositoryError: a link is broken or leaves `source`, a file is neither a regular file nor a
            directory, or a file cannot be copied.
    """
    hidden: list[str] = []
    root = Path(source).resolve()
    try:
        _copy(root, Path(target), root, hidden)
    except OSError as error:
        name = error.filename or os.fspath(source)
        raise RepositoryError(f"cannot copy {name} to {os.fspath(target)}: {error.strerror}") from error
    return hidden


def _copy(directory: Path, target: Path, root: Path, hidden: list[str]) -> None:
    """Copy a directory of `root`; its path has no links."""
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            hidden.append(str(path.relative_to(root)))
            continue
        real = _resolve(path, root) if path.is_symlink() else path
        if real.is_dir():
            if directory.is_relative_to(real):
                raise RepositoryError(f"{path} is a link to a directory that contains it; remove the link")
            (target / path.name).mkdir()
            _copy(real, target / path.name, root, hidden)
        elif real.is_file():
            shutil.copy2(real, target / path.name)
        else:
            raise RepositoryError(f"{path} is not a regular file or a directory; remove it")


def _resolve(link: Path, root: Path) -> Path:
    try:
        real = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop, before Python 3.13
        raise RepositoryError(f"{link} is a broken link to {os.readlink(link)}; remove it") from error
    if not real.is_relative_to(root):
        raise RepositoryError(
            f"{link} is a link to {real}, which is not in {root}; copy the file there if the model needs it"
        )
    if any(part.startswith(".") for part in real.relative_to(root).parts):
        raise RepositoryError(f"{link} is a link to {real}, a hidden file, which is not copied; rename it")
    return real
