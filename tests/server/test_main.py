"""Startup and shutdown: the server in its own process, with fake servables instead of SavedModels."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.fuzz import corpus
from tests.server.certificates import certificate, quoted
from tests.server.fake_service import Running
from tfserving.server import main
from tfserving.server.batching.batching_servable import BatchingLoader
from tfserving.server.server_options import BatchingOptions, ServerOptions
from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec

HERE = Path(__file__).parent

SERVER = """
import sys, threading
from tests.server.fake_loader import FakeServable
from tfserving.errors import RepositoryError
from tfserving.server import main

class Stuck(FakeServable):
    def compute(self, *_):
        print("running", flush=True)
        threading.Event().wait()

def load(model, version, path, **_):
    if model == "broken":
        raise RepositoryError("half-copied")
    if model == "endless":
        print("loading", flush=True)
        threading.Event().wait()
    return Stuck(version) if model == "stuck" else FakeServable(version)

main.load = load
main.start_tensorflow = lambda options: None
main.GRACE_SECONDS = 0.5
sys.exit(main.main(sys.argv[1:]))
"""


def models(tmp_path, *names):
    """The flags for models with one complete version each."""
    for name in names:
        version = tmp_path / name / "1"
        version.mkdir(parents=True)
        (version / "saved_model.pb").write_bytes(b"graph")
        for path in (version / "saved_model.pb", version):
            os.utime(path, (0, 0))
    config = tmp_path / "models.config"
    config.write_text(
        "model_config_list {"
        + "".join(
            f'config {{ name: "{name}" base_path: "/models/{name}" model_platform: "tensorflow" }}'
            for name in names
        )
        + "}"
    )
    return [f"--models_dir={tmp_path}", f"--model_config_file={config}"]


@contextmanager
def started(*flags, **options):
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, "--host=127.0.0.1", *flags],
        cwd=HERE.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(*flags):
    """The exit code and standard error of a server that does not start."""
    with started("--port=0", *flags) as process:
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def wait_for_log(process, text):
    """What the process has logged up to the line that contains `text`."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{text!r} is not in the log: {''.join(lines)}")


def stop(process):
    """The exit code after SIGTERM, and what is logged from then on."""
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_a_model_that_cannot_be_loaded_exits_with_255(tmp_path):
    code, errors = run(*models(tmp_path, "good", "broken"))
    assert code == 255
    assert "cannot start: model 'broken': no version could be loaded: half-copied" in errors


def test_a_failed_start_exits_with_255_while_another_model_still_loads(tmp_path):
    code, errors = run(*models(tmp_path, "broken", "endless"))
    assert code == 255
    assert "cannot start: model 'broken'" in errors


@pytest.mark.parametrize("flag", ["ssl_config_file", "monitoring_config_file", "batching_parameters_file"])
def test_an_invalid_file_exits_with_255(flag, tmp_path):
    bad = tmp_path / "bad"
    bad.write_text("no {")
    for named in (models(tmp_path, "good"), [f"--model_base_path={tmp_path / 'good'}"]):
        code, errors = run(f"--{flag}={bad}", "--enable_batching", *named)
        assert (code, "cannot start: " in errors) == (255, True)


def test_an_access_log_that_cannot_be_opened_exits_with_255(tmp_path):
    code, errors = run(f"--access_log={tmp_path}", "--model_base_path=/models/m")
    assert (code, f"cannot start: --access_log={tmp_path}" in errors) == (255, True)


@pytest.mark.parametrize("base_path", ["s3://bucket/m", "gs://bucket/m"])
def test_a_base_path_in_another_file_system_exits_with_255(base_path, tmp_path):
    code, errors = run(f"--model_base_path={base_path}")
    assert code == 255
    assert (
        f'cannot start: --model_base_path: base_path "{base_path}" is a URI of another file system' in errors
    )
    flags = models(tmp_path, "good")
    config = tmp_path / "models.config"
    config.write_text(config.read_text().replace("/models/good", base_path))
    code, errors = run(*flags)
    assert code == 255
    assert (
        f'model "good" has base_path "{base_path}", a URI of a file system that servers cannot read' in errors
    )


def test_serves_a_base_path_that_is_a_file_uri(tmp_path):
    models(tmp_path, "good")
    flags = f"--rest_api_port={free_port()}", f"--model_base_path=file://{tmp_path}/good"
    with started("--port=0", *flags) as process:
        wait_for_log(process, "REST API listening")
        assert stop(process)[0] == 0


def test_serves_a_config_with_a_comment_in_another_encoding(tmp_path):
    flags = models(tmp_path, "good")
    config = tmp_path / "models.config"
    config.write_bytes("# 模型\n".encode("gbk") + config.read_bytes())
    with started("--port=0", f"--rest_api_port={free_port()}", *flags) as process:
        wait_for_log(process, "REST API listening")
        assert stop(process)[0] == 0


def test_invalid_flags_exit_with_2():
    code, errors = run("--model_base_path=/models/m", "--rest_api_port=70000")
    assert code == 2
    assert "--rest_api_port=70000 is not a valid port" in errors


def test_no_model_to_serve_exits_with_2():
    code, errors = run()
    assert code == 2
    assert "no model to serve" in errors


def test_the_version_exits_with_0():
    with started("--version") as process:
        assert "TensorFlow Serving toolkit" in process.communicate(timeout=60)[0]
        assert process.returncode == 0


def test_a_port_in_use_exits_with_255_before_models_load(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, errors = run(f"--rest_api_port={port}", *models(tmp_path, "endless"))
    assert code == 255
    assert f"cannot bind --rest_api_port={port} on 127.0.0.1" in errors


def test_ports_are_closed_while_models_load_and_sigterm_exits_with_0(tmp_path):
    port = free_port()
    with started("--port=0", f"--rest_api_port={port}", *models(tmp_path, "good", "endless")) as process:
        assert process.stdout.readline() == "loading\n"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=30)
        code, errors = stop(process)
    assert code == 0
    assert "stopped while the models were loading" in errors


def test_localhost_opens_both_apis_at_every_address_of_it(tmp_path):
    grpc_port, rest_port = free_port(), free_port()
    flags = ["--host=localhost", f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
    with started(*flags, *models(tmp_path, "good")) as process:
        wait_for_log(process, "REST API listening")
        reached = {}
        for port in (grpc_port, rest_port):
            reached[port] = []
            for host in ("127.0.0.1", "::1"):
                with suppress(OSError):
                    socket.create_connection((host, port), timeout=30).close()
                    reached[port].append(host)
    assert "127.0.0.1" in reached[grpc_port]
    assert reached[grpc_port] == reached[rest_port]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unloads_the_models_and_exits_with_0(tmp_path, number):
    port = free_port()
    with started("--port=0", f"--rest_api_port={port}", *models(tmp_path, "good")) as process:
        wait_for_log(process, "REST API listening")
        response = Running(port).send("POST", "/v1/models/good:predict", {"inputs": {"x": [2.0]}})
        assert json.loads(response.body)["outputs"]["y"] == [2.0]
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "model 'good' version 1: unloaded" in errors
    assert errors.splitlines()[-1].endswith("stopped")


def test_a_request_that_never_ends_does_not_keep_the_process(tmp_path):
    port = free_port()
    with started("--port=0", f"--rest_api_port={port}", *models(tmp_path, "stuck")) as process:
        wait_for_log(process, "REST API listening")

        def ask():
            with suppress(OSError):
                Running(port).send("POST", "/v1/models/stuck:predict", {"inputs": {"x": [2.0]}})

        caller = threading.Thread(target=ask)
        caller.start()
        assert process.stdout.readline() == "running\n"
        code, errors = stop(process)
        caller.join(30)
    assert code == 0
    assert "exiting without them" in errors


def test_a_load_that_never_ends_does_not_keep_the_process(tmp_path):
    flags = models(tmp_path, "good")
    port = free_port()
    polling = "--model_config_file_poll_wait_seconds=1"
    with started("--port=0", f"--rest_api_port={port}", polling, *flags) as process:
        wait_for_log(process, "REST API listening")
        new = tmp_path / "new"
        new.mkdir()
        models(new, "endless")
        (new / "endless").rename(tmp_path / "endless")
        (new / "models.config").rename(tmp_path / "models.config")
        assert process.stdout.readline() == "loading\n"
        code, errors = stop(process)
    assert code == 0
    assert "exiting without them" in errors


def test_batching_parameters_reach_the_loader(tmp_path):
    file = tmp_path / "batching"
    file.write_text("max_batch_size { value: 5 }")
    for per_model in (False, True):
        options = ServerOptions(batching=BatchingOptions(True, str(file), per_model))
        loader = main.servable_loader(options, None)
        assert isinstance(loader, BatchingLoader)
        assert (loader.parameters.max_batch_size, loader.per_model) == (5, per_model)


def test_warns_that_rest_is_plaintext_beside_grpc_with_client_certificates(tmp_path):
    cert, key = certificate()
    config = tmp_path / "ssl.config"
    config.write_text(
        f"server_key: {quoted(key)} server_cert: {quoted(cert)} custom_ca: {quoted(cert)} client_verify: true"
    )
    ports = [f"--port={free_port()}", f"--rest_api_port={free_port()}"]
    with started(f"--ssl_config_file={config}", *ports, *models(tmp_path, "good")) as process:
        log = wait_for_log(process, "is plaintext")
        assert "accepts clients without a certificate, although client_verify is set" in log
        assert stop(process)[0] == 0


def limit_descriptors(soft, hard):
    """A preexec_fn that sets the limits of file descriptors."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_do_not_shut_out_other_callers(tmp_path):
    grpc_port, rest_port = free_port(), free_port()
    flags = [f"--port={grpc_port}", f"--rest_api_port={rest_port}", *models(tmp_path, "good")]
    with started(*flags, preexec_fn=limit_descriptors(256, 256)) as process, ExitStack() as stack:
        wait_for_log(process, "REST API listening")
        for port in (rest_port, grpc_port):
            for _ in range(300):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        for _ in range(3):
            begun = time.monotonic()
            status = Running(rest_port).send("GET", "/v1/models/good").status
            assert (status, time.monotonic() - begun < 5) == (200, True)
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < 256
        stack.close()
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            grpc.channel_ready_future(channel).result(30)
        assert stop(process)[0] == 0


def test_500_connections_of_each_api_work_with_the_default_limit_of_descriptors(tmp_path):
    soft, hard = 1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"the hard limit of descriptors is {hard}")
    ports = free_port(), free_port()
    request = predict.encode_request(ModelSpec("good"), {"x": np.ones(1, np.float32)})
    calls = corpus.grpc_call(services.PREDICT.path, request), corpus.http_request("GET /v1/models/good")
    flags = [f"--port={ports[0]}", f"--rest_api_port={ports[1]}", *models(tmp_path, "good")]
    with started(*flags, preexec_fn=limit_descriptors(soft, hard)) as process:
        wait_for_log(process, "REST API listening")
        for port, call, expected in zip(ports, calls, (b"serving_default", b"AVAILABLE"), strict=True):
            with ExitStack() as stack:
                address = ("127.0.0.1", port)
                peers = [
                    stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(500)
                ]
                for peer in peers:
                    peer.sendall(call)
                for peer in peers:
                    assert expected in read_until(peer, expected)
        assert stop(process)[0] == 0


def read_until(peer, expected):
    """What a peer sends until it has sent the expected bytes or closes the connection."""
    response = b""
    while expected not in response and (more := peer.recv(1 << 16)):
        response += more
    return response
