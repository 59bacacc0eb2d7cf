"""The `tfserving` command: finds the subcommand and passes the arguments on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from tfserving import __version__
from tfserving.cli.command import new_parser
from tfserving.cli.completion import complete_command, is_completing

# Subcommand: its module in this package, and what it does.
_COMMANDS = {
    "call": ("call", "send a request to a served model; print its status or signatures"),
    "bench": ("bench", "measure the throughput and the latency of a served model"),
    "tune": ("tune", "find the server settings that are best for a model, by measurement"),
    "export": ("export", "write a model into the model repository, ready to be served"),
    "publish": ("publish", "export a model, verify the version, and only then make it visible"),
    "verify": ("verify", "load and run a version on disk, and compare its outputs with expected ones"),
    "warmup": ("warmup", "write the warmup records of a version on disk"),
    "compare": ("compare", "compare the outputs and latencies of two versions of a model"),
    "serve": ("serve", "run the embedded server, with the flags of tensorflow_model_server"),
    "check": ("check", "check a models.config and the models that it names"),
    "format": ("format_config", "print a models.config in text format, also from JSON"),
    "select": ("select", "print the versions that the version policies of a models.config select"),
    "versions": ("list_versions", "print the versions of a model on disk"),
    "show": ("show", "print the signatures of a SavedModel"),
    "promote": ("promote", "make a version the one that callers get, on all servers"),
    "rollback": ("rollback", "go back to the version that was promoted before"),
    "canary": ("canary", "load a version beside the promoted one, and label both"),
    "label": ("label", "set and remove version labels"),
    "add": ("add", "serve one more model"),
    "remove": ("remove", "serve a model no longer"),
    "diff": ("diff", "print what a models.config would change on servers"),
    "status": ("status", "print the models, versions, states and labels of servers"),
    "watch": ("watch", "show a live table of servers, models, calls, errors and latencies"),
    "history": ("show_history", "print the changes of models.config"),
    "prune": ("prune", "delete old versions that nothing uses"),
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
    if is_completing():
        return complete_command(parser, {name: module for name, (module, _) in _COMMANDS.items()})
    module, _ = _COMMANDS[parser.parse_args(arguments[:1]).command]
    return int(importlib.import_module(f"tfserving.cli.{module}").main(arguments[1:]))
