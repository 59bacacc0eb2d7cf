"""Shell completion with argcomplete, which the shell function of register-python-argcomplete calls.

docs/guide/inspect.md describes how to turn it on, and why it is argcomplete.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

# Set by the shell function: the number of words of the command line before the arguments.
_VARIABLE = "_ARGCOMPLETE"

# Commands whose parser is not made by new_parser, and which would run instead.
_NOT_COMPLETED = frozenset({"serve"})


def is_completing() -> bool:
    """Whether the shell wants completions instead of a run of the command."""
    return _VARIABLE in os.environ


def complete(parser: argparse.ArgumentParser) -> None:
    """Print the completions of the command line for this parser and end the process.

    Arguments called NAME or VERSION are completed from the model repository.
    """
    import argcomplete

    for action in _list_actions(parser):
        if action.dest in _COMPLETERS and not action.choices:
            action.completer = _COMPLETERS[action.dest]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def complete_command(parser: argparse.ArgumentParser, modules: Mapping[str, str]) -> int:
    """Print the completions of a command line that begins with a subcommand, or of the subcommand itself.

    Args:
        parser: the parser of the subcommand's name.
        modules: the module of each subcommand in this package.

    Returns:
        The exit status, if there is nothing to complete.
    """
    import argcomplete

    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    words = argcomplete.split_line(line)[3]  # type: ignore[attr-defined, unused-ignore]
    start = int(os.environ[_VARIABLE])
    if len(words) <= start:
        complete(parser)
    command = words[start]
    if command in modules and command not in _NOT_COMPLETED:
        os.environ[_VARIABLE] = str(start + 1)
        importlib.import_module(f"tfserving.cli.{modules[command]}").main([])
    return 0


def _list_actions(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    """The arguments of a parser and of its subparsers."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _list_actions(each)


def _complete_models(parsed_args: argparse.Namespace, **_: Any) -> tuple[str, ...]:
    from tfserving.cli.release_options import read_release_options
    from tfserving.repository.versions import list_models

    return list_models(read_release_options(parsed_args).models_dir)


def _complete_versions(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    from tfserving.cli.release_options import read_release_options
    from tfserving.repository.versions import list_versions

    name = getattr(parsed_args, "name", None) or getattr(parsed_args, "model", None)
    if name is None:
        return []
    return [str(number) for number in list_versions(read_release_options(parsed_args).models_dir / name)]


_COMPLETERS = {"name": _complete_models, "model": _complete_models, "version": _complete_versions}
