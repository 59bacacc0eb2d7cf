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
from tfserving.server.watch.observation import Observation

HERE = Path(__file__).parent

SERVER = """
import sys, threading
sys.path.insert(0, {here!r})
from fake_loader import FakeServable
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
        [sys.executable, "-c", SERVER.format(here=str(HERE)), "--host=127.0.0.1", "--port=0", *flags],
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
