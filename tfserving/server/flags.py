"""The command line: the server options as flags, and tensorflow_model_server's flags without effect here."""

from __future__ import annotations

import argparse
from dataclasses import Field, fields
from typing import Any, NoReturn

from tfserving.server.server_options import CPUS, GRPC_FRONTS, Flag, ServerOptions

_VERSION = Flag("version", False, "Print the version and exit.")
_UNSUPPORTED = (
    Flag("rest_api_num_threads", 4 * CPUS),
    Flag("num_unload_threads", 0),
    Flag("flush_filesystem_caches", True),
    Flag("tensorflow_session_config_file", ""),
    Flag(
        "use_alts_credentials",
        False,
        rejection="ALTS is not supported, so requests would not be protected; use --ssl_config_file for TLS",
    ),
    Flag("platform_config_file", ""),
    Flag("remove_unused_fields_from_bundle_metagraph", True),
    Flag("prefer_tflite_model", False),
    Flag("num_tflite_pools", CPUS),
    Flag("num_tflite_interpreters_per_pool", 1),
    Flag("enable_profiler", True),
    Flag("thread_pool_factory_config_file", ""),
    Flag("mixed_precision", ""),
    Flag("skip_initialize_tpu", False),
)


# The fields of `ServerOptions` that are groups of options, each with the class of the group.
_GROUPS: dict[Field[Any], Any] = {
    group: group.default_factory for group in fields(ServerOptions) if "title" in group.metadata
}

FLAGS: tuple[Flag, ...] = (
    *(option.metadata["flag"] for kind in _GROUPS.values() for option in fields(kind)),
    _VERSION,
    *_UNSUPPORTED,
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\nRun {self.prog} --help for the list of flags.\n")


def parse_flags(argv: list[str]) -> ServerOptions:
    """Parse the command line; the last value of a repeated flag counts.

    Raises:
        SystemExit: with code 2 and a message for an unknown flag, an invalid value, or flags that contradict
            each other.
    """
    parser = _parser()
    given = vars(parser.parse_args(argv))
    changed = [flag for flag in FLAGS if given.get(flag.name, flag.default) != flag.default]
    for flag in changed:
        if flag.rejection:
            parser.error(f"--{flag.name}={given[flag.name]} is not supported: {flag.rejection}")
    groups = {}
    for group, kind in _GROUPS.items():
        named = [(option, option.metadata["flag"].name) for option in fields(kind)]
        groups[group.name] = kind(
            **{
                option.name: option.metadata["convert"](given[name])
                for option, name in named
                if name in given
            }
        )
    options = ServerOptions(
        **groups,
        print_version=given.get(_VERSION.name, _VERSION.default),
        ignored=tuple(flag.name for flag in changed if flag.support == "ignored"),
    )
    if error := _find_error(options):
        parser.error(error)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tfserving.server",
        usage="%(prog)s --model_config_file=FILE [--FLAG=VALUE ...]\n"
        "       %(prog)s --model_base_path=DIR [--model_name=NAME] [--FLAG=VALUE ...]",
        description="Serve SavedModels with the gRPC and REST APIs of tensorflow_model_server. The flags are "
        "those of tensorflow_model_server 2.20, and "
        + ", ".join(f"--{flag.name}" for flag in FLAGS if flag.own)
        + ".",
        epilog="These flags of tensorflow_model_server are ignored: "
        + ", ".join(f"--{flag.name}" for flag in FLAGS if flag.support == "ignored"),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for group, kind in _GROUPS.items():
        section = parser.add_argument_group(group.metadata["title"])
        for option in fields(kind):
            _add(section, option.metadata["flag"])
    for flag in (_VERSION, *_UNSUPPORTED):
        _add(parser, flag)
    return parser


def _add(container: argparse._ActionsContainer, flag: Flag) -> None:
    kind = type(flag.default)
    default = str(flag.default).lower() if kind is bool else str(flag.default) or "empty"
    text = f"{flag.help} (default: {default})".replace("%", "%%")
    options: dict[str, Any] = {"metavar": kind.__name__.upper(), "type": kind}
    if kind is bool:
        options = {"metavar": "BOOL", "type": _boolean, "nargs": "?", "const": True}
    container.add_argument(f"--{flag.name}", help=text if flag.help else argparse.SUPPRESS, **options)


def _find_error(options: ServerOptions) -> str:
    """What is wrong with the options together, "" if nothing is."""
    listen, runtime = options.listen, options.runtime
    for flag, port in (("port", listen.grpc_port), ("rest_api_port", listen.rest_port)):
        if not 0 <= port <= 65535:
            return f"--{flag}={port} is not a valid port (1-65535, or 0 to disable the API)"
    if listen.grpc_port and listen.grpc_port == listen.rest_port:
        return f"--port and --rest_api_port are both {listen.grpc_port}; give each API its own port"
    if options.grpc.front not in GRPC_FRONTS:
        return f"--grpc_front={options.grpc.front} is not a valid front ({' or '.join(GRPC_FRONTS)})"
    for option in fields(options.limits):
        flag, value = option.metadata["flag"].name, getattr(options.limits, option.name)
        if value < 1 and not flag.endswith("_in_ms"):
            return f"--{flag}={value} is not a valid limit; give 1 or more"
    if options.batching.parameters_file and not options.batching.enabled:
        return "--batching_parameters_file has no effect without --enable_batching; add it or omit the file"
    if runtime.session_parallelism and runtime.intra_op_parallelism and runtime.inter_op_parallelism:
        return (
            "--tensorflow_session_parallelism contradicts --tensorflow_intra_op_parallelism and "
            "--tensorflow_inter_op_parallelism; give either the first or the other two"
        )
    if runtime.xla_auto_jit and not (runtime.xla_cpu or runtime.xla_gpu):
        return (
            "--xla_auto_jit needs XLA; add --xla_gpu_compilation_enabled for GPUs or "
            "--xla_cpu_compilation_enabled for the CPU"
        )
    if not (options.models.config_file or options.models.base_path or options.print_version):
        return "no model to serve; give --model_config_file, or --model_base_path and --model_name"
    return ""


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is not a boolean (true or false)")
