"""The command line: the flags of tensorflow_model_server 2.20, and some of our own."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import Any, NoReturn

CPUS = os.cpu_count() or 1


@dataclass(frozen=True)
class Flag:
    """A flag: its name, type and default as in the real server.

    Attributes:
        help: what it does here; "" for a flag that does nothing.
        own: whether tensorflow_model_server does not know it.
        refusal: why another value than the default is refused, for what must not be passed over in silence.
    """

    name: str
    type: type
    default: Any
    help: str = ""
    own: bool = False
    refusal: str = ""

    @property
    def support(self) -> str:
        """How far it goes: "done", "accepted" with a warning and without effect, or "refused"."""
        if self.refusal:
            return "refused"
        return "done" if self.help else "accepted"


FLAGS = (
    Flag("port", int, 8500, "port of the gRPC API; 0 turns it off"),
    Flag("grpc_socket_path", str, "", "path of a UNIX socket for the gRPC API as well"),
    Flag("rest_api_port", int, 0, "port of the REST API; 0 turns it off"),
    Flag("rest_api_num_threads", int, 4 * CPUS),
    Flag("rest_api_timeout_in_ms", int, 30000, "deadline of a REST call in milliseconds"),
    Flag("rest_api_enable_cors_support", bool, False, "allow browsers of any origin to call the REST API"),
    Flag("enable_batching", bool, False, "run calls that arrive together as one"),
    Flag(
        "allow_version_labels_for_unavailable_models",
        bool,
        False,
        "let labels name versions that are not in service yet, as a config with labels needs at the start",
    ),
    Flag("batching_parameters_file", str, "", "how, a BatchingParameters in protobuf text format"),
    Flag(
        "enable_per_model_batching_parameters",
        bool,
        False,
        "batch only versions with a batching_params.pbtxt, and as it says; the file above gives the threads",
    ),
    Flag("model_config_file", str, "", "the models to serve, a ModelServerConfig in protobuf text format"),
    Flag(
        "model_config_file_poll_wait_seconds",
        int,
        0,
        "read the config file again every so many seconds; 0 never does",
    ),
    Flag(
        "model_name", str, "", "name of the one model to serve, without --model_config_file; empty: default"
    ),
    Flag("model_base_path", str, "", "directory of the versions of the one model to serve"),
    Flag("num_load_threads", int, 0, "versions to load at the same time; 0: as many as there are CPUs"),
    Flag("num_unload_threads", int, 0),
    Flag("max_num_load_retries", int, 5, "how often to try a failed load again, if trying again can help"),
    Flag("load_retry_interval_micros", int, 60_000_000, "microseconds between such tries"),
    Flag(
        "file_system_poll_wait_seconds",
        int,
        1,
        "look for versions every so many seconds; 0 looks only at the start",
    ),
    Flag("flush_filesystem_caches", bool, True),
    Flag(
        "tensorflow_session_parallelism", int, 0, "threads for intra- and inter-op parallelism of each model"
    ),
    Flag("tensorflow_session_config_file", str, ""),
    Flag(
        "tensorflow_intra_op_parallelism", int, 0, "threads that one operation may use; 0: TensorFlow decides"
    ),
    Flag(
        "tensorflow_inter_op_parallelism",
        int,
        0,
        "operations of one call that run at the same time; 0: one",
    ),
    Flag(
        "use_alts_credentials",
        bool,
        False,
        refusal="ALTS is Google's own; calls would go unprotected. For TLS there is --ssl_config_file",
    ),
    Flag("ssl_config_file", str, "", "TLS for the gRPC port, an SSLConfig in protobuf text format"),
    Flag("platform_config_file", str, ""),
    Flag("per_process_gpu_memory_fraction", float, 0.0, "part of each GPU's memory to take; 0: as needed"),
    Flag("saved_model_tags", str, "", "comma-separated tags of the graph to load; empty: serve"),
    Flag("grpc_channel_arguments", str, "", "comma-separated key=value arguments of the gRPC server"),
    Flag("grpc_max_threads", int, 4 * CPUS, "calls of one model that run at the same time"),
    Flag("enable_model_warmup", bool, True, "answer a version's warmup records before it comes into service"),
    Flag("num_request_iterations_for_warmup", int, 0, "how often to answer each warmup record; 0: once"),
    Flag("version", bool, False, "print the version and exit"),
    Flag(
        "monitoring_config_file",
        str,
        "",
        "metrics on the REST port, a MonitoringConfig in protobuf text format",
    ),
    Flag("remove_unused_fields_from_bundle_metagraph", bool, True),
    Flag("prefer_tflite_model", bool, False),
    Flag("num_tflite_pools", int, CPUS),
    Flag("num_tflite_interpreters_per_pool", int, 1),
    Flag(
        "enable_signature_method_name_check",
        bool,
        False,
        "let a signature answer only the calls that its method name is for",
    ),
    Flag("xla_cpu_compilation_enabled", bool, False),
    Flag("xla_gpu_compilation_enabled", bool, False),
    Flag("enable_profiler", bool, True),
    Flag("thread_pool_factory_config_file", str, ""),
    Flag("mixed_precision", str, ""),
    Flag("skip_initialize_tpu", bool, False),
    Flag(
        "enable_grpc_healthcheck_service",
        bool,
        False,
        "offer grpc.health.v1.Health, which knows the models by name",
    ),
    Flag(
        "enable_serialization_as_tensor_content",
        bool,
        False,
        "answer Predict with tensor_content rather than float_val and the like",
    ),
    Flag("host", str, "0.0.0.0", "address to listen on", own=True),
    Flag("models_dir", str, "", "directory that stands for /models in base paths", own=True),
    Flag("access_log", str, "", "file for a line of JSON for each call; -: standard output", own=True),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog}: --help lists the flags\n")


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags' values, and the names of those given in vain; of a repeated flag the last one counts.

    Raises:
        SystemExit: with code 2 after a message for an unknown flag, a value of the wrong type or one that is
            refused.
    """
    parser = _Parser(
        prog="tfserving.server",
        description="A server that answers as tensorflow_model_server does. Flags are its flags.",
        epilog="Accepted, but without effect here: "
        + ", ".join(f"--{flag.name}" for flag in FLAGS if flag.support == "accepted"),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for flag in FLAGS:
        shown = f"{flag.help} (default: {flag.default!r})" if flag.help else argparse.SUPPRESS
        if flag.type is bool:
            parser.add_argument(
                f"--{flag.name}",
                type=_boolean,
                nargs="?",
                const=True,
                metavar="BOOL",
                help=shown.replace("%", "%%"),
            )
        else:
            parser.add_argument(
                f"--{flag.name}",
                type=flag.type,
                metavar=flag.type.__name__.upper(),
                help=shown.replace("%", "%%"),
            )
    given = vars(parser.parse_args(argv))
    changed = [flag for flag in FLAGS if given.get(flag.name, flag.default) != flag.default]
    for flag in changed:
        if flag.refusal:
            parser.error(f"--{flag.name}={given[flag.name]} cannot be had here: {flag.refusal}")
    idle = [flag.name for flag in changed if flag.support == "accepted"]
    values = argparse.Namespace(**({flag.name: flag.default for flag in FLAGS} | given))
    if fault := _fault(values):
        parser.error(fault)
    return values, idle


def _fault(values: argparse.Namespace) -> str:
    """What is wrong with the flags together, "" for nothing; the last two the real server refuses as well."""
    for name in ("port", "rest_api_port"):
        if not 0 <= getattr(values, name) <= 65535:
            return f"--{name}={getattr(values, name)} is no port: choose one from 1 to 65535, or 0 for none"
    if values.port and values.port == values.rest_api_port:
        return f"--port and --rest_api_port are both {values.port}: each API needs a port of its own"
    if values.batching_parameters_file and not values.enable_batching:
        return "--batching_parameters_file says how to batch: give --enable_batching too, or leave it away"
    parallelism = ("session", "intra_op", "inter_op")
    if all(getattr(values, f"tensorflow_{name}_parallelism") for name in parallelism):
        return (
            "--tensorflow_session_parallelism stands for --tensorflow_intra_op_parallelism and "
            "--tensorflow_inter_op_parallelism: give either it or them"
        )
    return ""


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
