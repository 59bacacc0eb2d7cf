"""The variables of the doors: documented, with one default, from the environment or the top of a door."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOORS = ("build.sh", "build_ensemble.sh", "run_tf_serving.sh")
BLOCK = re.compile(r'^: "\$\{([A-Z_]+):=(.*)\}"( *)# (.+)$', re.M)
SETTING = re.compile(r"^ *(?:.*\) )?setting ([A-Z_]+) (.*?)(?: ;;)?$", re.M)

NAMES = {
    *("MODE", "MODEL_NAME", "MODEL_VERSIONS", "MODELS_DIR", "MODELS_CONFIG", "IMAGE_NAME"),
    *("TF_SERVING_IMAGE", "CONTAINER_NAME", "BIND_ADDRESS", "GRPC_PORT", "REST_PORT", "GPU"),
    *("GPU_MEMORY_FRACTION", "MODEL_CONFIG_FILE_POLL_WAIT_SECONDS", "ENABLE_MODEL_WARMUP"),
    *("BATCHING_PARAMETERS_FILE", "MONITORING_CONFIG_FILE", "SSL_CONFIG_FILE", "DRAIN_SECONDS"),
    *("RESTART_POLICY", "DOCKER_ARGS", "ENGINE", "START_TIMEOUT"),
}


def block(door: str) -> dict[str, str]:
    """The variables at the top of a door and the values written there."""
    return {match[1]: match[2] for match in BLOCK.finditer((ROOT / door).read_text())}


def settings() -> dict[str, str]:
    return {match[1]: match[2] for match in SETTING.finditer((ROOT / "lib" / "settings.sh").read_text())}


def test_the_names() -> None:
    assert set(settings()) == NAMES
    assert set().union(*map(block, DOORS)) == NAMES


@pytest.mark.parametrize("door", DOORS)
def test_a_door_has_no_default_of_its_own(door: str) -> None:
    assert set(block(door).values()) == {""}


def test_no_default_stands_twice() -> None:
    text = "".join((ROOT / door).read_text() for door in DOORS)
    text += "".join(path.read_text() for path in (ROOT / "lib").glob("*.sh") if path.name != "settings.sh")
    text = re.sub(r"#.*", "", text)
    for name, default in settings().items():
        assert not re.search(rf"\$\{{{name}:?[-=][^}}]", text), name
        if "/" in default:  # the others are words that mean other things too
            assert default.strip('"') not in text, default


@pytest.mark.parametrize("door", DOORS)
def test_help_tells_every_variable_and_its_default(door: str) -> None:
    done = subprocess.run(["bash", str(ROOT / door), "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^  ([A-Z_]+) {2,}\S", done.stdout, re.M) == list(block(door))
    assert "default: tensorflow/serving:" in done.stdout or door == "run_tf_serving.sh"
    header = re.match(r"#![^\n]*\n#\n((?:#.*\n)+)", (ROOT / door).read_text())
    assert header is not None
    assert done.stdout.startswith(re.sub(r"^# ?", "", header[1], flags=re.M))


@pytest.mark.parametrize("door", DOORS)
def test_every_variable_of_a_door_has_an_effect(door: str) -> None:
    reachable, queue = "", [door]
    while queue:
        text = (ROOT / queue.pop()).read_text()
        reachable += text
        queue += [name for name in re.findall(r'source "\$ROOT/(lib/\w+\.sh)"', text) if name not in queue]
    without_block = BLOCK.sub("", re.sub(r"^setting .*", "", reachable, flags=re.M))
    for name in block(door):
        assert re.search(rf"\b{name}\b", without_block), name


def test_the_requirements_have_the_tensorflow_of_the_image() -> None:
    pinned = re.search(r"^tensorflow==(.+)$", (ROOT / "requirements.txt").read_text(), re.M)
    assert pinned is not None
    assert settings()["TF_SERVING_IMAGE"] == f"tensorflow/serving:{pinned[1]}"


def test_a_value_at_the_top_of_a_door_holds(checkout: Any) -> None:
    checkout.add_version("flowers", 3)
    door = checkout.root / "build.sh"
    door.write_text(door.read_text().replace("${MODEL_NAME:=}", "${MODEL_NAME:=flowers}"))
    assert "MODEL_NAME=flowers" in checkout.run("build.sh", "--dry-run").command
    assert "MODEL_NAME=flowers" in checkout.run("build.sh", "--help").out


def test_the_environment_wins_over_it(checkout: Any) -> None:
    checkout.add_version("digits", 1)
    door = checkout.root / "build.sh"
    door.write_text(door.read_text().replace("${MODEL_NAME:=}", "${MODEL_NAME:=flowers}"))
    assert "MODEL_NAME=digits" in checkout.run("build.sh", "--dry-run", MODEL_NAME="digits").command


def test_a_value_in_settings_holds_for_every_door(checkout: Any) -> None:
    checkout.add_version("flowers", 3)
    file = checkout.root / "lib" / "settings.sh"
    file.write_text(file.read_text().replace("setting MODEL_NAME digits", "setting MODEL_NAME flowers"))
    assert "MODEL_NAME=flowers" in checkout.run("build.sh", "--dry-run").command
    assert checkout.run("run_tf_serving.sh", "--dry-run", ENGINE="docker").command[-1] == "tfserving-flowers"


def test_an_empty_value_means_the_default(checkout: Any) -> None:
    checkout.add_version("digits", 1)
    empty = dict.fromkeys(NAMES, "")
    assert "MODEL_NAME=digits" in checkout.run("build.sh", "--dry-run", **empty).command
