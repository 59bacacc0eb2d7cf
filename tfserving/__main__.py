"""The `tfserving` command: finds the subcommand and hands the arguments on."""

from __future__ import annotations

import importlib
import sys

from tfserving import __version__

# Module, what it does, and the extra that installs what it needs.
_COMMANDS = {
    "call": ("tfserving.cli.call", "ask a model: values in, answers out; status; signatures", ""),
    "export": ("tfserving.cli.export", "write a model into the repository, ready to be served", "export"),
    "serve": (
        "tfserving.server.main",
        "run the embedded server, with tensorflow_model_server's flags",
        "server",
    ),
    "repository": ("tfserving.cli.repository", "check and show models, versions and models.config", ""),
}

_USAGE = "\n".join(
    [
        "usage: tfserving COMMAND ...",
        "",
        "From a trained TensorFlow model to a served endpoint.",
        "",
        *(f"  {name:10}  {about}" for name, (_, about, _) in _COMMANDS.items()),
        "",
        "tfserving COMMAND --help tells more.",
    ]
)


def main(argv: list[str] | None = None) -> int:
    """Run the subcommand and return its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        print(_USAGE)
        return 0
    if name == "--version":
        print(f"tfserving {__version__}")
        return 0
    if name not in _COMMANDS:
        wrong = f"there is no command {name!r}" if name else "a command is missing"
        print(f"tfserving: error: {wrong}; choose: {', '.join(_COMMANDS)}", file=sys.stderr)
        return 2
    module, _, extra = _COMMANDS[name]
    try:
        command = importlib.import_module(module)
    except ModuleNotFoundError as error:
        install = f"'tfserving-toolkit[{extra}]'" if extra else "tfserving-toolkit"
        print(f"tfserving: error: {error}: pip install {install}", file=sys.stderr)
        return 1
    return int(command.main(arguments[1:]) or 0)


if __name__ == "__main__":
    sys.exit(main())
