"""tfserving export: write a model into the repository. `python export_saved_model.py` is the same command."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tfserving.cli.command import new_parser, run_command
from tfserving.errors import InvalidInputError

_DETAILS = """\
examples:
  {prog} model.keras --name digits
  {prog} model.keras --name digits --output-name output_0=probabilities --warmup 2
  {prog} model.keras --name photos --image-bytes --warmup-data samples.npz
  {prog} /tmp/saved_model --name ranker --version 20260101

Keras 3 names outputs output_0, output_1, ..., whatever their layers are called: rename them for your callers.
The version appears by one rename when it is complete, and is never overwritten; a running server then loads
it. An export that fails or is interrupted leaves nothing behind.
"""


def serve_command(path: Path) -> str:
    """The command that serves the version at `path`."""
    name, base_path = shlex.quote(path.parent.name), shlex.quote(str(path.parent.absolute()))
    return f"  tfserving serve --model_name={name} --model_base_path={base_path}"


def main(
    argv: Sequence[str] | None = None,
    *,
    prog: str = "tfserving export",
    next_commands: Callable[[Path], str] = serve_command,
) -> int:
    """Run the subcommand and return its exit status.

    Args:
        argv: arguments; None for those of the process.
        prog: name of the command in --help and errors.
        next_commands: the commands to print for the path of the new version, indented by two spaces.
    """
    parser = new_parser(
        prog,
        "Exports a model as a version that TensorFlow Serving loads: MODELS_DIR/NAME/VERSION/.",
        _DETAILS.format(prog=f"python {prog}" if prog.endswith(".py") else prog),
    )
    add_export_arguments(parser)
    return run_command(
        parser,
        argv,
        lambda arguments: _export(arguments, prog, next_commands),
        extra="export",
        interrupted="interrupted, nothing was exported",
    )


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare SOURCE and the options of an export."""
    parser.add_argument("source", metavar="SOURCE", help="a .keras or .h5 file, or a SavedModel directory")
    parser.add_argument("--name", required=True, help="name of the model in requests and in models.config")
    parser.add_argument("--version", type=int, metavar="N", help="default: one more than the newest on disk")
    parser.add_argument(
        "--models-dir",
        default=os.environ.get("MODELS_DIR") or "models",
        metavar="DIR",
        help="the model repository (default: the environment variable MODELS_DIR, or models)",
    )
    for kind in ("input", "output"):
        parser.add_argument(
            f"--{kind}-name",
            dest=f"{kind}_names",
            type=_renaming,
            action="append",
            default=[],
            metavar="OLD=NEW",
            help=f"rename an {kind}; can be repeated",
        )
    parser.add_argument(
        "--image-bytes",
        action="store_true",
        help="add a signature 'image_bytes' that takes JPEG, PNG, GIF or BMP files and resizes them to the "
        "input of the model; pixels stay 0 to 255: scale them in the model",
    )
    warmup = parser.add_mutually_exclusive_group()
    warmup.add_argument(
        "--warmup",
        type=int,
        default=0,
        metavar="N",
        help="store N warmup records of zeros for each signature; a server replays them before the version "
        "becomes available, so that the first caller does not wait",
    )
    warmup.add_argument(
        "--warmup-data",
        metavar="FILE.npz",
        help="store warmup records of samples: one array per input, with its name, and the samples along "
        "the first dimension",
    )


def _export(arguments: argparse.Namespace, prog: str, next_commands: Callable[[Path], str]) -> None:
    from tfserving.wire.signatures import describe, read_saved_model

    path = run_export(arguments, prog)
    print(f"{path}\n")
    print(describe(read_saved_model(path)))
    if arguments.image_bytes:
        print("\nimage_bytes: images are decoded and resized; pixels stay 0 to 255.")
    print(f"\nNext:\n{next_commands(path)}")


def run_export(
    arguments: argparse.Namespace, prog: str, check: Callable[[Path], object] | None = None
) -> Path:
    """Export the model of `add_export_arguments` and return the path of the version.

    Args:
        arguments: the parsed arguments.
        prog: name of the command, which begins each note.
        check: see `export_saved_model`.

    Raises:
        TfServingError: see `export_saved_model`.
    """
    print(f"exporting {arguments.source} as {arguments.name} ...", file=sys.stderr)
    from tfserving.export import export_saved_model
    from tfserving.export.tf_logging import quiet_tensorflow

    with quiet_tensorflow() as stderr:
        logging.basicConfig(stream=stderr, format=f"{prog}: note: %(message)s", force=True)
        return export_saved_model(
            arguments.source,
            arguments.name,
            version=arguments.version,
            models_dir=arguments.models_dir,
            input_names=_unique("input", arguments.input_names),
            output_names=_unique("output", arguments.output_names),
            image_bytes=arguments.image_bytes,
            warmup=arguments.warmup,
            warmup_data=arguments.warmup_data,
            check=check,
        )


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form OLD=NEW")
    return old, new


def _unique(kind: str, renamings: Sequence[tuple[str, str]]) -> dict[str, str]:
    names: dict[str, str] = {}
    for old, new in renamings:
        if old in names:
            raise InvalidInputError(f"{kind} {old!r} is renamed twice; give it one new name")
        names[old] = new
    return names
