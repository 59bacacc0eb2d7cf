"""python -m tfserving.server: start, serve until told to stop, drain, stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvloop
from aiohttp import web

from tfserving import __version__
from tfserving.errors import ConfigError, InvalidInputError, TfServingError, UnavailableError
from tfserving.repository.config import ModelConfig, ServerConfig, parse
from tfserving.server import flags
from tfserving.server.batching import BatchingLoader, BatchingParameters, read_parameters
from tfserving.server.core.file_system_source import FileSystemSource
from tfserving.server.core.manager import LoadOptions, Manager
from tfserving.server.core.servable import Loader
from tfserving.server.core.server_core import PollOptions, ServerCore
from tfserving.server.grpc.grpc_api import GrpcApi
from tfserving.server.grpc.grpc_server import GrpcOptions, GrpcServer, read_ssl_config
from tfserving.server.observability.metrics import Metrics
from tfserving.server.observability.observers import Observation, observation
from tfserving.server.rest.rest_api import RestOptions
from tfserving.server.rest.rest_server import rest_runner
from tfserving.server.runtime.saved_model import RuntimeOptions, load
from tfserving.server.service import Service
from tfserving.server.worker_pool import Workers

log = logging.getLogger(__name__)

# What stops the real server at its start ends it with this code.
START_FAILED = 255
# Seconds that calls in flight get after SIGTERM.
GRACE_SECONDS = 10.0


def main(argv: list[str] | None = None) -> int:
    """Runs the server; returns 0 after SIGTERM or SIGINT, 2 for misuse, 255 when it cannot start."""
    arguments, idle = flags.parse(sys.argv[1:] if argv is None else argv)
    if arguments.version:
        print(f"TensorFlow Serving toolkit {__version__} (embedded server)")
        return 0
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03d %(levelname)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )
    for name in idle:
        log.warning("--%s has no effect in the embedded server", name)
    # TensorFlow's own start-up messages would drown what matters; whoever wants them sets the variable.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        read_config = _config_reader(arguments)
        read_config()
        uvloop.run(_serve(arguments, read_config))
    except TfServingError as error:
        log.error("cannot start: %s", error)
        misuse = type(error) is InvalidInputError and not arguments.model_config_file
        return 2 if misuse else START_FAILED
    return 0


def _config_reader(arguments: argparse.Namespace) -> Callable[[], ServerConfig]:
    """What gives the configuration: the file each time anew, or the one model of the flags."""
    if arguments.model_config_file:
        path = Path(arguments.model_config_file)

        def read() -> ServerConfig:
            try:
                return parse(path.read_text(encoding="utf-8"), str(path))
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"--model_config_file={path}: {error}") from error

        return read
    if not arguments.model_base_path:
        raise InvalidInputError(
            "name what to serve: --model_config_file, or --model_name and --model_base_path"
        )
    base_path = arguments.model_base_path
    if not arguments.models_dir:
        base_path = os.path.abspath(base_path)
    config = ServerConfig((ModelConfig(arguments.model_name or "default", base_path),))
    return lambda: config


def _batching(arguments: argparse.Namespace, loader: Loader, metrics: Metrics | None) -> Loader:
    """The loader, with batching around it when that is asked for."""
    if not arguments.enable_batching:
        return loader
    path = arguments.batching_parameters_file
    parameters = read_parameters(path) if path else BatchingParameters()
    counted = metrics.batching if metrics else None
    return BatchingLoader(loader, parameters, counted, arguments.enable_per_model_batching_parameters)


def _core(
    arguments: argparse.Namespace, read_config: Callable[[], ServerConfig], metrics: Metrics | None
) -> tuple[ServerCore, Manager]:
    # server.cc of the real server: the one counts only where none of the two is given
    threads = arguments.tensorflow_intra_op_parallelism, arguments.tensorflow_inter_op_parallelism
    intra_op, inter_op = threads if any(threads) else (arguments.tensorflow_session_parallelism,) * 2
    runtime = RuntimeOptions(
        tags=tuple(filter(None, arguments.saved_model_tags.split(","))) or RuntimeOptions.tags,
        intra_op_threads=intra_op,
        inter_op_threads=inter_op,
        gpu_memory_fraction=arguments.per_process_gpu_memory_fraction,
        warmup=arguments.enable_model_warmup,
        warmup_iterations=arguments.num_request_iterations_for_warmup or 1,
    )
    loader = partial(load, options=runtime, metrics=metrics.runtime if metrics else None)
    manager = Manager(
        _batching(arguments, loader, metrics),
        LoadOptions(
            threads=arguments.num_load_threads or flags.CPUS,
            max_retries=arguments.max_num_load_retries,
            retry_seconds=arguments.load_retry_interval_micros / 1e6,
        ),
    )
    if metrics is not None:
        metrics.watch(manager)
    models_dir = Path(arguments.models_dir).absolute() if arguments.models_dir else None
    core = ServerCore(
        manager,
        FileSystemSource(models_dir, settle=arguments.file_system_poll_wait_seconds > 0),
        read_config,
        poll=PollOptions(
            arguments.file_system_poll_wait_seconds, arguments.model_config_file_poll_wait_seconds
        ),
        labels_for_unavailable=arguments.allow_version_labels_for_unavailable_models,
    )
    return core, manager


async def _serve(arguments: argparse.Namespace, read_config: Callable[[], ServerConfig]) -> None:
    """Startup, main loop, shutdown."""
    watching = observation(arguments.monitoring_config_file, arguments.access_log)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    with _bound(arguments.host, arguments.port, "port") as grpc_socket:
        with _bound(arguments.host, arguments.rest_api_port, "rest_api_port") as rest_socket:
            core, manager = _core(arguments, read_config, watching.metrics)
            workers = Workers(
                arguments.grpc_max_threads,
                lambda name: name in manager.models(),
                batching=arguments.enable_batching,
            )
            service = Service(
                manager, workers, check_method_names=arguments.enable_signature_method_name_check
            )
            grpc_server = _grpc_server(arguments, service, core, watching)
            failure: TfServingError | None = None
            try:
                if await _started(core, stopping):
                    await grpc_server.start(grpc_socket)
                    rest_runner = await _start_rest(arguments, service, watching, rest_socket)
                    await stopping.wait()
                    log.info("stopping: calls in flight get %g s", GRACE_SECONDS)
                    await asyncio.gather(grpc_server.stop(GRACE_SECONDS), rest_runner.cleanup())
                else:
                    log.info("stopping: nothing was in service yet")
                    logging.shutdown()
                    os._exit(0)  # a load in progress cannot be broken off, and would be waited for
            except TfServingError as error:
                failure = error
                raise
            finally:
                watching.close()
                await _stop(core, workers, failure)


@contextmanager
def _bound(host: str, port: int, flag: str) -> Iterator[socket.socket | None]:
    """A socket that has a port but does not listen yet; None for port 0.

    The real server would share a taken gRPC port with its owner, and run on without REST. Of two servers that
    start at the same time both get the port here, and the one that listens first has it.

    Raises:
        UnavailableError: the port or the address cannot be had.
    """
    if not port:
        yield None
        return
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        raise _taken(host, port, flag, error) from error
    with bound:
        yield bound


def _taken(host: str, port: int, flag: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"--{flag}={port} cannot be had on {host}: {error}. Stop what uses it, or choose another port"
    )


async def _started(core: ServerCore, stopping: asyncio.Event) -> bool:
    """Waits until every model is in service; False when the server is told to stop first."""
    start = asyncio.ensure_future(asyncio.to_thread(core.start))
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if start.done():
        start.result()
        return True
    start.add_done_callback(lambda future: future.exception())
    return False


def _grpc_server(
    arguments: argparse.Namespace, service: Service, core: ServerCore, watching: Observation
) -> GrpcServer:
    options = GrpcOptions(
        host=arguments.host,
        port=arguments.port,
        socket_path=arguments.grpc_socket_path,
        ssl=read_ssl_config(arguments.ssl_config_file) if arguments.ssl_config_file else None,
        arguments=arguments.grpc_channel_arguments,
        health=arguments.enable_grpc_healthcheck_service,
    )
    api = GrpcApi(
        service,
        reload=core.reload,
        tensor_content=arguments.enable_serialization_as_tensor_content,
        observers=watching.observers,
    )
    return GrpcServer(api, options, core.availability)


async def _start_rest(
    arguments: argparse.Namespace, service: Service, watching: Observation, bound: socket.socket | None
) -> web.BaseRunner:
    options = RestOptions(
        timeout_in_ms=arguments.rest_api_timeout_in_ms, cors=arguments.rest_api_enable_cors_support
    )
    runner = rest_runner(
        service,
        options,
        shutdown_timeout=GRACE_SECONDS,
        observers=watching.observers,
        pages=watching.pages,
    )
    await runner.setup()
    if bound is not None:
        try:
            bound.listen()  # uvloop would say nothing if that failed
        except OSError as error:
            raise _taken(arguments.host, arguments.rest_api_port, "rest_api_port", error) from error
        await web.SockSite(runner, bound).start()
        log.info("REST API at http://%s:%d", arguments.host, arguments.rest_api_port)
    elif watching.pages:
        log.warning("--monitoring_config_file: metrics are on the REST port, which is off (--rest_api_port)")
    return runner


async def _stop(core: ServerCore, workers: Workers, failure: TfServingError | None) -> None:
    """Takes everything out of service; a call that never ends, or a load, does not keep the process.

    Then the process ends here, and `failure`, which would be told and turned into a code, must be here too.
    """

    done = threading.Event()

    def stop() -> None:
        core.stop()
        workers.close()
        done.set()

    # a daemon thread: the interpreter would wait for one of asyncio's own at exit
    threading.Thread(target=stop, name="stop", daemon=True).start()
    for _ in range(int(GRACE_SECONDS * 20)):
        if done.is_set():
            log.info("stopped")
            return
        await asyncio.sleep(0.05)
    log.warning("still busy %g s after the stop: ending all the same", GRACE_SECONDS)
    if failure is not None:
        log.error("cannot start: %s", failure)
    logging.shutdown()
    os._exit(0 if failure is None else START_FAILED)
