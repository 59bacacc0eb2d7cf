"""Reads and replaces the files that Envoy watches."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from tfserving.errors import ConfigError, FailedPreconditionError


def read_resource(path: Path, kind: str) -> dict[str, Any]:
    """Return the only resource of a discovery response in JSON.

    Args:
        path: the file.
        kind: the last part of the resource's type, such as "RouteConfiguration".

    Raises:
        ConfigError: the file is not readable, not JSON, or does not contain exactly one such resource.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; pass the directory of the gateway with --gateway-dir"
        ) from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {error.msg}; restore the file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; restore the file") from error
    match content:
        case {"resources": [{"@type": str(type_url)}]} if type_url.endswith(f".{kind}"):
            resource: dict[str, Any] = content["resources"][0]
            return resource
    raise ConfigError(f"{path} does not contain one {kind} in a list `resources`; restore the file")


def write_resource(path: Path, resource: dict[str, Any]) -> None:
    """Replace the file of a discovery response by one with this resource.

    Raises:
        FailedPreconditionError: the directory is not writable.
    """
    replace_json(path, {"resources": [resource]}, like=path)


def replace_json(path: Path, content: dict[str, Any], *, like: Path) -> None:
    """Replace or create the file with one rename, the only change of a file that Envoy notices.

    Args:
        path: the file.
        content: what it contains afterwards.
        like: the file whose permissions and, where that is allowed, owner the new file gets.

    Raises:
        FailedPreconditionError: the directory is not writable.
    """
    text = json.dumps(content, indent=2) + "\n"
    temporary = None
    try:
        old = like.stat()
        with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            with suppress(PermissionError):
                os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fchmod(file.fileno(), old.st_mode & 0o777)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise FailedPreconditionError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Let one process at a time change the files of `directory`.

    Raises:
        ConfigError: it is not a directory.
        FailedPreconditionError: its file system does not support the lock.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(
            f"cannot open the directory {directory}: {error.strerror}; "
            "pass the directory of the gateway with --gateway-dir"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:  # NFS locks only what is open for writing, as a directory never is
            raise FailedPreconditionError(
                f"cannot lock the directory {directory}: {error.strerror}; some file systems, such as NFS, "
                "do not support it; change a copy on a local disk and copy the changed file back"
            ) from error
        yield
    finally:
        os.close(descriptor)
