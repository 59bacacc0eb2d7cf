"""tfserving warmup: write the warmup records of a version on disk."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from functools import partial

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.connection_options import parse_seconds
from tfserving.cli.release_options import (
    add_release_options,
    connect,
    list_servers,
    print_json,
    read_release_options,
)
from tfserving.cli.verification_options import DEFAULT_RUN_TIMEOUT, add_shape, read_shapes
from tfserving.errors import ConfigError, InvalidInputError
from tfserving.repository.selection import find_model_version


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving warmup") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Writes the warmup records of a version on disk, which servers replay before the version becomes "
        "available. A new process replays them first; then they replace existing records by one rename. "
        "Refuses a version that a server has loaded already.",
        f"examples:\n  {prog} digits --batch-sizes 1,8,32\n"
        f"  {prog} digits/3 --batching-parameters-file batching.config\n"
        f"  {prog} ranker --data samples.npz\n",
    )
    add = parser.add_argument
    add("model", metavar="NAME[/VERSION]", help="the model, by default its newest version")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--batch-sizes",
        type=_parse_sizes,
        default=(),
        metavar="N[,N...]",
        help="batch sizes to warm up (default: 1,8; with --data, each sample is a batch of one)",
    )
    sizes.add_argument(
        "--batching-parameters-file",
        metavar="FILE",
        help="use the allowed_batch_sizes of this batching parameters file as batch sizes",
    )
    add(
        "--data",
        metavar="FILE.npz",
        help="samples instead of zeros: one array per input, with its name, and the samples along the first "
        "dimension; a batch repeats them as often as it needs",
    )
    add_shape(parser)
    add(
        "--timeout",
        type=parse_seconds,
        default=DEFAULT_RUN_TIMEOUT,
        metavar="SECONDS",
        help="seconds for loading and running the version (default: %(default)g)",
    )
    add_release_options(parser, "config", "models-dir", "server", "json")
    return run_command(
        parser,
        argv,
        partial(_write_warmup, prog),
        extra="export",
        interrupted="interrupted, nothing was changed",
    )


def _write_warmup(prog: str, arguments: argparse.Namespace) -> None:
    from tfserving.export.samples import load_samples
    from tfserving.export.verified_warmup import replace_warmup
    from tfserving.release.loaded_versions import check_not_loaded

    options = read_release_options(arguments)
    selected = find_model_version(options.models_dir, arguments.model)
    sizes = arguments.batch_sizes
    if arguments.batching_parameters_file is not None:
        sizes = _read_allowed_sizes(arguments.batching_parameters_file)
    shapes = read_shapes(arguments)
    if shapes and arguments.data is not None:
        raise InvalidInputError("--shape and --data are mutually exclusive; the samples have their shapes")
    samples = None if arguments.data is None else load_samples(arguments.data)
    servers = list_servers(options, by_models_dir=True)
    with connect(options, servers) as connections:
        check = partial(check_not_loaded, connections, selected.model, selected.version)
        check()
        logging.basicConfig(stream=sys.stderr, format=f"{prog}: note: %(message)s", force=True)
        count = replace_warmup(
            selected.model,
            selected.path,
            samples=samples,
            batch_sizes=sizes,
            shapes=shapes,
            timeout=options.timeout,
            check=check,
        )
    if options.json:
        print_json({"model": selected.model, "version": selected.version, "records": count})
    else:
        print(f"wrote {count} warmup record{'s' * (count != 1)} to {selected.path}")


def _parse_sizes(text: str) -> tuple[int, ...]:
    if not re.fullmatch("[1-9][0-9]*(,[1-9][0-9]*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of batch sizes, such as 1,8,32")
    return tuple(dict.fromkeys(map(int, text.split(","))))


def _read_allowed_sizes(file: str) -> tuple[int, ...]:
    from tfserving.server.batching.parameters import read_parameters

    sizes = read_parameters(file).allowed_batch_sizes
    if not sizes:
        raise ConfigError(
            f"{file} has no allowed_batch_sizes, so batches can have any size; "
            "set allowed_batch_sizes, or give --batch-sizes"
        )
    return sizes
