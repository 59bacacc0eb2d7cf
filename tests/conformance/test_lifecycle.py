"""Versions, configs, labels and warmup of a running server over time, which the recorded cases do not cover.

The behaviour of tensorflow_model_server 2.20.0 was measured or is in its source: server_core.cc for reloads
and labels, file_system_storage_path_source.cc for versions.
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


class Repository:
    """A directory with models and a models.config."""

    def __init__(self, directory, versioned_model):
        self.directory = directory
        self.model = versioned_model
        self.file = directory / "models.config"

    def base_path(self, model):
        return self.directory / model

    def publish(self, model, *versions):
        for version in versions:
            self.model.publish(self.base_path(model), version)

    def entry(self, model, more=""):
        where = f'base_path: "{self.base_path(model)}" model_platform: "tensorflow"'
        return f'config {{ name: "{model}" {where} {more} }}'

    def config(self, *entries):
        return f"model_config_list {{ {' '.join(entries)} }}"

    def write(self, text):
        # The server must not read a part of it.
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    def serve(self, *flags):
        return embedded(self.directory / "log", f"--model_config_file={self.file}", *flags)

    def fail_to_start(self, *flags):
        """Start a server, assert that it exits with an error but without a traceback, and return its log."""
        command = [sys.executable, "-m", "tfserving.server", "--host=127.0.0.1", "--port=0"]
        command += [f"--model_config_file={self.file}", *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START, check=False)
        assert done.returncode > 0
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def repository(tmp_path, versioned_model):
    return Repository(tmp_path, versioned_model)


def fetch_states(client, model):
    """Return versions and their states in the order of the response."""
    return [(one.version, one.state) for one in client.status(model)]


def available_versions(client, model):
    try:
        return [version for version, state in fetch_states(client, model) if state == "AVAILABLE"]
    except NotFoundError:
        return []


def responding_version(client, model, **spec):
    """Return the version that responds to a prediction."""
    return round(float(client.predict([1.0], model, **spec)["y"][0]))


def test_loads_new_versions_and_unloads_removed_ones(repository, eventually):
    repository.publish("m", 1)
    repository.publish("m.hidden", 9)
    repository.write(repository.config(repository.entry("m")))
    with repository.serve(*POLLS) as server, TfRpcClient(server.grpc) as client:
        assert fetch_states(client, "m") == [(1, "AVAILABLE")]
        shutil.copytree(repository.base_path("m") / "1", repository.base_path("m") / "v7")
        shutil.copytree(repository.base_path("m") / "1", repository.base_path("m") / "8.0")
        repository.publish("m", 2)
        eventually(lambda: fetch_states(client, "m") == [(2, "AVAILABLE"), (1, "END")])
        assert responding_version(client, "m") == 2
        with pytest.raises(NotFoundError):
            responding_version(client, "m", version=1)
        shutil.rmtree(repository.base_path("m") / "2")
        eventually(lambda: fetch_states(client, "m") == [(2, "END"), (1, "AVAILABLE")])
        # While the base path is missing, the version stays available, even when the config changes.
        repository.base_path("m").rename(repository.base_path("m.away"))
        repository.publish("other", 3)
        repository.write(repository.config(repository.entry("m"), repository.entry("other")))
        eventually(lambda: available_versions(client, "other") == [3])
        assert responding_version(client, "m") == 1
        repository.base_path("m.away").rename(repository.base_path("m"))
        shutil.rmtree(repository.base_path("m") / "1")
        eventually(lambda: available_versions(client, "m") == [])
        with pytest.raises(NotFoundError):
            responding_version(client, "m")


def test_applies_a_changed_config_file_and_ignores_a_broken_one(repository, eventually):
    repository.publish("m", 1, 2, 3)
    repository.publish("n", 5)
    repository.write(repository.config(repository.entry("m")))
    with repository.serve(*POLLS) as server, TfRpcClient(server.grpc) as client:
        assert available_versions(client, "m") == [3]
        repository.write(repository.config(repository.entry("m", "model_version_policy { all {} }")))
        eventually(lambda: available_versions(client, "m") == [3, 2, 1])
        # A version that is not on disk is ignored.
        repository.write(
            repository.config(repository.entry("m", "model_version_policy { specific { versions: [2, 7] } }"))
        )
        eventually(lambda: available_versions(client, "m") == [2])
        log_size = server.log.stat().st_size
        repository.write("model_config_list { config {")
        eventually(lambda: "Error parsing text-format" in server.log.read_text()[log_size:])
        assert available_versions(client, "m") == [2]
        repository.write(repository.config(repository.entry("n")))
        eventually(lambda: available_versions(client, "n") == [5] and available_versions(client, "m") == [])
        with pytest.raises(NotFoundError):
            responding_version(client, "m")


def test_a_reload_replaces_the_list_of_models(repository, eventually):
    repository.publish("m", 1)
    repository.publish("n", 5)
    repository.write(repository.config(repository.entry("m")))
    with repository.serve() as server, TfRpcClient(server.grpc) as client:
        client.reload_config(repository.config(repository.entry("m"), repository.entry("n")))
        # A new model is available when the call returns.
        assert (responding_version(client, "m"), responding_version(client, "n")) == (1, 5)
        with pytest.raises(InvalidInputError):
            client.reload_config(messages.ModelServerConfig())
        with pytest.raises(TfServingError):
            client.reload_config(RELATIVE)
        assert (responding_version(client, "m"), responding_version(client, "n")) == (1, 5)
        client.reload_config(repository.config(repository.entry("n")))
        eventually(lambda: available_versions(client, "m") == [])
        assert responding_version(client, "n") == 5
        client.reload_config("model_config_list {}")
        eventually(lambda: available_versions(client, "n") == [])


def test_a_label_in_use_moves_only_to_an_available_version(repository):
    repository.publish("m", 1, 2)
    every = "model_version_policy { all {} }"
    stable = f'{every} version_labels {{ key: "stable" value: 1 }}'
    repository.write(repository.config(repository.entry("m", stable)))
    assert LABELS in repository.fail_to_start()
    with repository.serve(LABELS) as server, TfRpcClient(server.grpc) as client:
        assert responding_version(client, "m", label="stable") == 1
        client.reload_config(repository.config(repository.entry("m", stable.replace("1", "2"))))
        assert responding_version(client, "m", label="stable") == 2
        # A label that is not in use may be set before its version is available.
        early = f'{every} version_labels {{ key: "canary" value: 9 }}'
        client.reload_config(repository.config(repository.entry("m", early)))
        for label in ("canary", "stable"):
            with pytest.raises(TfServingError):
                responding_version(client, "m", label=label)
        # A label in use may not.
        client.reload_config(repository.config(repository.entry("m", stable)))
        with pytest.raises(FailedPreconditionError):
            client.reload_config(repository.config(repository.entry("m", stable.replace("1", "9"))))
        assert responding_version(client, "m", label="stable") == 1


def test_loads_a_version_that_failed_once_its_copy_is_complete(repository, eventually):
    repository.publish("m", 1)
    repository.write(repository.config(repository.entry("m")))
    with repository.serve(*POLLS) as server, TfRpcClient(server.grpc) as client:
        complete = repository.model.publish(repository.directory / "staged", 2)
        partial = repository.base_path("m") / "2"
        partial.mkdir()
        graph = (complete / "saved_model.pb").read_bytes()
        (partial / "saved_model.pb").write_bytes(graph[: len(graph) // 2])
        eventually(lambda: (2, "END") in fetch_states(client, "m"))
        assert responding_version(client, "m") == 1
        shutil.copytree(complete, partial, dirs_exist_ok=True)
        eventually(lambda: available_versions(client, "m") == [2])
        assert responding_version(client, "m") == 2


def make_warmup_requests(name):
    return [predict.encode_request(ModelSpec("m"), {name: np.ones(2, np.float32)})] * 2


def test_a_version_whose_warmup_fails_is_not_served(repository, eventually):
    repository.publish("m", 1)
    write_warmup(repository.base_path("m") / "1", make_warmup_requests("x"))
    repository.write(repository.config(repository.entry("m")))
    with repository.serve(*POLLS, "--max_num_load_retries=0") as server, TfRpcClient(server.grpc) as client:
        assert responding_version(client, "m") == 1
        # The available version stays.
        bad = repository.model.publish(repository.directory / "staged", 2)
        write_warmup(bad, make_warmup_requests("no such input"))
        shutil.move(bad, repository.base_path("m") / "2")
        eventually(lambda: (2, "END") in fetch_states(client, "m"))
        assert available_versions(client, "m") == [1]
        assert responding_version(client, "m") == 1
    # The server does not start if it is the only version.
    shutil.rmtree(repository.base_path("m") / "1")
    assert "no such input" in repository.fail_to_start("--max_num_load_retries=0")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model_config_list { config {", "Error parsing text-format tensorflow.serving.ModelServerConfig: "),
        (RELATIVE, "absolute"),
    ],
)
def test_does_not_start_with_an_invalid_config(repository, config, message):
    repository.write(config)
    assert message in repository.fail_to_start()
