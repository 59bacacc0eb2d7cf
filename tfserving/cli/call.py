"""The command: ask a model from the shell. `tfserving call` and `python tf_rpc_client.py` are this parser."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfserving.cli.call_inputs import read_inputs
from tfserving.cli.call_outputs import arrays_as_json, arrays_as_text, status_as_json, status_as_text
from tfserving.client.inputs import choose
from tfserving.client.options import DEFAULT_REST_PORT, DEFAULT_RPC_PORT, DEFAULT_TIMEOUT, Tls
from tfserving.errors import InvalidInputError, TfServingError
from tfserving.wire.signatures import describe

if TYPE_CHECKING:
    from tfserving.client.blocking_client import BlockingClient

_EXAMPLES = """\
values:
  '[[1.0, 2.0]]'         JSON, for a signature with one input
  a='[[1.0]]' b=3        JSON by the inputs' names
  digit.npy              an array; also image=digit.npy
  batch.npz              arrays by the inputs' names
  request.json           {"name": values, ...}, or values alone; {"b64": "..."} stands for bytes

exit status: 0, 1 when the server refuses or does not answer, 2 for a value or option that cannot be right
"""


def main(
    argv: Sequence[str] | None = None,
    *,
    prog: str = "tfserving call",
    address: str = f"127.0.0.1:{DEFAULT_RPC_PORT}",
    rest_address: str = f"127.0.0.1:{DEFAULT_REST_PORT}",
    model: str = "",
) -> int:
    """Run the command and return its exit status; the keywords are defaults of the options."""
    parser = _parser(prog, address, rest_address, model)
    arguments = parser.parse_args(argv)
    try:
        _run(arguments, parser.prog)
    except InvalidInputError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        # what the server refused was well-formed, as far as could be told here
        return 2 if error.server_message is None else 1
    except TfServingError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser(prog: str, address: str, rest_address: str, model: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Ask a served model. Without values: what the model takes and gives.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("values", nargs="*", metavar="VALUE", help="what to send: JSON, NAME=JSON, or a file (see below)")
    add("--address", metavar="HOST:PORT", help=f"the server ({address}; with --rest {rest_address})")
    required = not model
    add("--model", metavar="NAME", default=model, required=required, help=f"model ({model or 'required'})")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, metavar="N", help="model version (the newest that is served)")
    which.add_argument("--label", help="version label, e.g. stable")
    add("--signature", metavar="NAME", help="signature (serving_default)")
    add("--output", action="append", metavar="NAME", help="only this output; may be repeated")
    add(
        "--timeout",
        type=_seconds,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="give up after this long (%(default)g)",
    )
    add("--rest", action="store_true", help="by HTTP and not by gRPC")
    add("--tls", action="store_true", help="over an encrypted connection")
    add("--ca", metavar="FILE", help="PEM file with the authorities to trust; implies --tls")
    add("--token", metavar="TEXT", help="send it as a bearer token")
    look = parser.add_mutually_exclusive_group()
    look.add_argument("--show", action="store_true", help="print the signatures")
    look.add_argument("--status", action="store_true", help="print the state of the model's versions")
    add("--json", action="store_true", help="print the answer as JSON")
    parser.set_defaults(rpc_address=address, rest_address=rest_address)
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def _run(arguments: argparse.Namespace, prog: str) -> None:
    if arguments.values and (arguments.show or arguments.status):
        raise InvalidInputError("--show and --status send nothing: leave the values out")
    inputs = read_inputs(arguments.values)
    with _client(arguments) as client:
        if arguments.status:
            versions = client.status(version=arguments.version)
            print((status_as_json if arguments.json else status_as_text)(versions))
        elif inputs is None:
            signatures = client.metadata(version=arguments.version, label=arguments.label)
            if arguments.signature:
                signatures = {arguments.signature: choose(signatures, arguments.signature)}
            print(describe(signatures))
            if not arguments.show:
                print(f"\nTo ask it: {prog} NAME=JSON ... (see --help)")
        else:
            outputs = client.infer(
                inputs,
                version=arguments.version,
                label=arguments.label,
                signature=arguments.signature,
                outputs=arguments.output,
            )
            print((arrays_as_json if arguments.json else arrays_as_text)(outputs))


def _client(arguments: argparse.Namespace) -> BlockingClient:
    tls = Tls(ca=arguments.ca) if arguments.tls or arguments.ca else None
    metadata = {"authorization": f"Bearer {arguments.token}"} if arguments.token else {}
    if arguments.rest:
        from tfserving.client.rest_client import TfRestClient

        return TfRestClient(
            arguments.address or arguments.rest_address,
            arguments.model,
            timeout=arguments.timeout,
            tls=tls,
            metadata=metadata,
        )
    from tfserving.client.rpc_client import TfRpcClient

    return TfRpcClient(
        arguments.address or arguments.rpc_address,
        arguments.model,
        timeout=arguments.timeout,
        tls=tls,
        metadata=metadata,
    )
