"""Operators: publish, remove and roll back versions, edit the config file, and reload it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import text_format

from tests.soak.expectations import Expectations, Served
from tests.soak.load_generators import TIMEOUT, connect
from tests.soak.results import Results
from tests.soak.workers import Worker
from tests.versioned_model import VersionedModel
from tfserving.server.core.servable_state import State
from tfserving.wire import messages, predict, services
from tfserving.wire.model_spec import ModelSpec

# Seconds in which the server must carry out a change.
_CHANGE_TIMEOUT = 90.0
# Seconds in which the server, which polls once a second, reads the config file and the base paths.
_POLLED = 2.5

# Versions on disk of the model "edited", and of the model "optional".
EDITED_VERSIONS = range(1, 6)
OPTIONAL_VERSION = 7


def model_config(name: str, base_path: Path | str, **fields: object) -> Any:
    """Make an entry of models.config."""
    return messages.ModelConfig(name=name, base_path=str(base_path), model_platform="tensorflow", **fields)


def server_config(models: Iterable[Any]) -> Any:
    """Make a models.config from its entries."""
    return messages.ModelServerConfig(model_config_list={"config": models})


class Operator(Worker):
    """Makes one change a step, and waits until the server has carried it out."""

    def __init__(self, name: str, results: Results, seed: int, grpc_address: str) -> None:
        super().__init__(name, results, seed)
        self._grpc = grpc_address

    def open(self) -> None:
        self._channel = connect(self._grpc)

    def step(self) -> None:
        change = self.rng.choice(self.changes())
        change()
        self.results.count(f"{self.kind}: {change.__name__.strip('_').replace('_', ' ')}")

    def changes(self) -> list[Callable[[], None]]:
        """Return the changes that are possible now; one that occurs twice is twice as likely."""
        raise NotImplementedError

    def close(self) -> None:
        self._channel.close()

    def wait_until_served(self, model: str, expectations: Expectations) -> None:
        """Wait until the server serves what is expected last, then allow nothing else."""
        served = expectations.latest
        self.wait_until(lambda: self._is_served(model, served), f"{model} to serve {served}")
        expectations.finish_change()

    def wait_until(self, condition: Callable[[], bool], description: str) -> None:
        """Poll a condition.

        Raises:
            TimeoutError: it did not become true in time.
        """
        deadline = time.monotonic() + _CHANGE_TIMEOUT
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {_CHANGE_TIMEOUT:g} s for {description}")
            time.sleep(0.05)

    def fetch_states(self, model: str) -> dict[int, tuple[int, str]]:
        """Return the state and the error message of each version; empty if the server has no such model."""
        request = messages.GetModelStatusRequest(model_spec={"name": model})
        call = self._channel.unary_unary(services.GET_MODEL_STATUS.path)
        try:
            data = call(request.SerializeToString(), timeout=TIMEOUT)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        statuses = messages.GetModelStatusResponse.FromString(data).model_version_status
        return {status.version: (status.state, status.status.error_message) for status in statuses}

    def _is_served(self, model: str, served: Served) -> bool:
        states = {version: state for version, (state, _) in self.fetch_states(model).items()}
        available = {version for version, state in states.items() if state == State.AVAILABLE}
        if available != served.versions or not set(states.values()) <= {State.AVAILABLE, State.END}:
            return False
        # GetModelStatus does not report labels.
        specs = [ModelSpec(model, label=label) for label in ("stable", "canary")]
        return all(self._resolve(spec) == served.resolve(spec) for spec in specs)

    def _resolve(self, spec: ModelSpec) -> int | str | None:
        """Return the version that responds to a request, or the status that rejects it."""
        request = predict.encode_request(spec, {"x": np.ones(1, np.float32)})
        try:
            data = self._channel.unary_unary(services.PREDICT.path)(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            return error.code().name
        return predict.decode_response(data)[0].version


class Publisher(Operator):
    """Changes the versions under the base path of a model with the default policy, latest 1."""

    def __init__(
        self,
        name: str,
        results: Results,
        seed: int,
        grpc_address: str,
        model: VersionedModel,
        base_path: Path,
        expectations: Expectations,
    ) -> None:
        super().__init__(name, results, seed, grpc_address)
        self._model = model
        self._base_path = base_path
        self._expectations = expectations
        self._on_disk = set(expectations.latest.versions)
        self._last = max(self._on_disk) + 1

    def changes(self) -> list[Callable[[], None]]:
        """Return the changes that are possible with the versions on disk."""
        changes = [*[self.swap_version] * 3, self._copy_slowly, self._publish_broken, self._move_base_path]
        if len(self._on_disk) > 1:
            changes += [self._roll_back] * 2
        if self.rng.random() < 0.3:
            changes += [self._remove_all_versions]
        return changes

    def swap_version(self) -> None:
        """Publish a version; half of the time, remove the older ones once it is available."""
        version = self._next_version()
        self._expect({version})
        self._model.publish(self._base_path, version)
        self._on_disk.add(version)
        self._wait_until_served()
        if self.rng.random() < 0.5:
            self._remove(self._on_disk - {version})

    def _copy_slowly(self) -> None:
        """Copy saved_model.pb last: the version must not be loaded before."""
        version = self._next_version()
        path = self._base_path / str(version)
        path.mkdir()
        for number in range(4):
            (path / f"part-{number}").write_bytes(b"x" * 1000)
            time.sleep(0.4)
        self._expect({version})
        (path / "saved_model.pb").write_bytes(self._model.graph(version))
        self._on_disk.add(version)
        self._wait_until_served()

    def _publish_broken(self) -> None:
        """Publish a version that cannot be loaded: the server must keep the current one."""
        version = self._next_version()
        path = self._model.publish_broken(self._base_path, version)
        name = self._base_path.name

        def has_error() -> bool:
            return bool(self.fetch_states(name).get(version, (0, ""))[1])

        self.wait_until(has_error, f"an error of {name} version {version}")
        shutil.rmtree(path)
        self._wait_until_served()

    def _roll_back(self) -> None:
        """Remove the newest version: the server must go back to the one before it."""
        newest = max(self._on_disk)
        self._expect({max(self._on_disk - {newest})})
        self._remove({newest})
        self._wait_until_served()

    def _remove_all_versions(self) -> None:
        """Remove all versions, then publish one."""
        self._expect(set())
        self._remove(set(self._on_disk))
        self._wait_until_served()
        self.swap_version()

    def _move_base_path(self) -> None:
        """Move the base path away and back: the server must keep what it serves."""
        elsewhere = self._base_path.with_name(f"{self._base_path.name} moved")
        self._base_path.rename(elsewhere)
        time.sleep(_POLLED)
        elsewhere.rename(self._base_path)
        self._wait_until_served()

    def _next_version(self) -> int:
        self._last += self.rng.randint(1, 3)
        return self._last

    def _expect(self, versions: set[int]) -> None:
        self._expectations.begin_change(Served(frozenset(versions)))

    def _wait_until_served(self) -> None:
        self.wait_until_served(self._base_path.name, self._expectations)

    def _remove(self, versions: set[int]) -> None:
        for version in versions:
            shutil.rmtree(self._base_path / str(version))
        self._on_disk -= versions


class Swapper(Publisher):
    """Swaps versions a number of times, then sets `done`."""

    def __init__(self, *args: Any, swaps: int) -> None:
        super().__init__(*args)
        self._swaps = swaps
        self.done = threading.Event()

    def step(self) -> None:
        if self._swaps:
            self._swaps -= 1
            self.swap_version()
        if not self._swaps:
            self.done.set()
            self.pause(60)


class ConfigEditor(Operator):
    """Edits the config file, breaks it, and sends configurations with HandleReloadConfigRequest.

    It changes what is served of two models: "edited", with versions 1 to 5 on disk, and "optional", which it
    adds and removes.
    """

    def __init__(
        self,
        name: str,
        results: Results,
        seed: int,
        grpc_address: str,
        file: Path,
        config: Any,
        expectations: dict[str, Expectations],
    ) -> None:
        super().__init__(name, results, seed, grpc_address)
        self._file = file
        self._models = {model.name: model for model in config.model_config_list.config}
        self._expectations = expectations
        self._optional = model_config("optional", file.parent / "optional")

    def changes(self) -> list[Callable[[], None]]:
        """Return all changes."""
        return [
            *[self._change_policy_and_labels] * 4,
            *[self._add_or_remove_a_model] * 2,
            self._reorder_models,
            self._break_file,
            self._move_file,
            self._send_impossible_reload,
            self._send_reload_that_the_file_reverts,
        ]

    def _change_policy_and_labels(self) -> None:
        every = tuple(EDITED_VERSIONS)
        samples = [tuple(sorted(self.rng.sample(every, size))) for size in (1, 2, 3)]
        policies: list[tuple[dict[str, object], tuple[int, ...]]] = [
            ({"latest": {"num_versions": 1}}, every[-1:]),
            ({"latest": {"num_versions": 2}}, every[-2:]),
            ({"all": {}}, every),
            *(({"specific": {"versions": sample}}, sample) for sample in samples),
        ]
        policy, versions = self.rng.choice(policies)
        before = self._expectations["edited"].latest
        labels = {}
        for label in ("stable", "canary"):
            # A label in use can move only to a version that is available already.
            possible = [one for one in versions if label not in before.labels or one in before.versions]
            if possible and self.rng.random() < 0.7:
                labels[label] = self.rng.choice(possible)
        self._expectations["edited"].begin_change(Served(frozenset(versions), labels))
        self._models["edited"] = model_config(
            "edited", self._models["edited"].base_path, model_version_policy=policy, version_labels=labels
        )
        self._apply()
        self.wait_until_served("edited", self._expectations["edited"])

    def _add_or_remove_a_model(self) -> None:
        expectations = self._expectations["optional"]
        if expectations.latest.versions:
            expectations.begin_change(Served())
            del self._models["optional"]
        else:
            expectations.begin_change(Served(frozenset({OPTIONAL_VERSION})))
            self._models["optional"] = self._optional
        self._apply()
        self.wait_until_served("optional", expectations)

    def _reorder_models(self) -> None:
        """Write the same models in another order: nothing must change."""
        names = list(self._models)
        self.rng.shuffle(names)
        self._models = {name: self._models[name] for name in names}
        self._apply()

    def _break_file(self) -> None:
        """Write a file that is invalid, truncated or empty: the server must keep the last configuration."""
        text = self._text()
        invalid = [text[: len(text) // 2], "", "\n# nothing\n", "{", "\xff\0", '{"model_config_list": {}}']
        invalid += ['model_config_list { config { name: "edited" base_path: "relative" } }']
        self._file.write_text(self.rng.choice(invalid), encoding="latin-1")
        time.sleep(_POLLED)
        self._write()

    def _move_file(self) -> None:
        """Move the file away and back: nothing must change."""
        elsewhere = self._file.with_name("moved.config")
        self._file.rename(elsewhere)
        time.sleep(_POLLED)
        elsewhere.rename(self._file)

    def _send_impossible_reload(self) -> None:
        """Send a reload that the server must reject or cannot complete; its next poll restores the file's."""
        models = list(self._models.values())
        missing, relative = self._file.parent / "missing", "missing"
        moved = model_config(models[0].name, "/other")
        expected, config = self.rng.choice(
            [
                ("DEADLINE_EXCEEDED", server_config([*models, model_config("missing", missing)])),
                ("INVALID_ARGUMENT", server_config([*models, model_config("missing", relative)])),
                ("INVALID_ARGUMENT", server_config([*models, moved])),
            ]
        )
        status = self._reload(config, timeout=1.0)
        if status != expected:
            self.results.fail(f"an impossible reload returned {status}, expected is {expected}")
        time.sleep(_POLLED)

    def _send_reload_that_the_file_reverts(self) -> None:
        """Add a model with a reload only: the next poll of the file must remove it."""
        expectations = self._expectations["optional"]
        before = expectations.latest
        if before.versions:
            return
        expectations.begin_change(Served(frozenset({OPTIONAL_VERSION})))
        status = self._reload(server_config([*self._models.values(), self._optional]))
        if status not in ("OK", "DEADLINE_EXCEEDED"):
            self.results.fail(f"a reload returned {status}")
        expectations.begin_change(before)
        time.sleep(_POLLED)
        self.wait_until_served("optional", expectations)

    def _apply(self) -> None:
        """Write the file and, half of the time, send a reload as well, which takes effect immediately."""
        self._write()
        if self.rng.random() < 0.5:
            status = self._reload(server_config(self._models.values()))
            if status != "OK":
                self.results.fail(f"a reload of {self._text()} returned {status}")

    def _text(self) -> str:
        return text_format.MessageToString(server_config(self._models.values()))

    def _write(self) -> None:
        staging = self._file.with_name("next.config")
        staging.write_text(self._text(), encoding="utf-8")
        staging.rename(self._file)

    def _reload(self, config: Any, timeout: float = TIMEOUT) -> str | int:
        request = messages.ReloadConfigRequest(config=config)
        call = self._channel.unary_unary(services.RELOAD_CONFIG.path)
        try:
            data = call(request.SerializeToString(), timeout=timeout)
        except grpc.RpcError as error:
            return error.code().name
        return messages.ReloadConfigResponse.FromString(data).status.error_code or "OK"
