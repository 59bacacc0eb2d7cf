from pathlib import Path

import pytest

from tests.server.fake_loader import FakeLoader
from tfserving.errors import (
    ConfigError,
    DeadlineError,
    FailedPreconditionError,
    InvalidInputError,
    NotFoundError,
    RepositoryError,
)
from tfserving.repository.config import ModelConfig, ServerConfig, Specific
from tfserving.server.core.manager import ServableManager
from tfserving.server.core.server_core import ServerCore
from tfserving.server.server_options import LoadOptions, PollOptions
from tfserving.wire.model_spec import ModelSpec

NEVER = PollOptions(file_system=0, config=0)


class FakeSource:
    """The versions of each model; a model that is not in it has no base path."""

    def __init__(self, **versions):
        self.versions = versions

    def poll(self, model, failed=()):
        if model.name not in self.versions:
            return None
        return {version: Path(f"/{version}") for version in model.policy.select(self.versions[model.name])}


class World:
    """A ServerCore with fakes around it."""

    def __init__(self, *models, labels_for_unavailable=False, **versions):
        self.config = ServerConfig(models or tuple(ModelConfig(name, f"/models/{name}") for name in versions))
        self.source = FakeSource(**versions)
        self.loader = FakeLoader()
        self.manager = ServableManager(self.loader, LoadOptions(threads=2, max_retries=0))
        self.core = ServerCore(
            self.manager,
            self.source,
            self.read,
            poll=NEVER,
            labels_for_unavailable=labels_for_unavailable,
        )

    def read(self):
        if isinstance(self.config, Exception):
            raise self.config
        return self.config

    def served(self, model, **spec):
        harness = self.manager.acquire(ModelSpec(model, **spec))
        harness.unpin()
        return harness.version

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.core.stop()


def test_start_loads_the_models():
    with World(a=[1, 2], b=[7]) as world:
        world.core.start()
        assert world.served("a") == 2
        assert world.served("b") == 7


def test_start_fails_with_a_model_that_cannot_be_loaded():
    with World(a=[1], b=[7]) as world:
        world.loader.broken["b", 7] = [RepositoryError("half-copied")]
        with pytest.raises(FailedPreconditionError, match=r"'b'.*half-copied"):
            world.core.start()


def test_a_new_version_is_found_by_polling(eventually):
    with World(a=[1]) as world:
        world.core.start()
        world.source.versions["a"] = [1, 2]
        world.core.poll_file_system()
        eventually(lambda: world.served("a") == 2)


def test_served_versions_stay_if_the_base_path_disappears():
    with World(a=[1]) as world:
        world.core.start()
        world.source.versions.clear()
        world.core.poll_file_system()
        assert world.served("a") == 1


def test_reload_replaces_the_whole_list(eventually):
    with World(a=[1], b=[1]) as world:
        world.core.start()
        world.source.versions["c"] = [1]
        world.core.reload(
            ServerConfig((ModelConfig("b", "/models/b"), ModelConfig("c", "/models/c")))
        ).result(30)
        assert world.served("c") == 1
        eventually(lambda: world.manager.status("a")[0].state.name == "END")
        with pytest.raises(NotFoundError):
            world.served("a")


def test_a_reload_waits_for_new_models_only(eventually):
    with World(a=[1]) as world:
        world.core.start()
        world.loader.broken["a", 2] = [InvalidInputError("no model")]
        world.source.versions["a"] = [2]
        world.core.poll_file_system()
        eventually(lambda: world.manager.status("a", 2)[0].state.name == "END")
        world.source.versions["b"] = [1]
        world.core.reload(
            ServerConfig((ModelConfig("a", "/models/a"), ModelConfig("b", "/models/b")))
        ).result(30)
        assert world.served("a") == world.served("b") == 1


def test_a_reload_of_a_model_without_versions_times_out(eventually):
    with World(a=[1]) as world:
        world.core.start()
        with pytest.raises(DeadlineError, match="no version of nobody"):
            world.core.reload(ServerConfig((ModelConfig("nobody", "/models/nobody"),)), timeout=0).result(30)
        # and does not block the next one
        world.core.reload(ServerConfig((ModelConfig("a", "/models/a"),))).result(30)
        assert world.served("a") == 1


def test_a_rollback_is_a_config_that_pins_the_old_version(eventually):
    with World(a=[1, 2]) as world:
        world.core.start()
        assert world.served("a") == 2
        world.config = ServerConfig((ModelConfig("a", "/models/a", Specific((1,))),))
        world.core.poll_config()
        eventually(lambda: world.served("a") == 1)


def test_an_invalid_config_file_changes_nothing(caplog):
    with World(a=[1]) as world:
        world.core.start()
        world.config = ConfigError("Error parsing text-format tensorflow.serving.ModelServerConfig: 1:1: no")
        world.core.poll_config()
        world.core.poll_config()
        assert world.served("a") == 1
        assert caplog.text.count("Error parsing") == 1


def test_a_config_error_is_logged_again_after_a_valid_config(caplog):
    with World(a=[1]) as world:
        world.core.start()
        right = world.config
        for config in (ConfigError("no config"), right, ConfigError("no config")):
            world.config = config
            world.core.poll_config()
        assert caplog.text.count("no config") == 2


def labelled(**labels):
    return ModelConfig("a", "/models/a", labels=labels)


def test_a_label_at_startup_needs_the_flag():
    with World(labelled(stable=1), a=[1]) as world:
        with pytest.raises(FailedPreconditionError, match="allow_version_labels_for_unavailable_models"):
            world.core.start()
    with World(labelled(stable=1), a=[1], labels_for_unavailable=True) as world:
        world.core.start()
        assert world.served("a", label="stable") == 1


def test_a_label_for_an_available_version_needs_no_flag():
    with World(a=[1]) as world:
        world.core.start()
        world.core.reload(ServerConfig((labelled(stable=1),))).result(30)
        assert world.served("a", label="stable") == 1
        with pytest.raises(FailedPreconditionError, match="names version 9"):
            world.core.reload(ServerConfig((labelled(stable=9),))).result(30)
        assert world.served("a", label="stable") == 1


def test_with_the_flag_an_existing_label_moves_only_to_an_available_version():
    with World(labelled(stable=1), a=[1], labels_for_unavailable=True) as world:
        world.core.start()
        with pytest.raises(
            FailedPreconditionError, match=r"version 9, .*; load the version before you move the label"
        ):
            world.core.reload(ServerConfig((labelled(stable=9),))).result(30)
        assert world.served("a", label="stable") == 1
        world.core.reload(ServerConfig((labelled(stable=1, canary=9),))).result(30)  # a new label
        world.core.reload(ServerConfig((labelled(canary=9),))).result(
            30
        )  # nor does it move to another version


def test_labels_change_while_the_base_path_is_missing():
    with World(labelled(stable=1), a=[1], labels_for_unavailable=True) as world:
        world.core.start()
        world.source.versions.clear()
        world.core.reload(ServerConfig((labelled(canary=1),))).result(30)
        assert world.served("a", label="canary") == 1
        with pytest.raises(InvalidInputError, match="no label 'stable'"):
            world.served("a", label="stable")


def test_polls_automatically(eventually):
    with World(a=[1]) as world:
        world.core = ServerCore(
            world.manager, world.source, world.read, poll=PollOptions(file_system=0.01, config=0.01)
        )
        world.core.start()
        world.source.versions["a"] = [2]
        eventually(lambda: world.served("a") == 2)
        world.source.versions["b"] = [5]
        world.config = ServerConfig((ModelConfig("b", "/models/b"),))
        eventually(lambda: "b" in world.manager.models() and world.manager.is_available("b", 5))
