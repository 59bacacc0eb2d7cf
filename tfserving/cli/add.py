"""tfserving add: serve one more model."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.release_command import EXIT_STATUS, add_change_options, open_command
from tfserving.errors import InvalidInputError
from tfserving.release.rollout import plan_addition
from tfserving.repository.config import All, Latest, Specific, VersionPolicy
from tfserving.repository.model_names import check_name
from tfserving.repository.versions import MODELS_ROOT

_LATEST = re.compile(r"latest(?:=([1-9][0-9]{0,8}))?", re.ASCII)
_VERSIONS = re.compile(r"[0-9]{1,19}(,[0-9]{1,19})*", re.ASCII)


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving add") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Adds a model to models.config, and waits until every server serves it.",
        f"examples:\n  {prog} ranker\n  {prog} ranker latest=2\n  {prog} ranker 1,3\n\n{EXIT_STATUS}",
    )
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument(
        "policy",
        metavar="POLICY",
        nargs="?",
        help="versions to serve: latest=N, all, or a list such as 1,3 (default: the newest)",
    )
    parser.add_argument(
        "--base-path", metavar="PATH", help=f"the directory of its versions (default: {MODELS_ROOT}/NAME)"
    )
    add_change_options(parser)

    def run(arguments: argparse.Namespace) -> None:
        name = check_name(arguments.name)
        policy = _parse(arguments.policy) if arguments.policy else None
        with open_command(arguments, prog, argv) as command:
            base_path = arguments.base_path or f"{MODELS_ROOT}/{name}"
            models_dir = command.options.models_dir
            command.apply(plan_addition(command.session.text, name, base_path, policy, models_dir=models_dir))

    return run_command(parser, argv, run)


def _parse(text: str) -> VersionPolicy:
    if text == "all":
        return All()
    if match := _LATEST.fullmatch(text):
        return Latest(int(match[1] or 1))
    if _VERSIONS.fullmatch(text):
        return Specific(tuple(sorted({int(version) for version in text.split(",")})))
    raise InvalidInputError(f"{text!r} is not a version policy; write latest=N, all, or versions such as 1,3")
