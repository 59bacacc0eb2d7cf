"""The options of the embedded server: one frozen dataclass for each concern.

An option has its default, its help text and its flag here and nowhere else; `flags` builds the command line
from this module. Names and defaults of flags are those of tensorflow_model_server 2.20, as recorded in
tests/conformance/flags.tsv, except for flags that are marked `own`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfserving.wire.limits import FillLimit

CPUS = os.cpu_count() or 1

# The values of --grpc_front.
GRPC_FRONTS = ("core", "aio")


@dataclass(frozen=True)
class Flag:
    """A command-line flag.

    Attributes:
        name: without the leading dashes.
        default: the default in the unit of the flag; its type is the type of the flag.
        help: what the flag does; "" for a flag without effect.
        own: whether tensorflow_model_server does not have the flag.
        rejection: why any value but the default is rejected; "" if it is not.
    """

    name: str
    default: Any
    help: str = ""
    own: bool = False
    rejection: str = ""

    @property
    def support(self) -> str:
        """ "supported", "ignored" (with a warning) or "rejected" (at startup)."""
        if self.rejection:
            return "rejected"
        return "supported" if self.help else "ignored"


def _flag(
    name: str,
    default: Any,
    help: str,
    *,
    own: bool = False,
    convert: Callable[[Any], Any] = lambda value: value,
) -> Any:
    """A field that a flag sets; `convert` turns the value of the flag into that of the field."""
    metadata = {"flag": Flag(name, default, help, own), "convert": convert}
    return field(default=convert(default), metadata=metadata)


@dataclass(frozen=True)
class ListenOptions:
    """Addresses; a port of 0 disables its API."""

    host: str = _flag("host", "0.0.0.0", "Address to listen on.", own=True)
    grpc_port: int = _flag("port", 8500, "Port of the gRPC API; 0 disables it.")
    rest_port: int = _flag("rest_api_port", 0, "Port of the REST API; 0 disables it.")


@dataclass(frozen=True)
class GrpcOptions:
    """The gRPC API."""

    socket_path: str = _flag(
        "grpc_socket_path", "", "UNIX socket to serve the gRPC API on, in addition to the port."
    )
    ssl_config_file: str = _flag(
        "ssl_config_file",
        "",
        "Enable TLS for gRPC: an SSLConfig in protobuf text format, with keys and certificates as PEM text.",
    )
    channel_arguments: str = _flag(
        "grpc_channel_arguments", "", "Arguments of the gRPC server: key=value pairs separated by commas."
    )
    front: str = _flag(
        "grpc_front",
        "core",
        "What serves gRPC: core (gRPC's core in the event loop), or aio (grpc.aio), which makes fewer calls "
        "per second.",
        own=True,
    )
    health_service: bool = _flag(
        "enable_grpc_healthcheck_service", False, "Serve grpc.health.v1.Health, with a service per model."
    )
    tensor_content: bool = _flag(
        "enable_serialization_as_tensor_content",
        False,
        "Encode tensors in tensor_content, not in float_val etc.",
    )


@dataclass(frozen=True)
class RestOptions:
    """The REST API. The timeout starts when a request has been read; 0 or less means no timeout."""

    timeout_in_ms: int = _flag("rest_api_timeout_in_ms", 30_000, "Timeout of a REST request in milliseconds.")
    cors: bool = _flag(
        "rest_api_enable_cors_support", False, "Send CORS headers, so that any web page can call the API."
    )


@dataclass(frozen=True)
class ModelOptions:
    """The models to serve: those of a config file, else a single one."""

    config_file: str = _flag(
        "model_config_file", "", "The models to serve: a ModelServerConfig in protobuf text format."
    )
    name: str = _flag(
        "model_name",
        "",
        'Name of the model, if there is no --model_config_file; "default" if empty.',
        convert=lambda name: name or "default",
    )
    base_path: str = _flag(
        "model_base_path", "", "Directory with the versions of the model, if there is no --model_config_file."
    )
    models_dir: Path | None = _flag(  # noqa: RUF009 - a field, not a value
        "models_dir",
        "",
        "Directory to use in place of /models in base paths.",
        own=True,
        convert=lambda path: Path(path).absolute() if path else None,
    )
    labels_for_unavailable: bool = _flag(
        "allow_version_labels_for_unavailable_models",
        False,
        "Let a version label name a version that is not available yet. Needed to start with a config file "
        "that has labels.",
    )


@dataclass(frozen=True)
class PollOptions:
    """Intervals of polling, in seconds; 0 or less disables it."""

    file_system: float = _flag(
        "file_system_poll_wait_seconds", 1, "Seconds between checks for versions; 0 checks at startup only."
    )
    config: float = _flag(
        "model_config_file_poll_wait_seconds",
        0,
        "Seconds between reads of the file; 0 reads it at startup only.",
    )


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded. Only errors that may go away are retried."""

    threads: int = _flag(
        "num_load_threads",
        0,
        "Number of versions that load at the same time; 0 means one for each CPU.",
        convert=lambda threads: max(1, threads or CPUS),
    )
    max_retries: int = _flag(
        "max_num_load_retries", 5, "Number of retries of a failed load, if a retry can help."
    )
    retry_seconds: float = _flag(
        "load_retry_interval_micros",
        60_000_000,
        "Microseconds to wait before a load is retried.",
        convert=lambda micros: micros / 1e6,
    )


@dataclass(frozen=True)
class InferenceOptions:
    """How requests run, on either API."""

    max_threads: int = _flag(
        "grpc_max_threads", 4 * CPUS, "Number of requests for one model that run at the same time."
    )
    check_method_names: bool = _flag(
        "enable_signature_method_name_check",
        False,
        "Check that a signature is meant for the method of a request.",
    )


@dataclass(frozen=True)
class BatchingOptions:
    """Whether and how requests are joined into batches."""

    enabled: bool = _flag("enable_batching", False, "Join concurrent requests into batches.")
    parameters_file: str = _flag(
        "batching_parameters_file",
        "",
        "Batch sizes and limits: a BatchingParameters in protobuf text format.",
    )
    per_model: bool = _flag(
        "enable_per_model_batching_parameters",
        False,
        "Batch only versions that contain a batching_params.pbtxt, with the parameters in it; the number of "
        "threads still comes from --batching_parameters_file.",
    )


@dataclass(frozen=True)
class RuntimeOptions:
    """How TensorFlow runs models."""

    tags: tuple[str, ...] = _flag(
        "saved_model_tags",
        "",
        'Tags of the graph to load, separated by commas; "serve" if empty.',
        convert=lambda tags: tuple(filter(None, tags.split(","))) or ("serve",),
    )
    session_parallelism: int = _flag(
        "tensorflow_session_parallelism", 0, "Default of the next two flags; ignored if one of them is given."
    )
    intra_op_parallelism: int = _flag(
        "tensorflow_intra_op_parallelism", 0, "Threads that one operation can use; 0: TensorFlow chooses."
    )
    inter_op_parallelism: int = _flag(
        "tensorflow_inter_op_parallelism", 0, "Operations of one request that run concurrently; 0: one."
    )
    gpu_memory_fraction: float = _flag(
        "per_process_gpu_memory_fraction", 0.0, "Part of the memory of each GPU to allocate; 0: as needed."
    )
    xla_cpu: bool = _flag(
        "xla_cpu_compilation_enabled",
        False,
        "Compile with XLA for CPUs what a model asks to compile (jit_compile); otherwise such requests fail.",
    )
    xla_gpu: bool = _flag("xla_gpu_compilation_enabled", False, "Compile with XLA for CPUs and GPUs.")
    xla_auto_jit: bool = _flag(
        "xla_auto_jit",
        False,
        "Also compile the other operations of all models with XLA (auto-clustering): those on GPUs, and with "
        "--xla_cpu_compilation_enabled those on the CPU.",
        own=True,
    )
    warmup: bool = _flag(
        "enable_model_warmup", True, "Replay the warmup records of a version before it becomes available."
    )
    warmup_iterations: int = _flag(
        "num_request_iterations_for_warmup",
        0,
        "Number of times that each warmup record is replayed; 0 means once.",
        convert=lambda iterations: max(1, iterations),
    )

    # model_servers/server.cc: the one counts only if neither of the two is given

    @property
    def intra_op_threads(self) -> int:
        """Threads that one operation can use; 0 leaves the number to TensorFlow."""
        return self.intra_op_parallelism or (0 if self.inter_op_parallelism else self.session_parallelism)

    @property
    def inter_op_threads(self) -> int:
        """Threads for the operations of one request; 0 runs them one by one in the caller's thread."""
        return self.inter_op_parallelism or (0 if self.intra_op_parallelism else self.session_parallelism)


@dataclass(frozen=True)
class ObservabilityOptions:
    """Metrics and the access log."""

    monitoring_config_file: str = _flag(
        "monitoring_config_file", "", "Serve metrics on the REST port: a MonitoringConfig in text format."
    )
    access_log: str = _flag(
        "access_log", "", "File to append one line of JSON per request to; -: standard output.", own=True
    )


@dataclass(frozen=True)
class LimitOptions:
    """What callers can occupy. A timeout of 0 or less means none."""

    max_connections: int = _flag(
        "max_connections",
        1000,
        "Number of connections of each API, over gRPC of each address and of the UNIX socket; fewer if the "
        "limit of file descriptors is too low. Beyond it, a new REST connection replaces the one that has "
        "been idle longest; a new gRPC connection is closed.",
        own=True,
    )
    idle_timeout_in_ms: int = _flag(
        "idle_timeout_in_ms",
        600_000,
        "Milliseconds after which a connection without requests is closed, and after which a gRPC request "
        "fails whose message has not arrived, or whose response was not read to its end.",
        own=True,
    )
    head_timeout_in_ms: int = _flag(
        "head_timeout_in_ms",
        10_000,
        "Milliseconds for the head of a REST request, and for the handshake of a gRPC connection.",
        own=True,
    )
    body_timeout_in_ms: int = _flag(
        "rest_api_body_timeout_in_ms",
        30_000,
        "Milliseconds in which a REST client must send each 256 KiB of a body, and read each of a response.",
        own=True,
    )
    max_concurrent_streams: int = _flag(
        "grpc_max_concurrent_streams",
        100,
        "Number of requests in flight on one gRPC connection; further ones wait in the client.",
        own=True,
    )
    max_queued_requests: int = _flag(
        "max_queued_requests",
        1000,
        "Number of requests for one model that wait or run; further ones fail with RESOURCE_EXHAUSTED.",
        own=True,
    )
    max_queued_bytes: int = _flag(
        "max_queued_bytes",
        1 << 30,
        "Bytes of the requests for one model that wait or run; further ones fail with RESOURCE_EXHAUSTED.",
        own=True,
    )
    max_message_fields: int = _flag(
        "grpc_max_message_fields",
        1_000_000,
        "Number of fields, such as examples, in a gRPC message of more than 256 KiB. Four strings count as "
        "one; the numbers of a tensor are one.",
        own=True,
    )
    max_filled_bytes: int = _flag(
        "max_filled_bytes",
        FillLimit.bytes,
        "Maximum bytes of the tensors of a gRPC request that have fewer values than their shapes; their "
        "missing values repeat the last one.",
        own=True,
    )
    max_body_bytes: int = _flag(
        "rest_api_max_body_bytes",
        100 << 20,
        "Maximum bytes of the body of a REST request, as sent and after decompression.",
        own=True,
    )
    max_json_values: int = _flag(
        "rest_api_max_json_values",
        1 << 22,
        "Maximum number of values in the body of a REST request: numbers, strings and keys count as 1, lists "
        "and objects as 4. Does not apply to the numbers of a single rectangular array.",
        own=True,
    )


@dataclass(frozen=True)
class ServerOptions:
    """All options of the server. `ServerOptions()` has the defaults.

    Attributes:
        print_version: whether to print the version and exit.
        ignored: names of the flags that were given and have no effect.
    """

    listen: ListenOptions = field(default_factory=ListenOptions, metadata={"title": "addresses"})
    grpc: GrpcOptions = field(default_factory=GrpcOptions, metadata={"title": "gRPC API"})
    rest: RestOptions = field(default_factory=RestOptions, metadata={"title": "REST API"})
    models: ModelOptions = field(default_factory=ModelOptions, metadata={"title": "models"})
    polling: PollOptions = field(default_factory=PollOptions, metadata={"title": "polling"})
    loading: LoadOptions = field(default_factory=LoadOptions, metadata={"title": "loading"})
    inference: InferenceOptions = field(default_factory=InferenceOptions, metadata={"title": "inference"})
    batching: BatchingOptions = field(default_factory=BatchingOptions, metadata={"title": "batching"})
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions, metadata={"title": "TensorFlow runtime"})
    observability: ObservabilityOptions = field(
        default_factory=ObservabilityOptions, metadata={"title": "observability"}
    )
    limits: LimitOptions = field(default_factory=LimitOptions, metadata={"title": "limits"})
    print_version: bool = False
    ignored: tuple[str, ...] = ()
