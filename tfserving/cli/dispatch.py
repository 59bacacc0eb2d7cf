"""The `tfserving` command: finds the subcommand and passes the arguments on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from tfserving import __version__
from tfserving.cli.command import new_parser

# Subcommand: its module in this package, and what it does.
_COMMANDS = {
    "call": ("call", "send a request to a served model; print its status or signatures"),
    "bench": ("bench", "measure the throughput and the latency of a served model"),
    "export": ("export", "write a model into the model repository, ready to be served"),
    "serve": ("serve", "run the embedded server, with the flags of tensorflow_model_server"),
    "check": ("check", "check a models.config and the models that it names"),
    "format": ("format_config", "print a models.config in text format, also from JSON"),
    "select": ("select", "print the versions that the version policies of a models.config select"),
    "versions": ("list_versions", "print the versions of a model on disk"),
    "show": ("show", "print the signatures of a SavedModel"),
    "clients": ("clients", "create, list and revoke the tokens of the gateway's clients"),
    "traffic": ("traffic", "print and set the shares of the gateway's groups of servers"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand and return its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    commands = "".join(f"  {name:10}{about}\n" for name, (_, about) in _COMMANDS.items())
    parser = new_parser(
        "tfserving",
        "Export, serve and call TensorFlow models with TensorFlow Serving.",
        f"commands:\n{commands}\n`tfserving COMMAND --help` describes the arguments of a command.\n\n"
        "If the server cannot start, serve exits with 255, as tensorflow_model_server does.\n",
    )
    parser.usage = "tfserving COMMAND [ARGUMENT ...]"
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=_COMMANDS, help="one of the commands below")
    module, _ = _COMMANDS[parser.parse_args(arguments[:1]).command]
    return int(importlib.import_module(f"tfserving.cli.{module}").main(arguments[1:]))
