"""Those who change what is served: new versions, removed ones, edited config files, reloads."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np

from tests.soak.actors import Actor
from tests.soak.callers import TIMEOUT, connected
from tests.soak.models import Times
from tests.soak.record import Record
from tests.soak.wishes import Wish, Wishes
from tfserving.repository.config import (
    All,
    Latest,
    ModelConfig,
    ServerConfig,
    Specific,
    VersionPolicy,
    to_message,
    to_text,
)
from tfserving.server.core.servable_state import State
from tfserving.wire import messages, predict, services
from tfserving.wire.model_spec import ModelSpec

# Seconds in which a server must have gone over to what is wanted.
_PATIENCE = 90.0
# Seconds in which it looks at least once at the config file and at the versions (it does each second).
_POLLS = 2.5


class Operator(Actor):
    """Makes changes, and waits after each until the server has gone over to what is then wanted."""

    def __init__(self, name: str, record: Record, seed: int, grpc_address: str) -> None:
        super().__init__(name, record, seed)
        self._grpc = grpc_address

    def open(self) -> None:
        self._channel = connected(self._grpc)

    def act(self) -> None:
        move = self.random.choice(self.moves())
        move()
        self.record.count(f"{self.name.partition(' ')[0]}: {move.__name__.strip('_').replace('_', ' ')}")

    def moves(self) -> list[Callable[[], None]]:
        """What can be done now."""
        raise NotImplementedError

    def close(self) -> None:
        self._channel.close()

    def goes_over(self, model: str, wishes: Wishes) -> None:
        """Waits until the server does what was wished last."""
        wish = wishes.now
        self.until(lambda: self._does(model, wish), f"{model} to be {wish}")
        wishes.settled()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition.

        Raises:
            TimeoutError: it did not come about.
        """
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {_PATIENCE:g} s in vain for {what}")
            time.sleep(0.05)

    def states(self, model: str) -> dict[int, tuple[int, str]]:
        """State and error of each version; empty for a model that is not known."""
        request = messages.GetModelStatusRequest(model_spec={"name": model})
        call = self._channel.unary_unary(services.GET_MODEL_STATUS.path)
        try:
            answer = messages.GetModelStatusResponse.FromString(
                call(request.SerializeToString(), timeout=TIMEOUT)
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        return {
            status.version: (status.state, status.status.error_message)
            for status in answer.model_version_status
        }

    def _does(self, model: str, wish: Wish) -> bool:
        states = self.states(model)
        served = {version for version, (now, _) in states.items() if now == State.AVAILABLE}
        if served != wish.versions or any(
            now not in (State.AVAILABLE, State.END) for now, _ in states.values()
        ):
            return False
        # labels show in no status, so they are tried
        asked = [ModelSpec(model, label=label) for label in ("stable", "canary")]
        return all(self._answered(one) == wish.answering(one) for one in asked)

    def _answered(self, asked: ModelSpec) -> int | str | None:
        request = predict.encode_request(asked, {"x": np.ones(1, np.float32)})
        try:
            data = self._channel.unary_unary(services.PREDICT.path)(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            return error.code().name
        return predict.decode_response(data)[0].version


class Publisher(Operator):
    """Changes the versions under the base path of a model that serves its newest one."""

    def __init__(
        self,
        name: str,
        record: Record,
        seed: int,
        grpc_address: str,
        times: Times,
        base_path: Path,
        wishes: Wishes,
    ) -> None:
        super().__init__(name, record, seed, grpc_address)
        self._times = times
        self._base = base_path
        self._wishes = wishes
        self._there = set(wishes.now.versions)
        self._next = max(self._there) + 1

    def moves(self) -> list[Callable[[], None]]:
        """What can be done with the versions that are there."""
        moves = [self.swap, self.swap, self.swap, self._copy_slowly, self._broken, self._base_path_away]
        if len(self._there) > 1:
            moves += [self._roll_back, self._roll_back]
        if self.random.random() < 0.3:
            moves += [self._gone_and_back]
        return moves

    def swap(self) -> None:
        """A new version; the old directories go when it serves, or stay for a while."""
        version = self._new()
        self._wishes.changing(Wish(frozenset({version})))
        self._times.publish(self._base, version)
        self._there.add(version)
        self.goes_over(self._base.name, self._wishes)
        if self.random.random() < 0.5:
            self._remove(self._there - {version})

    def _copy_slowly(self) -> None:
        """The directory is there long before its graph, which must not count until it is complete."""
        version = self._new()
        path = self._base / str(version)
        path.mkdir()
        for number in range(4):
            (path / f"part-{number}").write_bytes(b"x" * 1000)
            time.sleep(0.4)
        self._wishes.changing(Wish(frozenset({version})))
        (path / "saved_model.pb").write_bytes(self._times.graph(version))
        self._there.add(version)
        self.goes_over(self._base.name, self._wishes)

    def _broken(self) -> None:
        """A version that cannot be loaded: what serves goes on serving."""
        version = self._new()
        path = self._times.publish_broken(self._base, version)
        name = self._base.name
        self.until(
            lambda: bool(self.states(name).get(version, (0, ""))[1]), f"an error of {name} version {version}"
        )
        shutil.rmtree(path)
        self.goes_over(name, self._wishes)

    def _roll_back(self) -> None:
        newest = max(self._there)
        self._wishes.changing(Wish(frozenset({max(self._there - {newest})})))
        self._remove({newest})
        self.goes_over(self._base.name, self._wishes)

    def _gone_and_back(self) -> None:
        """All versions are removed, and one comes back."""
        self._wishes.changing(Wish())
        self._remove(set(self._there))
        self.goes_over(self._base.name, self._wishes)
        self.swap()

    def _base_path_away(self) -> None:
        """Where the base path vanishes, what is served stays served."""
        away = self._base.with_name(f"{self._base.name} away")
        self._base.rename(away)
        time.sleep(_POLLS)
        away.rename(self._base)
        self.goes_over(self._base.name, self._wishes)

    def _new(self) -> int:
        self._next += self.random.randint(1, 3)
        return self._next

    def _remove(self, versions: set[int]) -> None:
        for version in versions:
            shutil.rmtree(self._base / str(version))
        self._there -= versions


class Editor(Operator):
    """Owns the config file: edits it, breaks it, and sends the same by HandleReloadConfigRequest.

    Of two models it changes what is served: "edited", with versions 1 to 5 on disk, and "guest", which comes
    and goes.
    """

    def __init__(
        self,
        name: str,
        record: Record,
        seed: int,
        grpc_address: str,
        file: Path,
        config: ServerConfig,
        wishes: dict[str, Wishes],
    ) -> None:
        super().__init__(name, record, seed, grpc_address)
        self._file = file
        self._config = config
        self._wishes = wishes

    def moves(self) -> list[Callable[[], None]]:
        """What can be done at any time."""
        return [
            *[self._other_versions] * 4,
            *[self._guest] * 2,
            self._same_again,
            self._unreadable,
            self._file_away,
            self._reload_what_cannot_be,
            self._reload_for_a_while,
        ]

    def _other_versions(self) -> None:
        """Another version policy, and labels."""
        there = range(1, 6)
        policies: list[VersionPolicy] = [Latest(1), Latest(2), All()]
        policies += [Specific(tuple(sorted(self.random.sample(there, size)))) for size in (1, 2, 3)]
        policy = self.random.choice(policies)
        served = policy.select(there)
        before = self._wishes["edited"].now
        labels = {}
        for label in ("stable", "canary"):
            # one in use moves only to a version that is in service already
            found = [
                version for version in served if label not in before.labels or version in before.versions
            ]
            if found and self.random.random() < 0.7:
                labels[label] = self.random.choice(found)
        self._wishes["edited"].changing(Wish(frozenset(served), labels))
        self._change(
            replace(model, policy=policy, labels=labels) if model.name == "edited" else model
            for model in self._config.models
        )
        self.goes_over("edited", self._wishes["edited"])

    def _guest(self) -> None:
        """A model comes, or goes."""
        wishes = self._wishes["guest"]
        others = [model for model in self._config.models if model.name != "guest"]
        if wishes.now.versions:
            wishes.changing(Wish())
            self._change(others)
        else:
            wishes.changing(Wish(frozenset({7})))
            self._change([*others, ModelConfig("guest", str(self._file.parent / "guest"))])
        self.goes_over("guest", wishes)

    def _same_again(self) -> None:
        """The same configuration in another order changes nothing."""
        models = list(self._config.models)
        self.random.shuffle(models)
        self._change(models)

    def _unreadable(self) -> None:
        """A file that does not parse, half-written, empty or of other bytes: the old configuration stays."""
        text = to_text(self._config)
        bad = [text[: len(text) // 2], "", "\n# nothing\n", "{", "\xff\0", '{"model_config_list": {}}']
        bad += ['model_config_list { config { name: "edited" base_path: "relative" } }']
        self._file.write_text(self.random.choice(bad), encoding="latin-1")
        time.sleep(_POLLS)
        self._write()

    def _file_away(self) -> None:
        away = self._file.with_name("away.config")
        self._file.rename(away)
        time.sleep(_POLLS)
        away.rename(self._file)

    def _reload_what_cannot_be(self) -> None:
        """Refused, or never fulfilled; what the file says is in force again at its next reading."""
        models = self._config.models
        ghost = ModelConfig("ghost", str(self._file.parent / "nowhere"))
        name, bad = self.random.choice(
            [
                ("DEADLINE_EXCEEDED", ServerConfig((*models, ghost))),
                ("INVALID_ARGUMENT", ServerConfig((*models, replace(ghost, base_path="nowhere")))),
                ("INVALID_ARGUMENT", ServerConfig((*models, replace(models[0], base_path="/other")))),
            ]
        )
        code = self._reload(bad, timeout=1.0)
        if code != name:
            self.record.wrong(f"a reload that cannot be was answered with {code}, not {name}")
        time.sleep(_POLLS)

    def _reload_for_a_while(self) -> None:
        """What a reload changes, the file changes back when it is read again."""
        wishes = self._wishes["guest"]
        before = wishes.now
        if before.versions:
            return
        wishes.changing(Wish(frozenset({7})))
        guest = ModelConfig("guest", str(self._file.parent / "guest"))
        code = self._reload(ServerConfig((*self._config.models, guest)))
        if code not in ("OK", "DEADLINE_EXCEEDED"):
            self.record.wrong(f"a reload was answered with {code}")
        wishes.changing(before)
        time.sleep(_POLLS)
        self.goes_over("guest", wishes)

    def _change(self, models) -> None:
        """By the file, and half of the time by a call as well, which takes effect at once."""
        self._config = ServerConfig(tuple(models))
        self._write()
        if self.random.random() < 0.5:
            code = self._reload(self._config)
            if code != "OK":
                self.record.wrong(f"a reload of {to_text(self._config)} was answered with {code}")

    def _write(self) -> None:
        staging = self._file.with_name("next.config")
        staging.write_text(to_text(self._config), encoding="utf-8")
        staging.rename(self._file)

    def _reload(self, config: ServerConfig, timeout: float = TIMEOUT) -> str:
        request = messages.ReloadConfigRequest(config=to_message(config))
        call = self._channel.unary_unary(services.RELOAD_CONFIG.path)
        try:
            answer = messages.ReloadConfigResponse.FromString(
                call(request.SerializeToString(), timeout=timeout)
            )
        except grpc.RpcError as error:
            return error.code().name
        return "OK" if not answer.status.error_code else answer.status.error_code


class Swapper(Publisher):
    """Publishes one new version after the other, and removes the old ones."""

    def __init__(self, *args, rounds: int) -> None:
        super().__init__(*args)
        self._rounds = rounds
        self.done = threading.Event()

    def act(self) -> None:
        """One round; then `done`."""
        if self._rounds:
            self._rounds -= 1
            self.swap()
        if not self._rounds:
            self.done.set()
            self.rest(60)
