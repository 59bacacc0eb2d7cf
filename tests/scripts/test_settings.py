"""The variables of the scripts: their documentation, their defaults, and the order of precedence."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("build.sh", "build_ensemble.sh", "run_tf_serving.sh", "quickstart.sh", "docker/embedded/build.sh")
BLOCK = re.compile(r'^: "\$\{([A-Z_]+):=(.*)\}"( *)# (.+)$', re.M)
SETTING = re.compile(r"^ *(?:.*\) )?setting ([A-Z_]+) (.*?)(?: ;;)?$", re.M)

NAMES = {
    *("MODE", "MODEL_NAME", "MODEL_VERSIONS", "MODELS_DIR", "MODELS_CONFIG", "IMAGE_NAME"),
    *("TF_SERVING_IMAGE", "VERBOSE", "CONTAINER_NAME", "BIND_ADDRESS", "GRPC_PORT", "REST_PORT", "GPU"),
    *("GPU_MEMORY_FRACTION", "MODEL_CONFIG_FILE_POLL_WAIT_SECONDS", "ENABLE_MODEL_WARMUP"),
    *("BATCHING_PARAMETERS_FILE", "MONITORING_CONFIG_FILE", "SSL_CONFIG_FILE", "DRAIN_SECONDS"),
    *("RESTART_POLICY", "DOCKER_ARGS", "ENGINE", "START_TIMEOUT", "VENV", "PULL_TIMEOUT", "PYTHON_IMAGE"),
    *("RUN_DIR", "MEMORY", "CPUS", "MAX_CONNECTION_AGE_SECONDS", "MAX_CONNECTION_AGE_GRACE_SECONDS"),
    *("HEALTHCHECK_INTERVAL", "HEALTHCHECK_START_PERIOD"),
    *("REPLICAS", "REPLICAS_PER_GPU", "XLA"),
}


def block(script: str) -> dict[str, str]:
    """The variables at the top of a script and their values there."""
    return {match[1]: match[2] for match in BLOCK.finditer((ROOT / script).read_text())}


def settings() -> dict[str, str]:
    return {match[1]: match[2] for match in SETTING.finditer((ROOT / "lib" / "settings.sh").read_text())}


def test_scripts_and_settings_have_the_same_variables() -> None:
    assert set(settings()) == NAMES
    assert set().union(*map(block, SCRIPTS)) == NAMES


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_have_no_defaults(script: str) -> None:
    assert set(block(script).values()) == {""}


def test_each_default_has_one_place() -> None:
    text = "".join((ROOT / script).read_text() for script in SCRIPTS)
    text += "".join(path.read_text() for path in (ROOT / "lib").glob("*.sh") if path.name != "settings.sh")
    text = re.sub(r"#.*", "", text).replace("$ROOT/models/models.config", "")  # the config of the examples
    for name, default in settings().items():
        assert not re.search(rf"\$\{{{name}:?[-=][^}}]", text), name
        # The other defaults are common words, and lib/python.sh compares VENV with its default.
        if "/" in default and name != "VENV":
            assert default.strip('"') not in text, default


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_lists_every_variable_and_prints_the_header(script: str) -> None:
    result = subprocess.run(["bash", str(ROOT / script), "--help"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.findall(r"^  ([A-Z_]+) {2,}\S", result.stdout, re.M) == list(block(script))
    assert ("default: tensorflow/serving:" in result.stdout) is ("TF_SERVING_IMAGE" in block(script))
    assert "default: models\n" in result.stdout or "MODELS_DIR" not in block(script)
    assert "$" not in result.stdout
    header = re.match(r"#![^\n]*\n#\n((?:#.*\n)+)", (ROOT / script).read_text())
    assert header is not None
    assert result.stdout.startswith(re.sub(r"^# ?", "", header[1], flags=re.M))


@pytest.mark.parametrize(
    ("script", "variables", "default"),
    [
        ("build.sh", {}, "tfserving-MODEL_NAME"),
        ("build_ensemble.sh", {}, "tfserving-ensemble"),
        ("docker/embedded/build.sh", {}, "tfserving-embedded"),
        ("quickstart.sh", {}, "tfserving-quickstart"),
        ("run_tf_serving.sh", {}, "tfserving-MODEL_NAME or tfserving-ensemble"),
        ("run_tf_serving.sh", {"MODE": "multi"}, "tfserving-ensemble"),
    ],
)
def test_help_prints_the_default_image_name_of_the_script(
    checkout: Any, script: str, variables: dict[str, str], default: str
) -> None:
    lines = checkout.run(script, "--help", **variables).out.splitlines()
    (index,) = (index for index, line in enumerate(lines) if line.startswith("  IMAGE_NAME "))
    assert lines[index + 1].strip() == f"default: {default}"


def test_help_prints_a_value_at_the_top_of_a_script_instead_of_the_default(checkout: Any) -> None:
    script = checkout.root / "build.sh"
    script.write_text(script.read_text().replace("${IMAGE_NAME:=}", "${IMAGE_NAME:=mine}"))
    out = checkout.run("build.sh", "--help").out
    assert "  IMAGE_NAME=mine " in out
    assert "default: tfserving-" not in out


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_code_uses_every_variable_of_a_script(script: str) -> None:
    reachable, queue = "", [script]
    while queue:
        text = (ROOT / queue.pop()).read_text()
        reachable += text
        queue += [name for name in re.findall(r'source "\$ROOT/(lib/\w+\.sh)"', text) if name not in queue]
    without_block = BLOCK.sub("", re.sub(r"^setting .*", "", reachable, flags=re.M))
    for name in block(script):
        assert re.search(rf"\b{name}\b", without_block), name


def test_requirements_and_image_have_the_same_tensorflow_version() -> None:
    pinned = re.search(r"^tensorflow==(\S+)", (ROOT / "requirements.txt").read_text(), re.M)
    assert pinned is not None
    assert settings()["TF_SERVING_IMAGE"] == f"tensorflow/serving:{pinned[1]}"


def test_a_value_at_the_top_of_a_script_overrides_the_default(checkout: Any) -> None:
    checkout.add_version("flowers", 3)
    script = checkout.root / "build.sh"
    script.write_text(script.read_text().replace("${MODEL_NAME:=}", "${MODEL_NAME:=flowers}"))
    assert "MODEL_NAME=flowers" in checkout.run("build.sh", "--dry-run").command
    assert "MODEL_NAME=flowers" in checkout.run("build.sh", "--help").out


def test_the_environment_overrides_a_value_at_the_top(checkout: Any) -> None:
    checkout.add_version("digits", 1)
    script = checkout.root / "build.sh"
    script.write_text(script.read_text().replace("${MODEL_NAME:=}", "${MODEL_NAME:=flowers}"))
    assert "MODEL_NAME=digits" in checkout.run("build.sh", "--dry-run", MODEL_NAME="digits").command


def test_a_value_in_settings_applies_to_every_script(checkout: Any) -> None:
    checkout.add_version("flowers", 3)
    file = checkout.root / "lib" / "settings.sh"
    file.write_text(file.read_text().replace("setting MODEL_NAME digits", "setting MODEL_NAME flowers"))
    assert "MODEL_NAME=flowers" in checkout.run("build.sh", "--dry-run").command
    assert checkout.run("run_tf_serving.sh", "--dry-run", ENGINE="docker").command[-1] == "tfserving-flowers"


def test_an_empty_variable_has_its_default(checkout: Any) -> None:
    checkout.add_version("digits", 1)
    empty = dict.fromkeys(NAMES, "")
    assert "MODEL_NAME=digits" in checkout.run("build.sh", "--dry-run", **empty).command


def test_every_script_is_executable_in_git() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modes = {path: line.split()[0] for line, path in (row.split("\t") for row in listed.stdout.splitlines())}
    for name, mode in modes.items():
        if (ROOT / name).is_file() and (ROOT / name).read_bytes()[:2] == b"#!":
            assert mode == "100755", name


@pytest.mark.parametrize(
    "script", [*SCRIPTS, "run_tests.sh", ".ci/run", "tests/integration/standin/build.sh"]
)
def test_another_shell_is_told_to_run_bash(script: str) -> None:
    shell = shutil.which("dash") or pytest.skip("dash is not installed")
    result = subprocess.run([shell, str(ROOT / script), "--help"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"{ROOT / script}: error: this script needs bash; run bash {ROOT / script}\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_as_sh_runs_the_scripts(script: str) -> None:
    command = ["bash", "--posix", str(ROOT / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("script", ["build.sh", "run_tf_serving.sh"])
def test_a_missing_locale_causes_no_warning_except_when_bash_starts(checkout: Any, script: str) -> None:
    checkout.add_version("digits", 1)
    result = checkout.run(script, "--dry-run", LC_ALL="xx_YY.UTF-8")
    assert result.code == 0
    assert result.err.count("setlocale") <= 1


class TestRunDir:
    def start(self, checkout: Any, ports: dict[str, str], **variables: str) -> str:
        """Starts and stops a server; returns what the start printed."""
        checkout.add_version("digits", 1)
        variables |= {"ENGINE": "embedded", **ports}
        started = checkout.run("run_tf_serving.sh", **variables)
        assert started.code == 0, started.err
        assert checkout.run("run_tf_serving.sh", "status", **variables).code == 0
        assert checkout.run("run_tf_serving.sh", "stop", **variables).err.endswith("stopped tfserving\n")
        return str(started.err)

    def test_is_part_of_the_commands_that_the_script_suggests(
        self, checkout: Any, ports: dict[str, str], tmp_path: Path
    ) -> None:
        printed = self.start(checkout, ports, RUN_DIR=str(tmp_path / "a b"))
        assert f"models: RUN_DIR='{tmp_path}/a b' bash " in printed

    def test_holds_the_log(self, checkout: Any, ports: dict[str, str], tmp_path: Path) -> None:
        self.start(checkout, ports, RUN_DIR=str(tmp_path / "a b" / "run"))
        assert (tmp_path / "a b" / "run" / "tfserving.log").exists()
        assert not (checkout.root / ".run").exists()

    def test_is_private(self, checkout: Any, ports: dict[str, str]) -> None:
        checkout.add_version("digits", 1)
        run_dir = checkout.root / ".run"
        run_dir.mkdir(mode=0o755)
        (run_dir / "tfserving.log").touch(mode=0o644)  # as an earlier release created them
        before = os.umask(0)
        try:
            started = checkout.run("run_tf_serving.sh", ENGINE="embedded", **ports)
        finally:
            os.umask(before)
        assert started.code == 0, started.err
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run_dir.iterdir()}
        assert modes == dict.fromkeys(
            [f"tfserving.{end}" for end in ("command", "log", "pid", "settings")], 0o600
        )
        assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700

    def test_keeps_the_mode_of_a_directory_that_the_user_chose(
        self, checkout: Any, ports: dict[str, str], tmp_path: Path
    ) -> None:
        (tmp_path / "mine").mkdir(mode=0o750)
        self.start(checkout, ports, RUN_DIR=str(tmp_path / "mine"))
        assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o750

    @pytest.mark.parametrize("action", ["single", "status", "stop", "restart"])
    def test_is_rejected_if_every_user_can_write_there(
        self, checkout: Any, tmp_path: Path, action: str
    ) -> None:
        checkout.add_version("digits", 1)
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o1777)
        (tmp_path / "link").symlink_to("open")
        result = checkout.run("run_tf_serving.sh", action, RUN_DIR=str(tmp_path / "link"), ENGINE="embedded")
        assert "is writable for every user, who could change what this script runs" in result.rejection

    @pytest.mark.parametrize(("variable", "directory"), [("XDG_STATE_HOME", ""), ("HOME", ".local/state")])
    def test_is_in_the_users_state_directory_if_the_checkout_cannot_hold_it(
        self, checkout: Any, ports: dict[str, str], tmp_path: Path, variable: str, directory: str
    ) -> None:
        (checkout.root / ".run").touch()
        self.start(checkout, ports, **{variable: str(tmp_path)})
        assert (tmp_path / directory / "tfserving" / "tfserving.log").exists()


class TestSimilarVariables:
    @pytest.mark.parametrize(
        ("variable", "meant"),
        [
            ("MODEL", "MODEL_NAME"),
            ("PORT", "GRPC_PORT or REST_PORT"),
            ("MODEL_BASE_PATH", "MODELS_DIR"),
            ("MODEL_DIR", "MODELS_DIR"),
            ("MODELNAME", "MODEL_NAME"),
            ("GRPC_PROT", None),  # two typing errors: another program's variable may be as similar
            ("GRPC_PORTS", "GRPC_PORT"),
            ("START_TIME", None),
            ("RANDOM_VARIABLE", None),
            ("model_name", None),
        ],
    )
    def test_are_named_in_a_warning(self, checkout: Any, variable: str, meant: str | None) -> None:
        result = checkout.run("run_tf_serving.sh", "--dry-run", **{variable: "a b"})
        assert result.code == 0
        warnings = [line for line in result.err.splitlines() if "warning" in line]
        text = f"run_tf_serving.sh: warning: {variable}='a b' has no effect; did you mean {meant}?"
        assert warnings == ([text] if meant else [])

    @pytest.mark.parametrize("script", ["build.sh", "build_ensemble.sh"])
    def test_are_named_by_the_build_scripts(self, checkout: Any, script: str) -> None:
        assert "warning: MODEL=iris has no effect" in checkout.run(script, "--dry-run", MODEL="iris").err

    def test_cause_no_warning_if_the_setting_is_set_or_they_are_empty(self, checkout: Any) -> None:
        variables = {"MODEL": "iris", "MODEL_NAME": "iris", "PORT": ""}
        assert "warning" not in checkout.run("run_tf_serving.sh", "--dry-run", **variables).err
