"""build_ensemble.sh: an image with every model of a config."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

TENSORFLOW = "model_platform: 'tensorflow'"
BASE = "tensorflow/serving:2.20.0"


@pytest.fixture
def models(checkout: Any) -> Any:
    """A checkout with the models of its config, and another one."""
    checkout.add_version("digits", 1, 2)
    checkout.add_version("half", 1, 3)
    checkout.add_version("other", 1)
    checkout.add_config()
    return checkout


def context_files(checkout: Any) -> list[str]:
    root = checkout.world / "context"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def without_base(command: list[str]) -> list[str]:
    """The arguments without the label of the base image, which a dry run does not look up."""
    index = next(index for index, word in enumerate(command) if word.startswith("tfserving.base.id="))
    return command[: index - 1] + command[index + 1 :]


def test_builds_the_selected_versions_and_the_config(models: Any) -> None:
    result = models.run("build_ensemble.sh")
    assert (result.code, result.out) == (0, "")
    assert result.err.endswith("next: bash run_tf_serving.sh multi\n")
    ((*built, _),) = models.calls("build")
    command = without_base(built)
    start = command.index("--label")
    assert command[start + 1] == "org.opencontainers.image.version=digits:2 half:1,3"
    assert [*command[: start - 2], *command[start + 6 :]] == [
        *("build", "--tag", "tfserving-ensemble"),
        *("--build-arg", f"TF_SERVING_IMAGE={BASE}"),
        *("--build-arg", "MODE=multi"),
        *("--build-arg", "MODELS=digits:2 half:1,3"),
    ]
    assert context_files(models) == [
        *("Dockerfile", "entrypoint.sh", "healthcheck.sh"),
        *(f"models/{name}/saved_model.pb" for name in ("digits/2", "half/1", "half/3")),
        *("models/models.config", "server_config.sh"),
    ]
    config = (models.world / "context/models/models.config").read_bytes()
    assert config == (models.models / "models.config").read_bytes()
    assert list(models.tmp.iterdir()) == []


def test_dry_run_prints_the_command_and_runs_nothing(models: Any) -> None:
    command = models.run("build_ensemble.sh", "--dry-run").command
    assert models.calls() == []
    models.run("build_ensemble.sh")
    built = without_base(["docker", *models.calls("build")[0][:-1]])
    time = re.compile(r"\d{8}T\d{6}Z|\d{4}-\d\d-\d\dT\S*Z")
    assert [time.sub("", word) for word in command[:-1]] == [time.sub("", word) for word in built]


def test_converts_json_and_logs_a_note(models: Any) -> None:
    config = {"name": "digits", "base_path": "/models/digits", "model_platform": "tensorflow"}
    models.add_config(json.dumps({"model_config_list": {"config": [config]}}))
    result = models.run("build_ensemble.sh")
    assert result.code == 0
    assert "do not read JSON" in result.err
    assert 'name: "digits"' in (models.world / "context/models/models.config").read_text()
    assert "models/digits/2/saved_model.pb" in context_files(models)


def test_models_can_share_a_base_path(models: Any) -> None:
    models.add_config(
        """model_config_list {
          config { name: "stable" base_path: "/models/digits" model_platform: "tensorflow"
                   model_version_policy { specific { versions: 1 } } }
          config { name: "every" base_path: "/models/digits/" model_platform: "tensorflow"
                   model_version_policy { all {} } }
        }"""
    )
    result = models.run("build_ensemble.sh")
    assert result.code == 0, result.err
    assert [name for name in context_files(models) if "saved_model" in name] == [
        *("models/digits/1/saved_model.pb", "models/digits/2/saved_model.pb")
    ]
    assert "MODELS=stable:1 every:1,2" in models.calls("build")[0]


def test_supports_special_characters_in_paths(models: Any, tmp_path: Path) -> None:
    models.models.rename(tmp_path / "-m's dir")
    (tmp_path / "-m's dir" / "models.config").rename(tmp_path / "-c;id")
    result = models.run("build_ensemble.sh", cwd=tmp_path, MODELS_DIR="-m's dir", MODELS_CONFIG="-c;id")
    assert result.code == 0, result.err
    assert "models/half/3/saved_model.pb" in context_files(models)


class TestRejects:
    def test_missing_models_are_all_reported(self, checkout: Any) -> None:
        checkout.add_config()
        result = checkout.run("build_ensemble.sh")
        assert "bash quickstart.sh" in result.rejection
        assert "digits" in result.err.splitlines()[0]
        assert "half" in result.err.splitlines()[1]
        assert "tfserving export" in result.err
        assert checkout.calls() == []

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("model_config_list {", "models.config:1: error:"),
            (
                f"model_config_list {{\n  config {{ {TENSORFLOW} name: 'digits' base_path: 'digits' }} }}",
                "config:2: error:",
            ),
            (
                f"model_config_list {{ config {{ {TENSORFLOW} name: '../a' base_path: '/models/digits' }} }}",
                "../a",
            ),
            (f"model_config_list {{ config {{ {TENSORFLOW} name: 'a' base_path: '/srv/a' }} }}", "/srv/a"),
            ("", "models.config"),
        ],
    )
    def test_invalid_configs(self, models: Any, config: str, message: str) -> None:
        models.add_config(config)
        result = models.run("build_ensemble.sh")
        assert result.rejection.startswith("build_ensemble.sh: error: ")
        assert message in result.err
        assert models.calls() == []

    def test_a_version_without_a_model_file(self, models: Any) -> None:
        (models.models / "digits" / "2" / "saved_model.pb").unlink()
        result = models.run("build_ensemble.sh")
        assert result.rejection
        assert "has no saved_model.pb" in result.err

    def test_models_outside_the_models_directory(self, models: Any, tmp_path: Path) -> None:
        (tmp_path / "a" / "1").mkdir(parents=True)
        (tmp_path / "a" / "1" / "saved_model.pb").write_bytes(b"a")
        models.add_config(
            f"model_config_list {{ config {{ {TENSORFLOW} name: 'a' base_path: '{tmp_path}/a' }} }}"
        )
        result = models.run("build_ensemble.sh")
        assert result.rejection
        assert f"{tmp_path}/a" in result.err
        assert "/models/a" in result.err

    def test_a_missing_config(self, models: Any) -> None:
        rejection = models.run("build_ensemble.sh", MODELS_CONFIG="/nowhere").rejection
        assert "git checkout models/models.config" in rejection

    def test_a_machine_without_python(self, models: Any) -> None:
        tools = models.tmp.parent / "tools"
        tools.mkdir()
        for tool in ("bash", "dirname", "tr"):
            (tools / tool).symlink_to(f"/usr/bin/{tool}")
        result = models.run("build_ensemble.sh", PATH=str(tools))
        assert result.code == 1
        fix = "bash quickstart.sh, or python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
        assert fix in result.err
