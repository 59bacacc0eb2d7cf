"""The command behind export_saved_model.py and `tfserving export`."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfserving.errors import InvalidInputError, RepositoryError, TfServingError
from tfserving.export import images
from tfserving.export.exporter import export_saved_model
from tfserving.export.tf_logging import quiet_tensorflow
from tfserving.repository.versions import list_versions
from tfserving.wire.signatures import describe, read_saved_model

DESCRIPTION = "Exports a model as a version that TensorFlow Serving loads: MODELS_DIR/NAME/VERSION/."

EPILOG = """\
examples:
  %(call)s model.keras --name digits
  %(call)s model.keras --name digits --output-name output_0=probabilities --warmup 2
  %(call)s model.keras --name photos --image-bytes --warmup-data samples.npz
  %(call)s /tmp/saved_model --name ranker --version 20260101

Keras 3 calls outputs output_0, output_1, ... whatever their layers are called: rename them for your callers.
The version appears by one rename when it is whole, and is never overwritten; a running server then loads it.
"""

DEFAULT_MODELS_DIR = "models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("source", metavar="SOURCE", help="a .keras or .h5 file, or a SavedModel directory")
    parser.add_argument("--name", required=True, help="the model's name, as callers and models.config use it")
    parser.add_argument("--version", type=int, metavar="N", help="default: one more than the newest on disk")
    parser.add_argument(
        "--models-dir",
        default=os.environ.get("MODELS_DIR") or DEFAULT_MODELS_DIR,
        metavar="DIR",
        help="the model repository (default: MODELS_DIR from the environment, else %(default)s)",
    )
    for kind in ("input", "output"):
        parser.add_argument(
            f"--{kind}-name",
            dest=f"{kind}_names",
            type=_renaming,
            action="append",
            default=[],
            metavar="OLD=NEW",
            help=f"rename an {kind}; can be given several times",
        )
    parser.add_argument(
        "--image-bytes",
        action="store_true",
        help=f"add a signature {images.SIGNATURE!r} that takes JPEG, PNG, GIF or BMP files, resized to the "
        "model's input; pixels stay 0 to 255: scale them inside the model",
    )
    warmup = parser.add_mutually_exclusive_group()
    warmup.add_argument(
        "--warmup",
        type=int,
        default=0,
        metavar="N",
        help="store N warmup requests of zeros for each signature; a server answers them before it counts "
        "the version as available, so that the first caller does not wait",
    )
    warmup.add_argument(
        "--warmup-data",
        metavar="FILE.npz",
        help="store warmup requests of real samples: one array for each input, named after it, with the "
        "samples along its first dimension",
    )


def export(args: argparse.Namespace) -> Path:
    """Exports as the parsed arguments say; returns the version's path."""
    return export_saved_model(
        args.source,
        args.name,
        version=args.version,
        models_dir=args.models_dir,
        input_names=_mapping("input", args.input_names),
        output_names=_mapping("output", args.output_names),
        image_bytes=args.image_bytes,
        warmup=args.warmup,
        warmup_data=args.warmup_data,
    )


def print_result(path: Path, args: argparse.Namespace) -> None:
    """Prints where the version is, its signatures and the next commands."""
    print(f"{path}\n")
    print(describe(read_saved_model(path)))
    if args.image_bytes:
        print(f"\n{images.SIGNATURE}: decoded and resized for you; pixels stay 0 to 255.")
    print(f"\nNext:\n{next_commands(path)}")


def next_commands(path: Path) -> str:
    """What to do with the version at `path`: build an image, start a server."""
    name, models_dir = path.parent.name, path.parent.parent
    settings = f"MODEL_NAME={shlex.quote(name)}"
    # build.sh takes the newest when it is not told
    version = "" if path.name == str(list_versions(path.parent)[-1]) else f"MODEL_VERSIONS={path.name} "
    if models_dir != Path(DEFAULT_MODELS_DIR):
        settings = f"MODELS_DIR={shlex.quote(str(models_dir))} {settings}"
    return f"  {version}{settings} bash build.sh\n  {settings} bash run_tf_serving.sh"


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving export") -> int:
    """The whole command; returns the exit status: 2 for what the caller has to change, 1 for a failure."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG % {"call": f"python {prog}" if prog.endswith(".py") else prog},
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    args = parser.parse_args(argv)

    stops = _stop_by_exception()
    print(f"exporting {args.source} as {args.name} ...", file=sys.stderr)
    try:
        with quiet_tensorflow() as stderr:
            logging.basicConfig(stream=stderr, format=f"{prog}: note: %(message)s", force=True)
            path = export(args)
    except (KeyboardInterrupt, TfServingError, ImportError) as error:
        if stops:
            print(f"{prog}: interrupted, nothing was exported", file=sys.stderr)
            return 128 + stops[0]
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidInputError | RepositoryError) else 1
    print_result(path, args)
    return 0


def _stop_by_exception() -> list[int]:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt, so that what is half-made is removed on the way out.

    Returns:
        the list of those that came: TensorFlow's imports turn an interrupt into an ImportError at times.
    """
    stops: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        stops.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return stops


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form OLD=NEW")
    return old, new


def _mapping(kind: str, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    names: dict[str, str] = {}
    for old, new in pairs:
        if old in names:
            raise InvalidInputError(f"{kind} {old!r} is renamed twice: give it one new name")
        names[old] = new
    return names
