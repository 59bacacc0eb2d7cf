"""Checks models.config and the models that it names, and tells what is on disk.

examples:
  python -m tfserving.repository check --config models/models.config --models-dir models
  python -m tfserving.repository plan --config models/models.config --models-dir models
  python -m tfserving.repository format --config models.json > models/models.config
  python -m tfserving.repository versions digits --models-dir models
  python -m tfserving.repository next-version digits --models-dir models
  python -m tfserving.repository signature models/digits/1

exit codes: 0 done, 1 failed on the way, 2 an argument, a configuration or a model is not as it must be
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tfserving.errors import ConfigError, InvalidInputError, RepositoryError, TfServingError
from tfserving.repository import config as models_config
from tfserving.repository import selection as planning
from tfserving.repository import versions as on_disk
from tfserving.repository.diagnostics import errors_of
from tfserving.repository.lint import lint
from tfserving.repository.lint_disk import Disk
from tfserving.repository.model_names import check_name

NAME = "python -m tfserving.repository"

# The checkout that this package lies in, if it lies in one: quickstart.sh makes what its models.config names.
_CHECKOUT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except (InvalidInputError, RepositoryError) as error:
        print(f"{NAME}: error: {error}", file=sys.stderr)
        return 2
    except TfServingError as error:
        print(f"{NAME}: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever reads has enough, as `head` does; Python would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def check(options: argparse.Namespace) -> int:
    """Prints every problem to stderr; 2 when there is an error among them."""
    models_dir = options.models_dir
    if not _report(options.config, models_dir):
        return 2
    looked_at = f"{options.config} and {models_dir}" if models_dir is not None else options.config
    print(f"{looked_at}: no errors")
    return 0


def plan(options: argparse.Namespace) -> int:
    """Prints `NAME<TAB>VERSION<TAB>PATH` for each version that can be served; 2 when lint finds an error."""
    if not _report(options.config, options.models_dir):
        return 2
    for planned in planning.plan(_config(options.config), options.models_dir):
        print(planned)
    return 0


def format_config(options: argparse.Namespace) -> int:
    """Prints a configuration as text format."""
    text = _read(options.config)
    json = models_config.looks_like_json(text)
    try:
        message = models_config.parse_json(text) if json else models_config.parse_message(text)
    except models_config.ConfigSyntaxError:
        _report(options.config, None)
        return 2
    if json:
        print(f"{NAME}: note: {options.config} is JSON and was converted", file=sys.stderr)
    print(models_config.message_to_text(message), end="")
    return 0


def versions(options: argparse.Namespace) -> int:
    """Prints the versions of a model, ascending, one a line."""
    for version in on_disk.list_versions(_base(options)):
        print(version)
    return 0


def next_version(options: argparse.Namespace) -> int:
    """Prints the number that the next version of a model gets."""
    print(on_disk.next_version(_base(options)))
    return 0


def signature(options: argparse.Namespace) -> int:
    """Prints the signatures of a version."""
    from tfserving.wire import signatures  # numpy takes longer to import than all the rest

    on_disk.check_version_dir(options.directory)
    print(signatures.describe(signatures.read_saved_model(options.directory)))
    return 0


def _report(file: str, models_dir: str | None) -> bool:
    """Prints what lint finds in `file` to stderr; whether there is no error among it."""
    disk = None
    if models_dir is not None:
        if not Path(models_dir).is_dir():
            raise RepositoryError(
                f"--models-dir {models_dir!r} is no directory: name the one that holds NAME/VERSION"
            )
        disk = Disk(Path(models_dir), _shipped())
    problems = lint(_read(file), disk)
    for problem in problems:
        print(problem.render(file), file=sys.stderr)
    return not errors_of(problems)


def _config(file: str) -> models_config.ServerConfig:
    text = _read(file)
    return (
        models_config.from_json(text)
        if models_config.looks_like_json(text)
        else models_config.parse(text, file)
    )


def _read(file: str) -> str:
    try:
        return Path(file).read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}: name a models.config that can be read") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is no UTF-8: save the file as UTF-8") from error


def _shipped() -> frozenset[str]:
    file = _CHECKOUT / "models" / "models.config"
    if not (_CHECKOUT / "quickstart.sh").is_file() or not file.is_file():
        return frozenset()
    try:
        return frozenset(model.name for model in models_config.parse(_read(str(file))).models)
    except ConfigError:
        return frozenset()


def _base(options: argparse.Namespace) -> Path:
    return Path(options.models_dir) / check_name(options.name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(run=run)
        return added

    def config(added: argparse.ArgumentParser) -> None:
        added.add_argument(
            "--config", required=True, metavar="FILE", help="the models.config, or one in JSON"
        )

    def models_dir(added: argparse.ArgumentParser, *, required: bool = True) -> None:
        text = "the directory of the models, /models in a base_path"
        if not required:
            text += "; without it only the file is checked"
        added.add_argument("--models-dir", required=required, metavar="DIR", help=text)

    added = command("check", check, "prints every problem of a models.config, with its line and its mend")
    config(added)
    models_dir(added, required=False)
    added = command(
        "plan", plan, "prints NAME, VERSION and PATH of what the policies can serve, with tabs between"
    )
    config(added)
    models_dir(added)
    config(
        command("format", format_config, "prints a models.config in text format, whatever it was written in")
    )
    for name, run, text in (
        ("versions", versions, "prints the versions of a model, ascending"),
        ("next-version", next_version, "prints the number that the next version of a model gets"),
    ):
        added = command(name, run, text)
        added.add_argument("name", metavar="NAME", help="the model")
        models_dir(added)
    added = command("signature", signature, "prints the signatures of a version: names, dtypes and shapes")
    added.add_argument("directory", metavar="DIR", help="the version, for example models/digits/1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
