"""What the recorded answers do not ask: versions, configs, labels and warmup over time, on a running server.

What the real server (2.20.0) does is known by measurement or from its source: server_core.cc for reloads and
labels, file_system_storage_path_source.cc for versions.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.embedded import ROOT, START, embedded
from tfserving.client import (
    FailedPreconditionError,
    InvalidInputError,
    NotFoundError,
    TfRpcClient,
    TfServingError,
)
from tfserving.repository.warmup_records import write_warmup
from tfserving.wire import messages, predict
from tfserving.wire.model_spec import ModelSpec

pytestmark = [pytest.mark.conformance, pytest.mark.tensorflow]

POLLS = ("--file_system_poll_wait_seconds=1", "--model_config_file_poll_wait_seconds=1")
RELATIVE = 'model_config_list { config { name: "m" base_path: "a/path" model_platform: "tensorflow" } }'
LABELS = "--allow_version_labels_for_unavailable_models=true"


class World:
    """A directory of models and a models.config."""

    def __init__(self, directory, times):
        self.directory = directory
        self.times = times
        self.file = directory / "models.config"

    def base_path(self, model):
        return self.directory / model

    def publish(self, model, *versions):
        for version in versions:
            self.times.publish(self.base_path(model), version)

    def entry(self, model, more=""):
        where = f'base_path: "{self.base_path(model)}" model_platform: "tensorflow"'
        return f'config {{ name: "{model}" {where} {more} }}'

    def config(self, *entries):
        return f"model_config_list {{ {' '.join(entries)} }}"

    def write(self, text):
        # a poll must not read half of it
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    def serve(self, *flags):
        return embedded(self.directory / "log", f"--model_config_file={self.file}", *flags)

    def refused(self, *flags):
        """The log of a server that must not start."""
        command = [sys.executable, "-m", "tfserving.server", "--host=127.0.0.1", "--port=0"]
        command += [f"--model_config_file={self.file}", *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START, check=False)
        assert done.returncode > 0
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def world(tmp_path, times):
    return World(tmp_path, times)


def states(client, model):
    """The versions that the server lists, in its order, with their states."""
    return [(one.version, one.state) for one in client.status(model)]


def in_service(client, model):
    try:
        return [version for version, state in states(client, model) if state == "AVAILABLE"]
    except NotFoundError:
        return []


def answering(client, model, **which):
    """The version that answers, as its answer tells."""
    return round(float(client.predict([1.0], model, **which)["y"][0]))


def test_versions_come_and_go(world, eventually):
    world.publish("m", 1)
    world.publish("m.hidden", 9)
    world.write(world.config(world.entry("m")))
    with world.serve(*POLLS) as server, TfRpcClient(server.grpc) as client:
        assert states(client, "m") == [(1, "AVAILABLE")]
        shutil.copytree(world.base_path("m") / "1", world.base_path("m") / "v7")
        shutil.copytree(world.base_path("m") / "1", world.base_path("m") / "8.0")
        world.publish("m", 2)
        eventually(lambda: states(client, "m") == [(2, "AVAILABLE"), (1, "END")])
        assert answering(client, "m") == 2
        with pytest.raises(NotFoundError):
            answering(client, "m", version=1)
        shutil.rmtree(world.base_path("m") / "2")
        eventually(lambda: states(client, "m") == [(2, "END"), (1, "AVAILABLE")])
        # without the base path what is served stays served, also when a new config comes
        world.base_path("m").rename(world.base_path("m.away"))
        world.publish("other", 3)
        world.write(world.config(world.entry("m"), world.entry("other")))
        eventually(lambda: in_service(client, "other") == [3])
        assert answering(client, "m") == 1
        world.base_path("m.away").rename(world.base_path("m"))
        # the last one goes too
        shutil.rmtree(world.base_path("m") / "1")
        eventually(lambda: in_service(client, "m") == [])
        with pytest.raises(NotFoundError):
            answering(client, "m")


def test_configs_are_polled(world, eventually):
    world.publish("m", 1, 2, 3)
    world.publish("n", 5)
    world.write(world.config(world.entry("m")))
    with world.serve(*POLLS) as server, TfRpcClient(server.grpc) as client:
        assert in_service(client, "m") == [3]
        world.write(world.config(world.entry("m", "model_version_policy { all {} }")))
        eventually(lambda: in_service(client, "m") == [3, 2, 1])
        # one that is not there is passed over
        world.write(world.config(world.entry("m", "model_version_policy { specific { versions: [2, 7] } }")))
        eventually(lambda: in_service(client, "m") == [2])
        said = server.log.stat().st_size
        world.write("model_config_list { config {")
        eventually(lambda: "Error parsing text-format" in server.log.read_text()[said:])
        assert in_service(client, "m") == [2]
        world.write(world.config(world.entry("n")))
        eventually(lambda: in_service(client, "n") == [5] and in_service(client, "m") == [])
        with pytest.raises(NotFoundError):
            answering(client, "m")


def test_a_reload_replaces_the_whole_list(world, eventually):
    world.publish("m", 1)
    world.publish("n", 5)
    world.write(world.config(world.entry("m")))
    with world.serve() as server, TfRpcClient(server.grpc) as client:
        client.reload_config(world.config(world.entry("m"), world.entry("n")))
        # a new model is in service when the call returns
        assert (answering(client, "m"), answering(client, "n")) == (1, 5)
        with pytest.raises(InvalidInputError):
            client.reload_config(messages.ModelServerConfig())
        with pytest.raises(TfServingError):
            client.reload_config(RELATIVE)
        assert (answering(client, "m"), answering(client, "n")) == (1, 5)
        client.reload_config(world.config(world.entry("n")))
        eventually(lambda: in_service(client, "m") == [])
        assert answering(client, "n") == 5
        client.reload_config("model_config_list {}")
        eventually(lambda: in_service(client, "n") == [])


def test_labels(world):
    world.publish("m", 1, 2)
    every = "model_version_policy { all {} }"
    stable = f'{every} version_labels {{ key: "stable" value: 1 }}'
    world.write(world.config(world.entry("m", stable)))
    assert LABELS in world.refused()
    with world.serve(LABELS) as server, TfRpcClient(server.grpc) as client:
        assert answering(client, "m", label="stable") == 1
        client.reload_config(world.config(world.entry("m", stable.replace("1", "2"))))
        assert answering(client, "m", label="stable") == 2
        # a label that is not in use may come before its version
        early = f'{every} version_labels {{ key: "canary" value: 9 }}'
        client.reload_config(world.config(world.entry("m", early)))
        for label in ("canary", "stable"):
            with pytest.raises(TfServingError):
                answering(client, "m", label=label)
        # one that is may not
        client.reload_config(world.config(world.entry("m", stable)))
        with pytest.raises(FailedPreconditionError):
            client.reload_config(world.config(world.entry("m", stable.replace("1", "9"))))
        assert answering(client, "m", label="stable") == 1


def test_a_version_that_was_copied_too_slowly_comes_when_it_is_whole(world, eventually):
    world.publish("m", 1)
    world.write(world.config(world.entry("m")))
    with world.serve(*POLLS) as server, TfRpcClient(server.grpc) as client:
        whole = world.times.publish(world.directory / "staged", 2)
        half = world.base_path("m") / "2"
        half.mkdir()
        graph = (whole / "saved_model.pb").read_bytes()
        (half / "saved_model.pb").write_bytes(graph[: len(graph) // 2])
        eventually(lambda: (2, "END") in states(client, "m"))
        assert answering(client, "m") == 1
        shutil.copytree(whole, half, dirs_exist_ok=True)
        eventually(lambda: in_service(client, "m") == [2])
        assert answering(client, "m") == 2


def records(name):
    return [predict.encode_request(ModelSpec("m"), {name: np.ones(2, np.float32)})] * 2


def test_warmup(world, eventually):
    world.publish("m", 1)
    write_warmup(world.base_path("m") / "1", records("x"))
    world.write(world.config(world.entry("m")))
    with world.serve(*POLLS, "--max_num_load_retries=0") as server, TfRpcClient(server.grpc) as client:
        assert answering(client, "m") == 1
        # a version whose warmup fails does not come, and the old one stays
        bad = world.times.publish(world.directory / "staged", 2)
        write_warmup(bad, records("no such input"))
        shutil.move(bad, world.base_path("m") / "2")
        eventually(lambda: (2, "END") in states(client, "m"))
        assert in_service(client, "m") == [1]
        assert answering(client, "m") == 1
    # and at the start it ends the server
    shutil.rmtree(world.base_path("m") / "1")
    assert "no such input" in world.refused("--max_num_load_retries=0")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("model_config_list { config {", "Error parsing text-format tensorflow.serving.ModelServerConfig: "),
        (RELATIVE, "absolute"),
    ],
)
def test_what_stops_the_start(world, config, says):
    world.write(config)
    assert says in world.refused()
