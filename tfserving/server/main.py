"""The embedded server as a process: startup, main loop, shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import uvloop

from tfserving import __version__
from tfserving.errors import ConfigError, RepositoryError, TfServingError
from tfserving.repository.config import ModelConfig, ServerConfig, parse_config
from tfserving.repository.config_text import read_config_text
from tfserving.repository.versions import is_uri, resolve
from tfserving.server import flags
from tfserving.server.batching.batching_servable import BatchingLoader
from tfserving.server.batching.parameters import BatchingParameters, read_parameters
from tfserving.server.core.file_system_source import FileSystemSource
from tfserving.server.core.manager import ServableManager
from tfserving.server.core.servable import Loader
from tfserving.server.core.server_core import ServerCore
from tfserving.server.descriptors import fit_connections
from tfserving.server.grpc.grpc_api import GrpcApi
from tfserving.server.grpc.grpc_server import GrpcServer
from tfserving.server.log_format import LogFormatter
from tfserving.server.observability.metrics import Metrics
from tfserving.server.observability.observability import Observability
from tfserving.server.ports import BoundPort, bind
from tfserving.server.rest.rest_server import make_rest_server, open_port
from tfserving.server.runtime.malloc_tuning import limit_arenas
from tfserving.server.runtime.saved_model import load
from tfserving.server.runtime.tensorflow_process import start_tensorflow
from tfserving.server.server_options import ModelOptions, ServerOptions
from tfserving.server.service import Service
from tfserving.server.worker_pool import WorkerPools, run_in_new_thread

log = logging.getLogger(__name__)

# Exit code of tensorflow_model_server when it cannot start.
START_FAILED = 255
# Seconds that requests in flight have after SIGTERM; and then, what still runs while everything unloads.
GRACE_SECONDS = 10.0


def main(argv: list[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT, then end the process.

    The exit code is 0 after a signal, 2 for invalid flags, 255 if the server cannot start. Only
    `--version` returns.
    """
    options = flags.parse_flags(sys.argv[1:] if argv is None else argv)
    if options.print_version:
        print(f"TensorFlow Serving toolkit {__version__} (embedded server)")
        return 0
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in options.ignored:
        log.warning("--%s has no effect in the embedded server", name)
    # The startup messages of TensorFlow hide those of the server.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    limit_arenas()
    code = 0
    try:
        uvloop.run(serve(options))
    except TfServingError as error:
        log.error("cannot start: %s", error)
        code = START_FAILED
    except Exception:
        log.exception("the server failed")
        code = 1
    # The only way out: the interpreter would wait for loads that do not end, and for TensorFlow's cleanup.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


async def serve(options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        TfServingError: the server cannot start.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listen = options.listen
    with (
        closing(Observability(options.observability)) as observability,
        bind(listen.host, listen.grpc_port, "port") as grpc_port,
        bind(listen.host, listen.rest_port, "rest_api_port") as rest_port,
    ):
        # of REST, and of gRPC, which counts connections by address
        listeners = 1 + len(grpc_port.addresses if grpc_port else ()) + bool(options.grpc.socket_path)
        server = Server(options, observability, listeners)
        if not await server.load_models(stop):
            log.info("stopped while the models were loading")
            return
        await server.open_ports(grpc_port, rest_port)
        await stop.wait()
        await server.shut_down()


class Server:
    """Both APIs and the models behind them.

    Args:
        listeners: how many addresses will accept connections.

    Raises:
        ConfigError: a file that a flag names cannot be read or is invalid.
    """

    def __init__(self, options: ServerOptions, observability: Observability, listeners: int) -> None:
        metrics = observability.metrics
        connections = fit_connections(options.limits.max_connections, listeners)
        limits = replace(options.limits, max_connections=connections)
        read_config = config_reader(options.models)
        read_config()  # an invalid file is reported before anything is loaded
        self._runtime = options.runtime
        manager = ServableManager(servable_loader(options, metrics), options.loading)
        if metrics is not None:
            metrics.set_models(manager)
        settle = options.polling.file_system > 0
        self._core = ServerCore(
            manager,
            FileSystemSource(options.models.models_dir, settle=settle),
            read_config,
            poll=options.polling,
            labels_for_unavailable=options.models.labels_for_unavailable,
        )
        self._workers = WorkerPools(
            options.inference.max_threads, lambda name: name in manager.models(), limits
        )
        service = Service(manager, self._workers, check_method_names=options.inference.check_method_names)
        grpc_api = GrpcApi(
            service,
            limits,
            reload=self._core.reload,
            tensor_content=options.grpc.tensor_content,
            observers=observability.observers,
        )
        self._grpc_server = GrpcServer(grpc_api, options.grpc, self._core.availability, limits)
        self._ssl_config_file = options.grpc.ssl_config_file
        self._has_page = observability.page is not None
        self._rest_server = make_rest_server(
            service,
            options.rest,
            limits,
            observers=observability.observers,
            page=observability.page,
        )

    async def load_models(self, stop: asyncio.Event) -> bool:
        """Wait until every model is available; False if `stop` is set first.

        Raises:
            TfServingError: a model cannot be loaded, or a GPU that CUDA_VISIBLE_DEVICES names does not exist.
        """
        loading = asyncio.ensure_future(run_in_new_thread(self._load))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            return False
        await loading
        return True

    async def open_ports(self, grpc_port: BoundPort | None, rest_port: BoundPort | None) -> None:
        """Start to accept requests.

        Raises:
            UnavailableError: a port cannot be opened.
        """
        await self._grpc_server.start(grpc_port)
        if rest_port is not None:
            await open_port(self._rest_server, rest_port)
            if self._ssl_config_file:
                log.warning(
                    "the REST API at %s is plaintext%s: --ssl_config_file applies to gRPC only; omit "
                    "--rest_api_port, or let only a proxy with TLS connect to it",
                    rest_port.address,
                    " and accepts clients without a certificate, although client_verify is set"
                    if self._grpc_server.verifies_clients
                    else "",
                )
        elif self._has_page:
            log.warning(
                "--monitoring_config_file has no effect: metrics are served on the REST port, which is "
                "disabled; set --rest_api_port"
            )

    async def shut_down(self) -> None:
        """Let the requests in flight finish, then unload every model; neither takes longer than its grace."""
        log.info("shutting down: requests in flight have %g s to finish", GRACE_SECONDS)
        await asyncio.gather(self._grpc_server.stop(GRACE_SECONDS), self._rest_server.stop(GRACE_SECONDS))
        try:
            await asyncio.wait_for(run_in_new_thread(self._unload), GRACE_SECONDS)
        except asyncio.TimeoutError:
            log.warning("requests or loads still run after another %g s; exiting without them", GRACE_SECONDS)
        else:
            log.info("stopped")

    def _load(self) -> None:
        start_tensorflow(self._runtime)
        self._core.start()

    def _unload(self) -> None:
        self._core.stop()
        self._workers.shut_down()


def config_reader(models: ModelOptions) -> Callable[[], ServerConfig]:
    """A function that returns the models to serve; it reads the config file on each call.

    Raises (the function):
        ConfigError: the file cannot be read or is invalid.
    """
    if not models.config_file:
        base_path = models.base_path
        if not (models.models_dir or is_uri(base_path)):
            base_path = os.path.abspath(base_path)
        try:
            resolve(base_path, models.models_dir)
        except RepositoryError as error:
            raise ConfigError(f"--model_base_path: {error}") from error
        config = ServerConfig((ModelConfig(models.name, base_path),))
        return lambda: config
    path = Path(models.config_file)

    def read() -> ServerConfig:
        try:
            return parse_config(read_config_text(path), str(path))
        except OSError as error:
            raise ConfigError(f"--model_config_file={path}: {error}") from error

    return read


def servable_loader(options: ServerOptions, metrics: Metrics | None) -> Loader:
    """The loader of SavedModels, with batching if it is enabled.

    Raises:
        ConfigError: the batching parameters file cannot be read or is invalid.
    """
    loader = partial(load, options=options.runtime, metrics=metrics.runtime if metrics else None)
    batching = options.batching
    if not batching.enabled:
        return loader
    path = batching.parameters_file
    parameters = read_parameters(path) if path else BatchingParameters()
    return BatchingLoader(loader, parameters, metrics.batching if metrics else None, batching.per_model)
