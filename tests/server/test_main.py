"""The order of things: the server in a process of its own, with models that are no SavedModels."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from tfserving.errors import UnavailableError
from tfserving.server import flags, main
from tfserving.server.core.manager import LoadOptions
from tfserving.server.observability.observers import Observation
from tfserving.server.runtime.saved_model import RuntimeOptions

HERE = Path(__file__).parent

SERVER = """
import sys, threading
from tests.server.fake_loader import FakeServable
from tfserving.errors import RepositoryError
from tfserving.server import main

def load(model, version, path, **_):
    if model == "broken":
        raise RepositoryError("half-copied")
    if model == "endless":
        threading.Event().wait()
    return FakeServable(version)

main.load = load
main.GRACE_SECONDS = 0.5
sys.exit(main.main(sys.argv[1:]))
"""


def models(tmp_path, *names):
    """A configuration of models with a version each, long complete."""
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


def serve(*flags):
    """The process, once it has ended by itself."""
    return subprocess.run(
        [sys.executable, "-c", SERVER, "--host=127.0.0.1", "--port=0", *flags],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_model_that_cannot_be_loaded_ends_the_start(tmp_path):
    ended = serve(*models(tmp_path, "good", "broken"))
    assert ended.returncode == 255
    assert "cannot start: model 'broken': no version could be loaded: half-copied" in ended.stderr


def test_a_start_that_failed_is_no_success_because_another_load_goes_on(tmp_path):
    ended = serve(*models(tmp_path, "broken", "endless"))
    assert ended.returncode == 255
    assert "cannot start: model 'broken'" in ended.stderr


@pytest.mark.parametrize("flag", ["ssl_config_file", "monitoring_config_file", "batching_parameters_file"])
def test_a_file_that_does_not_parse_ends_the_start_however_the_models_are_named(flag, tmp_path):
    bad = tmp_path / "bad"
    bad.write_text("no {")
    for named in (models(tmp_path, "good"), [f"--model_base_path={tmp_path / 'good'}"]):
        ended = serve(f"--{flag}={bad}", "--enable_batching", *named)
        assert (ended.returncode, "cannot start: " in ended.stderr) == (255, True)


class Recorded:
    """Stands for the manager; remembers what it is made of."""

    def __init__(self, load, options):
        self.load, self.options = load, options


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], RuntimeOptions()),
        (["--saved_model_tags=serve,gpu"], RuntimeOptions(tags=("serve", "gpu"))),
        (["--tensorflow_intra_op_parallelism=3"], RuntimeOptions(intra_op_threads=3)),
        (["--tensorflow_inter_op_parallelism=3"], RuntimeOptions(inter_op_threads=3)),
        (["--tensorflow_session_parallelism=3"], RuntimeOptions(intra_op_threads=3, inter_op_threads=3)),
        (
            ["--tensorflow_session_parallelism=3", "--tensorflow_intra_op_parallelism=2"],
            RuntimeOptions(intra_op_threads=2),
        ),
        (["--per_process_gpu_memory_fraction=0.5"], RuntimeOptions(gpu_memory_fraction=0.5)),
        (["--enable_model_warmup=false"], RuntimeOptions(warmup=False)),
        (["--num_request_iterations_for_warmup=3"], RuntimeOptions(warmup_iterations=3)),
    ],
    ids=repr,
)
def test_flags_reach_the_runtime(argv, expected, monkeypatch):
    monkeypatch.setattr(main, "Manager", Recorded)
    _, manager = main._core(flags.parse(argv)[0], dict, None)
    assert manager.load.keywords["options"] == expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], LoadOptions(flags.CPUS, 5, 60.0)),
        (["--num_load_threads=3"], LoadOptions(3, 5, 60.0)),
        (
            ["--max_num_load_retries=1", "--load_retry_interval_micros=500000"],
            LoadOptions(flags.CPUS, 1, 0.5),
        ),
    ],
)
def test_flags_reach_the_loads(argv, expected, monkeypatch):
    monkeypatch.setattr(main, "Manager", Recorded)
    assert main._core(flags.parse(argv)[0], dict, None)[1].options == expected


def test_flags_reach_the_batches(tmp_path, monkeypatch):
    parameters = tmp_path / "batching"
    parameters.write_text("max_batch_size { value: 5 }")
    argv = ["--enable_batching", f"--batching_parameters_file={parameters}"]
    monkeypatch.setattr(main, "Manager", Recorded)
    for flag, per_model in ([], False), (["--enable_per_model_batching_parameters"], True):
        load = main._core(flags.parse([*argv, *flag])[0], dict, None)[1].load
        assert (load.parameters.max_batch_size, load.per_model) == (5, per_model)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_port_that_another_server_took_while_this_one_loaded_is_an_error(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments, _ = flags.parse(["--host=127.0.0.1", f"--rest_api_port={port}"])
    with main._bound("127.0.0.1", port, "rest_api_port") as ours:
        with main._bound("127.0.0.1", port, "rest_api_port") as theirs:
            theirs.listen()
            with pytest.raises(UnavailableError, match=f"--rest_api_port={port} cannot be had"):
                run(main._start_rest(arguments, None, Observation(), ours))
