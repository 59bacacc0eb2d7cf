"""tfserving call: send a request to a served model. `python tf_rpc_client.py` is the same command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfserving import client
from tfserving.cli.call_inputs import read_inputs
from tfserving.cli.call_outputs import (
    arrays_as_json,
    arrays_as_text,
    status_as_json,
    status_as_text,
    write_npz,
)
from tfserving.cli.call_rows import RowsOptions, call_rows
from tfserving.cli.command import new_parser, run_command
from tfserving.cli.connection_options import (
    add_address_option,
    add_transport_options,
    address_of,
    metadata_of,
    parse_seconds,
    tls_of,
)
from tfserving.client.inputs import choose_signature
from tfserving.client.options import (
    DEFAULT_REST_PORT,
    DEFAULT_RPC_PORT,
    DEFAULT_TIMEOUT,
    UNSET,
    ProxyOption,
)
from tfserving.client.printable import escape_unprintable
from tfserving.errors import InvalidInputError
from tfserving.wire.signatures import describe

if TYPE_CHECKING:
    from tfserving.client.blocking_client import BlockingClient

# Rows in a request, requests at a time.
_BATCH_SIZE, _CONCURRENCY = 32, 4

_VALUES = """\
values:
  '[[1.0, 2.0]]'         JSON, for a signature with one input
  a='[[1.0]]' b=3        JSON by name of the input
  digit.npy              an array; also image=digit.npy
  batch.npz              arrays by name of the input
  request.json           {"name": values, ...}, or only values; {"b64": "..."} is bytes in base64
"""


def main(
    argv: Sequence[str] | None = None,
    *,
    prog: str = "tfserving call",
    address: str = f"127.0.0.1:{DEFAULT_RPC_PORT}",
    rest_address: str = f"127.0.0.1:{DEFAULT_REST_PORT}",
    model: str = "",
) -> int:
    """Run the subcommand and return its exit status.

    Args:
        argv: arguments; None for those of the process.
        prog: name of the command in --help and errors.
        address, rest_address, model: defaults of the options; without `model`, --model is required.
    """
    parser = new_parser(
        prog,
        "Sends a request to a served model and prints the response. Without VALUE, prints the signatures.",
        _VALUES,
    )
    _add_arguments(parser, address, rest_address, model)
    return run_command(parser, argv, lambda arguments: _call(arguments, prog))


def _add_arguments(parser: argparse.ArgumentParser, address: str, rest_address: str, model: str) -> None:
    add = parser.add_argument
    add("values", nargs="*", metavar="VALUE", help="inputs: JSON, NAME=JSON, or a file (see below)")
    add_address_option(parser, address, rest_address)
    default = f"default: {model}" if model else "required"
    add("--model", metavar="NAME", default=model, required=not model, help=f"name of the model ({default})")
    version = parser.add_mutually_exclusive_group()
    version.add_argument(
        "--version", type=int, metavar="N", help="version of the model (default: the newest that is served)"
    )
    version.add_argument("--label", help="version label, for example stable")
    add("--signature", metavar="NAME", help="signature (default: serving_default)")
    add(
        "--output",
        action="append",
        metavar="NAME|FILE.npz",
        help="only this output; can be repeated. A name that ends in .npz is the file to write to",
    )
    add(
        "--input",
        metavar="FILE",
        help="send the rows of an .npy or .npz file in several requests, and write the outputs to the file "
        "of --output; an interrupted command continues when it is repeated",
    )
    add("--batch-size", type=_count, metavar="N", help=f"rows in a request (default: {_BATCH_SIZE})")
    add("--concurrency", type=_count, metavar="N", help=f"requests at a time (default: {_CONCURRENCY})")
    add(
        "--timeout",
        type=parse_seconds,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="deadline of the request in seconds (default: %(default)g)",
    )
    add_transport_options(parser)
    add(
        "--proxy",
        metavar="URL",
        help="HTTP proxy, or none to connect directly (default: as in the environment, e.g. $http_proxy)",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--show", action="store_true", help="print the signatures")
    instead.add_argument("--status", action="store_true", help="print the state of the model's versions")
    add("--json", action="store_true", help="print the response as JSON")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")
    return int(text[:10])


def _call(arguments: argparse.Namespace, prog: str) -> int:
    if arguments.values and (arguments.show or arguments.status):
        raise InvalidInputError("--show and --status do not send values; omit VALUE")
    files = [Path(name) for name in arguments.output or () if name.endswith(".npz")]
    names = [name for name in arguments.output or () if not name.endswith(".npz")] or None
    _check_files(arguments, files)
    inputs = read_inputs(arguments.values)
    with _open_client(arguments) as model:
        if arguments.input is not None:
            options = RowsOptions(
                input=arguments.input,
                output=files[0],
                batch_size=arguments.batch_size or _BATCH_SIZE,
                concurrency=arguments.concurrency or _CONCURRENCY,
                version=arguments.version,
                label=arguments.label,
                signature=arguments.signature,
                outputs=names,
            )
            return call_rows(model, options, prog)
        if arguments.status:
            versions = model.status(version=arguments.version)
            _print((status_as_json if arguments.json else status_as_text)(versions))
        elif inputs is None:
            signatures = model.metadata(version=arguments.version, label=arguments.label)
            if arguments.signature:
                signatures = {arguments.signature: choose_signature(signatures, arguments.signature)}
            _print(describe(signatures))
            if not arguments.show:
                print(f"\nTo send a request: {prog} NAME=JSON ... (see --help)")
        else:
            outputs = model.infer(
                inputs,
                version=arguments.version,
                label=arguments.label,
                signature=arguments.signature,
                outputs=names,
            )
            if files:
                write_npz(files[0], outputs)
            else:
                _print((arrays_as_json if arguments.json else arrays_as_text)(outputs))
    return 0


def _check_files(arguments: argparse.Namespace, files: Sequence[Path]) -> None:
    if len(files) > 1:
        raise InvalidInputError(f"--output names the files {files[0]} and {files[1]}; give one")
    if arguments.input is None:
        if arguments.batch_size or arguments.concurrency:
            raise InvalidInputError("--batch-size and --concurrency need --input FILE")
        if files and (arguments.json or not arguments.values):
            raise InvalidInputError(
                f"--output {files[0]} writes the outputs of a request; "
                "pass VALUE or --input, and omit --show, --status and --json"
            )
    elif arguments.values or arguments.show or arguments.status or arguments.json:
        raise InvalidInputError("--input sends the rows of a file; omit VALUE, --show, --status and --json")
    elif not files:
        raise InvalidInputError("--input needs a file for the outputs; pass --output FILE.npz")


def _print(text: str) -> None:
    # names and values come from the server, and could contain the commands of a terminal
    print(escape_unprintable(text, keep="\n"))


def _open_client(arguments: argparse.Namespace) -> BlockingClient:
    proxy: ProxyOption = UNSET
    if arguments.proxy is not None:
        proxy = None if arguments.proxy == "none" else arguments.proxy
    client_class = client.TfRestClient if arguments.rest else client.TfRpcClient
    return client_class(
        address_of(arguments),
        arguments.model,
        timeout=arguments.timeout,
        tls=tls_of(arguments),
        metadata=metadata_of(arguments),
        proxy=proxy,
    )
