"""restart, list and logs of run_tf_serving.sh, remembered settings and --env-file, on both engines."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(params=["docker", "embedded"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def models(checkout: Any) -> Any:
    checkout.add_version("digits", 1)
    checkout.add_version("half", 1, 2)
    checkout.add_config()
    checkout.add_single_image()
    checkout.add_multi_model_image()
    return checkout


def last_command(checkout: Any, engine: str) -> list[str]:
    """The arguments of the last server that was started, of either engine."""
    command: list[str] = checkout.calls("run")[-1] if engine == "docker" else checkout.served()["argv"]
    return command


class TestRestart:
    def test_uses_the_settings_and_flags_of_the_last_start(
        self, models: Any, engine: str, ports: dict[str, str], tmp_path: Path
    ) -> None:
        variables = {"ENGINE": engine, "MODELS_DIR": "models", "ENABLE_MODEL_WARMUP": "false", **ports}
        assert (
            models.run("run_tf_serving.sh", "multi", "--", "--saved_model_tags=b c;'d'", **variables).code
            == 0
        )
        before = last_command(models, engine)
        result = models.run("run_tf_serving.sh", "restart", cwd=tmp_path)
        assert result.code == 0, result.err
        assert "run_tf_serving.sh: stopping tfserving\n" in result.err
        assert last_command(models, engine) == before
        assert models.run("run_tf_serving.sh", "status").code == 0

    def test_variables_and_flags_of_the_restart_take_precedence(
        self, models: Any, engine: str, ports: dict[str, str]
    ) -> None:
        variables = {"ENGINE": engine, "ENABLE_MODEL_WARMUP": "false", **ports}
        assert models.run("run_tf_serving.sh", "--", "--grpc_max_threads=1", **variables).code == 0
        restart = ["restart", "--", "--grpc_max_threads=2"]
        assert models.run("run_tf_serving.sh", *restart, ENABLE_MODEL_WARMUP="true").code == 0
        command = last_command(models, engine)
        assert command[-3:] == ["--enable_model_warmup=true", "--grpc_max_threads=1", "--grpc_max_threads=2"]
        assert models.run("run_tf_serving.sh", "restart").code == 0
        assert last_command(models, engine) == command

    def test_starts_a_server_that_was_stopped(self, models: Any, engine: str, ports: dict[str, str]) -> None:
        models.run("run_tf_serving.sh", ENGINE=engine, **ports)
        before = last_command(models, engine)
        assert models.run("run_tf_serving.sh", "stop").code == 0
        assert models.run("run_tf_serving.sh", "restart").code == 0
        assert last_command(models, engine) == before

    def test_keeps_the_server_if_the_settings_are_invalid(
        self, models: Any, engine: str, ports: dict[str, str]
    ) -> None:
        models.run("run_tf_serving.sh", ENGINE=engine, **ports)
        assert models.run("run_tf_serving.sh", "restart", GPU_MEMORY_FRACTION="2").code == 2
        wrong = {"IMAGE_NAME": "absent"} if engine == "docker" else {"MODEL_NAME": "absent"}
        assert models.run("run_tf_serving.sh", "restart", **wrong).code == 2
        assert models.run("run_tf_serving.sh", "status").code == 0

    def test_a_failed_start_is_not_remembered(self, models: Any, engine: str, ports: dict[str, str]) -> None:
        models.run("run_tf_serving.sh", ENGINE=engine, **ports)
        models.run("run_tf_serving.sh", "stop")
        models.serve({"digits": {"1": "LOADING"}})
        failed = {"START_TIMEOUT": "1", "ENABLE_MODEL_WARMUP": "false"}
        assert models.run("run_tf_serving.sh", ENGINE=engine, **failed, **ports).code == 1
        models.serve({})
        assert models.run("run_tf_serving.sh", "restart").code == 0
        assert "--enable_model_warmup=false" not in last_command(models, engine)

    def test_dry_run_prints_the_command(self, models: Any, engine: str, ports: dict[str, str]) -> None:
        models.run("run_tf_serving.sh", ENGINE=engine, **ports)
        command = models.run("run_tf_serving.sh", "restart", "--dry-run").command
        arguments = last_command(models, engine)
        assert command[-len(arguments) :] == arguments
        assert "stopping" not in models.run("run_tf_serving.sh", "restart", "--dry-run").err

    def test_fails_without_an_earlier_start(self, models: Any) -> None:
        result = models.run("run_tf_serving.sh", "restart")
        assert result.code == 1
        assert "no settings of tfserving are remembered; start it with bash run_tf_serving.sh" in result.err

    def test_settings_are_readable_for_their_owner_only(
        self, models: Any, engine: str, ports: dict[str, str]
    ) -> None:
        models.run("run_tf_serving.sh", ENGINE=engine, DOCKER_ARGS="--env\nTOKEN=x", **ports)
        (file,) = (models.root / ".run").glob("*.settings")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_stop_knows_from_the_last_start_that_no_container_runs(models: Any, ports: dict[str, str]) -> None:
    models.run("run_tf_serving.sh", ENGINE="embedded", **ports)
    models.change(engine="denied")
    assert models.run("run_tf_serving.sh", "stop").code == 0
    result = models.run("run_tf_serving.sh", "stop")
    assert result.code == 0
    assert "tfserving is not running" in result.err


class TestList:
    def test_lists_the_servers_of_both_engines(self, models: Any) -> None:
        models.add_container("other", rest="127.0.0.1:2", grpc="127.0.0.1:1")
        models.add_container("old", "exited", rest="127.0.0.1:4", grpc="127.0.0.1:3")
        models.add_container("foreign")
        directory = models.root / ".run"
        directory.mkdir()
        (directory / "gone.pid").write_text("99999999\n")
        (directory / "gone.command").touch()
        result = models.run("run_tf_serving.sh", "list")
        assert (result.code, result.err) == (0, "")
        assert [row.split()[:5] for row in result.out.splitlines()] == [
            ["NAME", "ENGINE", "GRPC", "REST", "STATE"],
            ["gone", "embedded", "-", "-", "exited"],
            ["other", "docker", "127.0.0.1:1", "127.0.0.1:2", "running,"],
            ["old", "docker", "127.0.0.1:3", "127.0.0.1:4", "exited,"],
        ]

    def test_shows_a_running_server(self, models: Any, engine: str, ports: dict[str, str]) -> None:
        models.run("run_tf_serving.sh", ENGINE=engine, **ports)
        row = models.run("run_tf_serving.sh", "list").out.splitlines()[1].split()
        assert row[:2] == ["tfserving", engine]
        assert row[2:4] == [f"127.0.0.1:{port}" for port in ports.values()]
        assert row[4] == "running,"

    def test_fails_if_it_cannot_list_containers(self, models: Any) -> None:
        models.change(engine="denied")
        result = models.run("run_tf_serving.sh", "list")
        assert result.code == 1
        assert "cannot list containers: docker info failed: ERROR: Got permission denied" in result.err
        assert models.run("run_tf_serving.sh", "list", ENGINE="embedded").code == 0


class TestLogs:
    def test_prints_the_log(self, models: Any, engine: str, ports: dict[str, str]) -> None:
        models.run("run_tf_serving.sh", ENGINE=engine, **ports)
        result = models.run("run_tf_serving.sh", "logs")
        expected = "the container logged" if engine == "docker" else "REST API listening"
        assert (result.code, result.err) == (0, "")
        assert expected in result.out

    def test_follows_the_log(self, models: Any, ports: dict[str, str]) -> None:
        models.run("run_tf_serving.sh", ENGINE="embedded", **ports)
        process = models.start("run_tf_serving.sh", "logs", "--follow")
        assert any("listening" in line for line in iter(process.stdout.readline, ""))
        with (models.root / ".run" / "tfserving.log").open("a") as log:
            log.write("more\n")
        assert process.stdout.readline() == "more\n"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)

    def test_follows_the_log_of_a_container(self, models: Any, ports: dict[str, str]) -> None:
        models.run("run_tf_serving.sh", ENGINE="docker", **ports)
        assert models.run("run_tf_serving.sh", "logs", "--follow").code == 0
        assert models.calls("logs")[-1][1] == "--follow"

    def test_prints_the_log_of_an_embedded_server_that_was_stopped(
        self, models: Any, ports: dict[str, str]
    ) -> None:
        models.run("run_tf_serving.sh", ENGINE="embedded", **ports)
        models.run("run_tf_serving.sh", "stop")
        assert "listening" in models.run("run_tf_serving.sh", "logs").out

    def test_fails_without_a_server(self, models: Any) -> None:
        result = models.run("run_tf_serving.sh", "logs")
        assert (result.code, result.out) == (1, "")
        assert "tfserving is not running" in result.err

    def test_only_logs_takes_follow(self, models: Any) -> None:
        rejection = models.run("run_tf_serving.sh", "status", "--follow").rejection
        assert "--follow is an option of logs only" in rejection


class TestEnvFile:
    @pytest.mark.parametrize("form", [["--env-file", "my env"], ["--env-file=my env"]])
    def test_sets_variables_and_flags(self, models: Any, form: list[str]) -> None:
        lines = [
            "# a comment",
            "",
            "MODE=multi",
            "GRPC_PORT='8600'",
            'CONTAINER_NAME="two"',
            "REST_PORT=8601\r",
        ]
        (models.root / "my env").write_text(
            "\n".join([*lines, "DOCKER_ARGS=--env A=b=c", "--saved_model_tags=y z"])
        )
        command = models.run("run_tf_serving.sh", *form, "--dry-run").command
        assert command[:5] == ["docker", "run", "--detach", "--name", "two"]
        assert "127.0.0.1:8600:8500" in command
        assert "127.0.0.1:8601:8501" in command
        assert command[-4:] == ["--env", "A=b=c", "tfserving-ensemble", "--saved_model_tags=y z"]

    def test_the_environment_and_the_command_line_take_precedence(self, models: Any) -> None:
        (models.root / "env").write_text(
            "MODE=multi\nGRPC_PORT=8600\nIMAGE_NAME=mine\n--num_load_threads=1\n"
        )
        command = models.run(
            "run_tf_serving.sh",
            *("single", "--env-file", "env", "--dry-run", "--", "--num_load_threads=2"),
            GRPC_PORT="8700",
            IMAGE_NAME="other",
        ).command
        assert "127.0.0.1:8700:8500" in command
        assert command[-3:] == ["other", "--num_load_threads=1", "--num_load_threads=2"]

    def test_a_default_follows_a_variable_of_the_file(self, models: Any) -> None:
        (models.models / "models.config").rename(models.models / "half" / "models.config")
        models.models.rename(models.root / "mine")
        (models.root / "env").write_text(
            "ENGINE=embedded\nMODELS_DIR=mine\nMODELS_CONFIG=mine/half/models.config\n"
        )
        command = models.run("run_tf_serving.sh", "multi", "--env-file", "env", "--dry-run").command
        assert f"--model_config_file={models.root}/mine/half/models.config" in command

    @pytest.mark.parametrize("script", ["build.sh", "build_ensemble.sh"])
    def test_build_scripts_read_it_too(self, models: Any, script: str) -> None:
        (models.root / "env").write_text("IMAGE_NAME=me/x:2\nVERBOSE=0\nREST_PORT=1\n")
        command = models.run(script, "--env-file", "env", "--dry-run").command
        assert command[:4] == ["docker", "build", "--tag", "me/x:2"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "MODE=multi\nMODEL=digits\n",
                "env:2: MODEL is not a variable of these scripts; --help lists them",
            ),
            ("PATH=/x\n", "env:1: PATH is not a variable of these scripts"),
            ("MODE\n", "env:1 is not valid (expected NAME=VALUE)"),
            ("export MODE=multi\n", "env:1 is not valid (expected NAME=VALUE)"),
            ("mode=multi\n", "env:1 is not valid"),
            ("GRPC_PORT=x\n", "GRPC_PORT=x is not a valid port"),
            ("MODEL_NAME=$(touch hacked)\n", "MODEL_NAME='$(touch hacked)' is not a valid model name"),
        ],
    )
    def test_rejects_invalid_lines(self, models: Any, text: str, message: str) -> None:
        (models.root / "env").write_text(text)
        assert message in models.run("run_tf_serving.sh", "--env-file", "env").rejection
        assert not (models.root / "hacked").exists()

    def test_rejects_a_missing_file(self, models: Any) -> None:
        assert "nowhere is not a readable file" in (
            models.run("run_tf_serving.sh", "--env-file", "nowhere").rejection
        )
        assert "--env-file needs a file" in models.run("run_tf_serving.sh", "--env-file").rejection
        assert "--env-file needs a file" in models.run("build.sh", "--env-file").rejection
