"""deploy/swarm/stack.sh with a fake Swarm."""

from __future__ import annotations

import itertools
import re
import subprocess
from typing import Any

import pytest

from tests.scripts.conftest import ROOT

SCRIPT = "deploy/swarm/stack.sh"
VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")


def environment_of(command: list[str]) -> dict[str, str]:
    """The variables of a command `env NAME=VALUE... docker ...`."""
    return dict(word.split("=", 1) for word in command[1 : command.index("docker")])


def files_of(command: list[str]) -> list[str]:
    """The names of the stack files of the command."""
    names = [word for before, word in itertools.pairwise(command) if before == "--compose-file"]
    return [name.rpartition("/")[2] for name in names]


class TestUp:
    def test_dry_run_prints_the_command(self, checkout: Any) -> None:
        command = checkout.run(SCRIPT, "up", "--dry-run", MODEL_NAME="Iris").command
        variables = environment_of(command)
        assert variables["IMAGE_NAME"] == variables["CANARY_IMAGE"] == "tfserving-iris"
        assert (variables["REPLICAS"], variables["CANARY_REPLICAS"]) == ("2", "0")
        assert (variables["DRAIN_SECONDS"], variables["STOP_SECONDS"]) == ("5", "20")
        assert command[command.index("docker") :][:3] == ["docker", "stack", "deploy"]
        assert files_of(command) == ["stack.yml"]
        assert command[-1] == "tfserving"
        assert checkout.calls() == []

    def test_sets_every_variable_of_the_stack_files(self, checkout: Any) -> None:
        variables = {"GPUS": "1", "MODELS_DIR": "/srv/models", "GATEWAY_DIR": "/srv/gateway"}
        variables |= {"GATEWAY_PORT": "8443", "MONITORING": "1"}
        command = checkout.run(SCRIPT, "up", "--dry-run", **variables).command
        folder = ROOT / "deploy" / "swarm"
        assert {folder / name for name in files_of(command)} == set(folder.glob("*.yml"))
        used = {name for path in folder.glob("*.yml") for name in VARIABLE.findall(path.read_text())}
        assert used == environment_of(command).keys()

    def test_passes_server_flags_as_words(self, checkout: Any) -> None:
        flags = ("--enable_batching", "--grpc_channel_arguments=a b=1")
        command = checkout.run(SCRIPT, "up", "--dry-run", "--", *flags).command
        expected = "--enable_batching '--grpc_channel_arguments=a b=1'"
        assert environment_of(command)["SERVER_FLAGS"] == expected

    def test_gateways_get_the_files_and_the_model(self, checkout: Any, tmp_path: Any) -> None:
        for name in ("gateway/routes.json", "gateway-tls/tls.crt", "gateway-tls/tls.key"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        variables = {"GATEWAY_DIR": f"{tmp_path}/gateway", "MODEL_NAME": "iris", "STACK": "ranking"}
        result = checkout.run(SCRIPT, "up", **variables, GATEWAY_PORT="8443")
        assert result.code == 0, result.err
        assert "gateway: 2 of 2 replicas run envoyproxy/envoy" in result.err
        assert "ranking-servers, and to port 8443 of the nodes of the gateways (gRPC" in result.err
        bootstrap = (checkout.root / ".run" / "ranking-gateway.yaml").read_text()
        assert "path: /v1/models/iris " in bootstrap
        command = checkout.run(SCRIPT, "up", "--dry-run", **variables).command
        found = environment_of(command)
        owner = tmp_path.stat()
        assert found["GATEWAY_USER"] == f"{owner.st_uid}:{owner.st_gid}"
        assert found["TLS_DIR"] == f"{tmp_path}/gateway-tls"
        assert files_of(command) == ["stack.yml", "gateway.yml"]
        other = checkout.run(SCRIPT, "up", "--dry-run", **{**variables, "MODEL_NAME": "digits"}).command
        assert environment_of(other)["GATEWAY_CHECKSUM"] != found["GATEWAY_CHECKSUM"]

    def test_notes_a_port_without_gateways(self, checkout: Any) -> None:
        err = checkout.run(SCRIPT, "up", "--dry-run", GATEWAY_PORT="8443").err
        assert "note: GATEWAY_PORT has no effect without GATEWAY_DIR" in err

    def test_monitoring_turns_on_metrics(self, checkout: Any) -> None:
        command = checkout.run(SCRIPT, "up", "--dry-run", "--", "--enable_batching", MONITORING="1").command
        flags = "--monitoring_config_file=/etc/tfserving/monitoring.config --enable_batching"
        assert environment_of(command)["SERVER_FLAGS"] == flags

    @pytest.mark.parametrize(
        ("variables", "flags", "environment"),
        [
            ({}, "", ""),
            ({"XLA": "true"}, "--xla_cpu_compilation_enabled=true", ""),
            ({"XLA": "auto", "GPUS": "1"}, "--xla_gpu_compilation_enabled=true", "--tf_xla_auto_jit=2"),
        ],
    )
    def test_xla_compiles_for_the_device_of_the_servers(
        self, checkout: Any, variables: dict[str, str], flags: str, environment: str
    ) -> None:
        found = environment_of(checkout.run(SCRIPT, "up", "--dry-run", **variables).command)
        assert (found["SERVER_FLAGS"], found["TF_XLA_FLAGS"]) == (flags, environment)

    def test_reads_variables_from_a_file(self, checkout: Any) -> None:
        file = checkout.tmp / "stack.env"
        file.write_text(
            "STACK=ranking\nIMAGE_NAME=ranker:3\nREPLICAS=5\nDRAIN_SECONDS=9\n--enable_batching\n"
        )
        command = checkout.run(SCRIPT, "up", "--dry-run", f"--env-file={file}", REPLICAS="7").command
        variables = environment_of(command)
        assert (variables["IMAGE_NAME"], variables["REPLICAS"]) == ("ranker:3", "7")
        assert (variables["DRAIN_SECONDS"], variables["UPDATE_MONITOR"]) == ("9", "10")
        assert (variables["SERVER_FLAGS"], command[-1]) == ("--enable_batching", "ranking")

    @pytest.mark.parametrize(
        ("image", "mode"),
        [
            ("digits", "never"),
            ("team/digits:1", "never"),
            ("registry.example.com/digits", "always"),
            ("registry:5000/team/digits", "always"),
            ("localhost/digits", "always"),
        ],
    )
    def test_looks_up_digests_only_in_registries(self, checkout: Any, image: str, mode: str) -> None:
        command = checkout.run(SCRIPT, "up", "--dry-run", IMAGE_NAME=image).command
        assert command[command.index("--resolve-image") + 1] == mode

    def test_keeps_images_and_replicas_that_are_not_set(self, checkout: Any) -> None:
        first = checkout.run(SCRIPT, "up", IMAGE_NAME="digits:1", REPLICAS="3", CANARY_REPLICAS="1")
        assert first.code == 0, first.err
        assert "stable: 3 of 3 replicas run digits:1" in first.err
        assert "canary: 1 of 1 replicas run digits:1" in first.err
        assert checkout.run(SCRIPT, "up", CANARY_IMAGE="digits:2").code == 0
        services = checkout.state["services"]
        assert services["tfserving_stable"] == {"image": "digits:1", "replicas": 3, "update": ""}
        assert services["tfserving_canary"] == {"image": "digits:2", "replicas": 1, "update": ""}


class TestUpdate:
    @pytest.fixture
    def running(self, checkout: Any) -> Any:
        assert checkout.run(SCRIPT, "up", IMAGE_NAME="digits:1").code == 0
        return checkout

    def test_replaces_the_servers_of_a_group_and_rolls_back(self, running: Any) -> None:
        result = running.run(SCRIPT, "update", IMAGE_NAME="digits:2", REPLICAS="4")
        assert result.code == 0, result.err
        assert "stable: 4 of 4 replicas run digits:2" in result.err
        assert running.state["services"]["tfserving_canary"]["image"] == "digits:1"
        result = running.run(SCRIPT, "rollback")
        assert result.code == 0, result.err
        assert "stable: 2 of 2 replicas run digits:1" in result.err
        result = running.run(SCRIPT, "rollback")
        assert (result.code, "stable has no earlier state" in result.err) == (1, True)

    def test_updates_the_canary_alone(self, running: Any) -> None:
        result = running.run(SCRIPT, "update", "canary", CANARY_IMAGE="digits:2", CANARY_REPLICAS="1")
        assert result.code == 0, result.err
        assert running.state["services"]["tfserving_stable"]["image"] == "digits:1"
        assert running.state["services"]["tfserving_canary"]["replicas"] == 1

    def test_reports_an_update_that_was_rolled_back(self, running: Any) -> None:
        result = running.run(SCRIPT, "update", IMAGE_NAME="digits:broken")
        assert result.code == 1
        assert (
            'tfserving_stable.1 digits:broken: Failed 9 seconds ago "task: non-zero exit (2)"' in result.err
        )
        assert "what the servers logged" in result.err
        assert "error: stable: the update failed and was rolled back after" in result.err

    def test_reports_only_failures_of_the_present_update(self, running: Any) -> None:
        running.run(SCRIPT, "update", IMAGE_NAME="digits:broken-1")
        err = running.run(SCRIPT, "update", IMAGE_NAME="digits:broken-2").err
        assert "digits:broken-2: Failed" in err
        assert "digits:broken-1: Failed" not in err

    def test_status_prints_the_servers(self, running: Any) -> None:
        result = running.run(SCRIPT, "status")
        assert result.code == 0
        assert "stable: 2 of 2 replicas run digits:1\n" in result.out
        assert "tfserving_stable.1  node-1  Running 2 minutes ago" in result.out

    def test_down_removes_the_stack(self, running: Any) -> None:
        assert "removed tfserving" in running.run(SCRIPT, "down").err
        assert running.state["services"] == {}
        assert "there is no stack tfserving" in running.run(SCRIPT, "down").err

    def test_logs_prints_those_of_a_group(self, running: Any) -> None:
        assert running.run(SCRIPT, "logs", "canary", "--follow").out == "what the servers logged\n"
        assert running.calls("service", "logs") == [
            ["service", "logs", "--raw", "--follow", "tfserving_canary"]
        ]


class TestRejects:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "the action is missing; use one of up, update, rollback, status, down, logs"),
            (["up", "down"], "up and down are mutually exclusive; use one of them"),
            (["update", "stable", "canary"], "stable and canary are mutually exclusive; use one of them"),
            (["up", "stable"], "up does not take stable; omit it"),
            (["update", "gateway"], "update does not take gateway; omit it"),
            (["status", "--dry-run"], "status does not support --dry-run; omit it"),
            (["up", "--follow"], "--follow is an option of logs only; omit it"),
            (["update", "--", "--enable_batching"], "update takes no server flags; use up"),
            (["up", "--", "--enable_bathing"], "--enable_bathing is not a flag of tensorflow_model_server"),
            (["update"], "IMAGE_NAME is not set; set it to the new image of stable"),
            (["update", "canary"], "CANARY_IMAGE is not set; set it to the new image of canary"),
            (["up", "now"], "unknown argument now"),
        ],
    )
    def test_invalid_arguments(self, checkout: Any, arguments: list[str], message: str) -> None:
        assert message in checkout.run(SCRIPT, *arguments).rejection

    @pytest.mark.parametrize(
        ("variables", "message"),
        [
            ({"STACK": "a b"}, "STACK='a b' is not a valid stack name"),
            ({"REPLICAS": "two"}, "REPLICAS=two is not a valid number (0-9999)"),
            ({"GPUS": "2"}, "GPUS=2 is not a valid value (1)"),
            ({"XLA": "on"}, "XLA=on is not a valid value (true, auto, false)"),
            ({"MEMORY": "lots"}, "MEMORY=lots is not a valid memory size"),
            (
                {"MODELS_DIR": "models"},
                "MODELS_DIR=models is not an absolute path; it is a path on every node",
            ),
            ({"IMAGE_NAME": "A"}, "IMAGE_NAME=A is not a valid image reference"),
            ({"DRAIN_SECONDS": "x"}, "DRAIN_SECONDS=x is not a valid number of seconds"),
            (
                {"GATEWAY_DIR": "gateway"},
                "GATEWAY_DIR=gateway is not an absolute path; it is a path on every",
            ),
            ({"GATEWAY_DIR": "/g", "TLS_DIR": "t"}, "TLS_DIR=t is not an absolute path"),
            ({"GATEWAY_DIR": "/g", "GATEWAY_PORT": "0"}, "GATEWAY_PORT=0 is not a valid port (1-65535)"),
            ({"MONITORING": "yes"}, "MONITORING=yes is not a valid value (1)"),
            ({"UPDATE_MONITOR": "1s"}, "UPDATE_MONITOR=1s is not a valid number of seconds"),
        ],
    )
    def test_invalid_variables(self, checkout: Any, variables: dict[str, str], message: str) -> None:
        assert message in checkout.run(SCRIPT, "up", "--dry-run", **variables).rejection

    def test_a_gateway_without_its_files(self, checkout: Any, tmp_path: Any) -> None:
        directory = tmp_path / "gateway"
        assert (
            f"GATEWAY_DIR={directory} has no routes.json; create it: cp -R"
            in checkout.run(SCRIPT, "up", GATEWAY_DIR=str(directory)).rejection
        )
        directory.mkdir()
        (directory / "routes.json").touch()
        assert (
            f"TLS_DIR={tmp_path}/gateway-tls has no tls.crt or no tls.key"
            in checkout.run(SCRIPT, "up", GATEWAY_DIR=str(directory)).rejection
        )

    @pytest.mark.parametrize("state", ["inactive false", "active false"])
    def test_a_machine_that_is_not_a_manager(self, checkout: Any, state: str) -> None:
        checkout.change(swarm=state)
        result = checkout.run(SCRIPT, "up")
        assert result.code == 1
        assert (
            f"this machine is not a Swarm manager ({state}); create a Swarm with docker swarm init"
            in result.err
        )

    def test_an_update_without_a_stack(self, checkout: Any) -> None:
        result = checkout.run(SCRIPT, "update", IMAGE_NAME="digits:2")
        assert result.code == 1
        assert "there is no service tfserving_stable; create the stack with" in result.err


def test_help_lists_every_variable(tmp_path: Any) -> None:
    text = (ROOT / SCRIPT).read_text()
    done = subprocess.run(["bash", str(ROOT / SCRIPT), "--help"], capture_output=True, text=True, check=True)
    names = re.findall(r'^: "\$\{([A-Z_]+):=\}"', text, re.M)
    assert re.findall(r"^  ([A-Z_]+) {2,}\S", done.stdout, re.M) == names
