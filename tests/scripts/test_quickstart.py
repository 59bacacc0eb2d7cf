"""quickstart.sh with fakes for everything that it calls, and a real run on each engine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0
IMAGE = "tensorflow/serving:2.20.0"

# Appends the script's call and its settings to $LOG.
FAKE_SCRIPT = """#!/bin/bash
name=${0##*/}
ports="GRPC_PORT=$GRPC_PORT REST_PORT=$REST_PORT BIND_ADDRESS=$BIND_ADDRESS"
printf '%s\\n' "$name $* ENGINE=$ENGINE $ports" >>"$LOG"
printf '%s\\n' "$CONTAINER_NAME" >>"$LOG.names"
printf '%s\\n' "$IMAGE_NAME" >>"$LOG.images"
case "$name $*" in
  "run_tf_serving.sh multi") exit "${RUN_EXIT:-0}" ;;
  "build_ensemble.sh ") exit "${BUILD_EXIT:-0}" ;;
esac
"""

# The Python of the virtual environment: logs the calls of the examples and runs everything else.
FAKE_PYTHON = f"""#!/bin/bash
case "$*" in
  "-m examples.make_models"*) printf 'python %s\\n' "$*" >>"$LOG"; exit "${{MAKE_EXIT:-0}}" ;;
  "-m examples.classify_digits"*)
    printf 'python %s\\n' "$*" >>"$LOG"
    [[ -z ${{CLASSIFY_WAITS:-}} ]] || {{ : >"$CLASSIFY_WAITS"; exec sleep 600; }}
    exit "${{CLASSIFY_EXIT:-0}}"
    ;;
  *) exec {sys.executable} "$@" ;;
esac
"""

FAKE_DOCKER = """#!/bin/bash
printf 'docker %s\\n' "$*" >>"$LOG.docker"
case $1 in
  info) [[ -n ${ENGINE_RUNS:-} ]] && echo "engine 24.0.7 json-file" ;;
  image) [[ -n ${HAS_IMAGE:-} ]] ;;
  pull) [[ -z ${PULL_HANGS:-} ]] || exec sleep 600; exit "${PULL_EXIT:-0}" ;;
esac
"""


class Demo:
    """A checkout with quickstart.sh; its other scripts, Python and docker are fakes."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        self.log = folder / "log"
        (self.root / "models").mkdir(parents=True)
        shutil.copy(ROOT / "quickstart.sh", self.root)
        shutil.copy(ROOT / "requirements.txt", self.root)
        for name in ("lib", "docker"):
            shutil.copytree(ROOT / name, self.root / name)
        for script in ("build_ensemble.sh", "run_tf_serving.sh"):
            (self.root / script).write_text(FAKE_SCRIPT)
        self.venv = self.root / ".venv"
        (self.venv / "bin").mkdir(parents=True)
        (self.venv / "bin" / "python").write_text(FAKE_PYTHON)
        (self.venv / "bin" / "python").chmod(0o755)
        mark_complete(self.venv)
        binaries = folder / "bin"
        binaries.mkdir()
        (binaries / "docker").write_text(FAKE_DOCKER)
        (binaries / "docker").chmod(0o755)
        self.environment = {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LOG": str(self.log),
        }
        # Free ports, whatever else runs on this machine.
        self.grpc_port, self.rest_port = free_ports()
        self.set_default("GRPC_PORT", self.grpc_port)
        self.set_default("REST_PORT", self.rest_port)

    def set_default(self, name: str, value: int) -> None:
        settings = self.root / "lib" / "settings.sh"
        text, changes = re.subn(rf"(?m)^setting {name} .*$", f"setting {name} {value}", settings.read_text())
        assert changes == 1
        settings.write_text(text)

    def run(
        self, *arguments: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(self.root / "quickstart.sh"), *arguments],
            cwd=cwd or self.root,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def calls(self, suffix: str = "") -> list[str]:
        log = Path(f"{self.log}{suffix}")
        return log.read_text().splitlines() if log.exists() else []


def mark_complete(venv: Path) -> None:
    """Marks a virtual environment as complete for lib/python.sh."""
    requirements = ROOT / "requirements.txt"
    with requirements.open() as file:
        checksum = subprocess.run(["cksum"], stdin=file, capture_output=True, text=True, check=True).stdout
    (venv / ".requirements").write_text(checksum)


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return Demo(tmp_path)


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_help_lists_every_variable_and_runs_nothing(demo):
    result = demo.run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for name in (
        "VENV",
        "ENGINE",
        "TF_SERVING_IMAGE",
        "PULL_TIMEOUT",
        "MODELS_DIR",
        "GRPC_PORT",
        "REST_PORT",
    ):
        assert f"\n  {name}" in result.stdout
    assert demo.calls() == []


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["--fast"], {}, "unknown argument --fast"),
        ([], {"ENGINE": "podman"}, "ENGINE=podman is not a valid engine"),
        ([], {"GRPC_PORT": "eighty"}, "GRPC_PORT=eighty is not a valid port"),
        ([], {"GRPC_PORT": "1", "REST_PORT": "1"}, "are both 1"),
        ([], {"PULL_TIMEOUT": "soon"}, "PULL_TIMEOUT=soon is not a valid number of seconds"),
        ([], {"TF_SERVING_IMAGE": "a b;c"}, "is not a valid image reference"),
        ([], {"MODELS_DIR": "a\nb"}, "control character"),
    ],
)
def test_rejects_invalid_settings_before_it_runs_anything(demo, arguments, variables, message):
    result = demo.run(*arguments, **variables)
    assert result.returncode == 2
    assert message in result.stderr
    assert demo.calls() == demo.calls(".docker") == []


class TestEmbedded:
    def test_runs_the_steps_in_order(self, demo):
        result = demo.run(ENGINE="embedded")
        assert result.returncode == 0, result.stderr
        ports = f"GRPC_PORT={demo.grpc_port} REST_PORT={demo.rest_port} BIND_ADDRESS=127.0.0.1"
        assert demo.calls() == [
            "python -m examples.make_models --models-dir models",
            f"run_tf_serving.sh multi ENGINE=embedded {ports}",
            f"python -m examples.classify_digits --rpc 127.0.0.1:{demo.grpc_port} "
            f"--rest 127.0.0.1:{demo.rest_port} --png quickstart.png",
            f"run_tf_serving.sh stop ENGINE=embedded {ports}",
        ]
        assert demo.calls(".docker") == []
        assert "embedded (set by ENGINE)" in result.stdout
        for number in range(1, 6):
            assert f"[{number}/5] " in result.stdout
        assert "ENGINE=embedded bash run_tf_serving.sh multi" in result.stdout

    def test_draws_the_picture_in_run_dir_if_it_is_set(self, demo, tmp_path):
        result = demo.run(ENGINE="embedded", RUN_DIR=str(tmp_path / "run"))
        assert result.returncode == 0, result.stderr
        assert demo.calls()[2].endswith(f"--png {tmp_path}/run/quickstart.png")
        assert f"ENGINE=embedded RUN_DIR={tmp_path}/run bash run_tf_serving.sh multi" in result.stdout

    def test_stops_the_server_that_it_started(self, demo):
        demo.run(ENGINE="embedded")
        demo.run(ENGINE="embedded")
        first, *names = demo.calls(".names")
        assert names[0] == first
        assert names[1] == names[2] != first
        assert all(name.startswith("tfserving-quickstart-") for name in (first, *names))

    def test_is_chosen_without_a_docker_daemon(self, demo):
        result = demo.run()
        assert result.returncode == 0, result.stderr
        assert "embedded (docker info failed" in result.stdout
        assert "run_tf_serving.sh multi ENGINE=embedded" in demo.calls()[1]

    def test_is_chosen_if_the_image_cannot_be_pulled(self, demo):
        result = demo.run(ENGINE_RUNS="yes", PULL_EXIT="1")
        assert result.returncode == 0, result.stderr
        assert f"pulling {IMAGE}" in result.stdout
        assert f"embedded (cannot pull {IMAGE}; docker's output is above)" in result.stdout

    def test_is_chosen_if_the_pull_exceeds_its_time_limit(self, demo):
        result = demo.run(ENGINE_RUNS="yes", PULL_HANGS="yes", PULL_TIMEOUT="1")
        assert result.returncode == 0, result.stderr
        assert "embedded (cannot pull tensorflow/serving:2.20.0 within PULL_TIMEOUT=1 s)" in result.stdout


class TestDocker:
    def test_is_chosen_if_the_image_is_available(self, demo):
        result = demo.run(ENGINE_RUNS="yes", HAS_IMAGE="yes")
        assert result.returncode == 0, result.stderr
        assert f"docker (docker 24.0.7 is running, {IMAGE} is available)" in result.stdout
        scripts = [call.split(" GRPC_PORT")[0] for call in demo.calls() if not call.startswith("python")]
        assert scripts == [
            "build_ensemble.sh  ENGINE=docker",
            "run_tf_serving.sh multi ENGINE=docker",
            "run_tf_serving.sh stop ENGINE=docker",
        ]
        assert not [call for call in demo.calls(".docker") if call.startswith("docker pull")]
        assert "ENGINE=embedded" not in result.stdout

    @pytest.mark.parametrize(
        ("variables", "name"), [({}, "tfserving-quickstart"), ({"IMAGE_NAME": "mine"}, "mine")]
    )
    def test_builds_and_runs_an_image_of_its_own_name(self, demo, variables, name):
        result = demo.run(ENGINE_RUNS="yes", HAS_IMAGE="yes", **variables)
        assert set(demo.calls(".images")) == {name}
        assert f"  IMAGE_NAME={name} bash run_tf_serving.sh multi\n" in result.stdout

    def test_is_chosen_if_the_image_can_be_pulled(self, demo):
        result = demo.run(ENGINE_RUNS="yes", TF_SERVING_IMAGE="registry.example.com/serving:1")
        assert result.returncode == 0, result.stderr
        assert "docker pull registry.example.com/serving:1" in demo.calls(".docker")
        assert "build_ensemble.sh  ENGINE=docker" in demo.calls()[1]

    @pytest.mark.parametrize("variables", [{}, {"ENGINE_RUNS": "yes", "PULL_EXIT": "1"}])
    def test_does_not_fall_back_if_engine_is_docker(self, demo, variables):
        result = demo.run(ENGINE="docker", **variables)
        assert result.returncode == 1
        assert "error: ENGINE=docker, but " in result.stderr
        assert "ENGINE=embedded" in result.stderr
        assert not [call for call in demo.calls() if "run_tf_serving" in call]

    def test_stops_after_a_failed_build(self, demo):
        result = demo.run(ENGINE_RUNS="yes", HAS_IMAGE="yes", BUILD_EXIT="1")
        assert result.returncode == 1
        assert not [call for call in demo.calls() if "run_tf_serving" in call]


class TestPorts:
    def test_replaces_a_default_port_that_is_in_use(self, demo, used_port):
        demo.set_default("GRPC_PORT", used_port)
        result = demo.run(ENGINE="embedded")
        assert result.returncode == 0, result.stderr
        (instead,) = re.findall(rf"port {used_port} is in use; using GRPC_PORT=(\d+) instead", result.stdout)
        assert instead not in (str(used_port), str(demo.rest_port))
        assert f"GRPC_PORT={instead} REST_PORT={demo.rest_port}" in demo.calls()[1]
        assert f"--rpc 127.0.0.1:{instead} --rest 127.0.0.1:{demo.rest_port}" in demo.calls()[2]

    def test_passes_on_a_port_that_the_user_set(self, demo, used_port):
        demo.run(ENGINE="embedded", REST_PORT=str(used_port))
        assert f"REST_PORT={used_port}" in demo.calls()[1]


class TestFailures:
    def test_fails_without_models(self, demo):
        result = demo.run(ENGINE="embedded", MAKE_EXIT="1")
        assert result.returncode == 1
        assert "cannot create the example models" in result.stderr
        assert not [call for call in demo.calls() if "run_tf_serving" in call]

    def test_fails_without_a_server(self, demo):
        result = demo.run(ENGINE="embedded", RUN_EXIT="1")
        assert result.returncode == 1
        assert not [call for call in demo.calls() if "classify" in call]
        assert "Next:" not in result.stdout

    def test_stops_the_server_if_the_classification_fails(self, demo):
        result = demo.run(ENGINE="embedded", CLASSIFY_EXIT="1")
        assert result.returncode == 1
        assert demo.calls()[-1].startswith("run_tf_serving.sh stop")
        assert "Next:" not in result.stdout

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_stops_the_server_on_a_signal(self, demo, tmp_path, number, code):
        waits = tmp_path / "waits"
        os.mkfifo(waits)
        process = subprocess.Popen(
            ["bash", str(demo.root / "quickstart.sh")],
            cwd=demo.root,
            env={**demo.environment, "ENGINE": "embedded", "CLASSIFY_WAITS": str(waits)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with waits.open():  # blocks until the last step
            pass
        os.killpg(process.pid, number)
        assert process.wait(timeout=DEADLINE) == code
        assert demo.calls()[-1].startswith("run_tf_serving.sh stop")


def test_supports_special_characters_in_paths_and_another_directory(demo, tmp_path):
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    result = demo.run(cwd=elsewhere, ENGINE="embedded", MODELS_DIR="it's; here")
    assert result.returncode == 0, result.stderr
    assert demo.calls()[0] == f"python -m examples.make_models --models-dir {elsewhere}/it's; here"
    assert os.listdir(elsewhere) == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone whose virtual environment uses the packages of this Python."""
    root = tmp_path_factory.mktemp("quickstart") / "checkout"
    root.mkdir()
    for script in ("quickstart.sh", "build_ensemble.sh", "run_tf_serving.sh", "export_saved_model.py"):
        shutil.copy(ROOT / script, root)
    for file in ("tf_rpc_client.py", "requirements.txt", "Dockerfile"):
        shutil.copy(ROOT / file, root)
    for folder in ("lib", "docker", "examples"):
        shutil.copytree(ROOT / folder, root / folder)
    (root / "tfserving").symlink_to(ROOT / "tfserving")
    (root / "models").mkdir()
    shutil.copy(ROOT / "models" / "models.config", root / "models")
    (root / ".venv" / "bin").mkdir(parents=True)
    for part in ("bin/python", "lib", "pyvenv.cfg"):
        (root / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    mark_complete(root / ".venv")
    return root


def run_quickstart(checkout: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    grpc_port, rest_port = free_ports()
    settings = {
        "VENV": str(checkout / ".venv"),
        "ENGINE": "embedded",
        "GRPC_PORT": str(grpc_port),
        "REST_PORT": str(rest_port),
        **variables,
    }
    return subprocess.run(
        ["bash", "quickstart.sh"],
        cwd=checkout,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def first_run(checkout: Path) -> subprocess.CompletedProcess[str]:
    result = run_quickstart(checkout)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.mark.tensorflow
class TestEmbeddedRun:
    def test_both_apis_have_the_same_high_accuracy(self, first_run):
        accuracies = dict(re.findall(r"(gRPC|REST) +(0\.\d{4}) +[\d.]+ ms +[\d.]+ ms", first_run.stdout))
        assert accuracies["gRPC"] == accuracies["REST"]
        assert float(accuracies["gRPC"]) > 0.95

    def test_shows_scans_as_text_and_writes_a_png(self, first_run, checkout):
        assert len(re.findall(r"read: \d", first_run.stdout)) == 8
        assert "@@@@" in first_run.stdout
        assert (checkout / "quickstart.png").read_bytes().startswith(b"\x89PNG")

    def test_hides_the_logs_of_tensorflow(self, first_run):
        assert "Traceback" not in first_run.stderr
        assert not re.findall(r"cuda|oneDNN|absl|WARNING", first_run.stdout + first_run.stderr)

    @pytest.mark.usefixtures("first_run")
    def test_creates_the_models_of_the_config(self, checkout):
        config = ["--config", "models/models.config", "--models-dir", "models"]
        check = subprocess.run(
            [".venv/bin/tfserving", "check", *config],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (check.returncode, check.stderr) == (0, "")
        assert sorted(path.name for path in (checkout / "models").iterdir()) == [
            "digits",
            "half_plus_all",
            "half_plus_latest",
            "half_plus_pinned",
            "models.config",
        ]

    def test_a_second_run_reuses_the_models(self, first_run, checkout):
        models = checkout / "models"
        before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
        again = run_quickstart(checkout)
        assert again.returncode == 0, again.stderr
        assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == before
        assert again.stdout.count("exists") == first_run.stdout.count("created in") == 10
        assert not list((checkout / ".run").glob("*.pid"))


@pytest.mark.tensorflow
@pytest.mark.docker
@pytest.mark.usefixtures("first_run")
def test_both_apis_have_the_same_accuracy_with_docker(checkout):
    image = os.environ.get("TFSERVING_TEST_IMAGE") or IMAGE
    if shutil.which("docker") is None or docker("image", "inspect", image) != 0:
        skip = pytest.fail if os.environ.get("TFSERVING_REQUIRE_DOCKER") == "1" else pytest.skip
        skip(f"needs a Docker daemon with the image {image}")
    name = f"tfserving-quickstart-test-{os.getpid()}"
    try:
        result = run_quickstart(checkout, ENGINE="docker", TF_SERVING_IMAGE=image, IMAGE_NAME=name)
    finally:
        docker("rmi", "--force", name)
    assert result.returncode == 0, result.stdout + result.stderr
    over_grpc, over_rest = re.findall(r"(?:gRPC|REST) +(0\.\d{4}) ", result.stdout)
    assert over_grpc == over_rest
    assert f"IMAGE_NAME={name} bash run_tf_serving.sh multi" in result.stdout


def docker(*arguments: str) -> int:
    return subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode
