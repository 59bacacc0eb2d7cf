"""run_tf_serving.sh with docker: the exact command, and what it rejects before running it."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

GPU_UUID = "GPU-3a23c669-1f69-c64e-cf85-44e9b07e7a2a"
OTHER_GPU = "MIG-3a23c669-1f69-c64e-cf85-44e9b07e7a2b"


def dry_run(checkout: Any, *arguments: str, **variables: str) -> list[str]:
    command: list[str] = checkout.run("run_tf_serving.sh", *arguments, "--dry-run", **variables).command
    return command


def values_of(command: list[str], option: str) -> list[str]:
    """The values of an option."""
    return [value for name, value in itertools.pairwise(command) if name == option]


class TestCommand:
    def test_runs_the_image_read_only_and_without_privileges(self, checkout: Any) -> None:
        assert dry_run(checkout) == [
            *("docker", "run", "--detach", "--name", "tfserving"),
            *("--label", "tfserving.grpc=127.0.0.1:8500", "--label", "tfserving.rest=127.0.0.1:8501"),
            *("--publish", "127.0.0.1:8500:8500", "--publish", "127.0.0.1:8501:8501"),
            *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--pids-limit", "4096"),
            *("--restart", "unless-stopped", "--stop-timeout", "15"),
            *("--log-opt", "max-size=10m", "--log-opt", "max-file=3"),
            "tfserving-digits",
        ]
        assert [call[0] for call in checkout.calls()] == ["info"]

    def test_multi_mode_runs_another_image(self, checkout: Any) -> None:
        single, multi = dry_run(checkout), dry_run(checkout, "multi")
        assert multi == [*single[:-1], "tfserving-ensemble"]
        assert dry_run(checkout, MODE="multi") == multi
        assert dry_run(checkout, "single", MODE="multi") == single

    def test_dry_run_prints_the_command_that_runs(self, checkout: Any, ports: dict[str, str]) -> None:
        checkout.add_single_image()
        command = dry_run(checkout, **ports)
        assert checkout.run("run_tf_serving.sh", **ports).code == 0
        assert checkout.calls("run") == [command[1:]]

    def test_sets_names_and_ports(self, checkout: Any) -> None:
        command = dry_run(
            checkout,
            MODEL_NAME="Flowers",
            IMAGE_NAME="registry.example.com:5000/me/flowers:2",
            CONTAINER_NAME="flowers.2",
            BIND_ADDRESS="0.0.0.0",
            GRPC_PORT="08600",
            REST_PORT="8601",
        )
        assert values_of(command, "--name") == ["flowers.2"]
        assert values_of(command, "--publish") == ["0.0.0.0:8600:8500", "0.0.0.0:8601:8501"]
        assert values_of(command, "--env") == ["MODEL_NAME=Flowers"]
        assert command[-1] == "registry.example.com:5000/me/flowers:2"

    def test_publishes_on_an_ipv6_address(self, checkout: Any) -> None:
        assert values_of(dry_run(checkout, BIND_ADDRESS="::1"), "--publish") == [
            "[::1]:8500:8500",
            "[::1]:8501:8501",
        ]

    def test_a_drain_extends_the_stop_timeout(self, checkout: Any) -> None:
        command = dry_run(checkout, DRAIN_SECONDS="030", RESTART_POLICY="on-failure:3")
        assert values_of(command, "--env") == ["DRAIN_SECONDS=30"]
        assert values_of(command, "--stop-timeout") == ["45"]
        assert values_of(command, "--restart") == ["on-failure:3"]

    def test_a_connection_age_is_passed_to_the_image(self, checkout: Any) -> None:
        ages = {"MAX_CONNECTION_AGE_SECONDS": "060", "MAX_CONNECTION_AGE_GRACE_SECONDS": "5"}
        assert values_of(dry_run(checkout, **ages), "--env") == [
            "MAX_CONNECTION_AGE_SECONDS=60",
            "MAX_CONNECTION_AGE_GRACE_SECONDS=5",
        ]

    @pytest.mark.parametrize("memory", ["4g", "512M", "1073741824"])
    @pytest.mark.parametrize("cpus", ["2", "1.5", "0.25", ".5", "10"])
    def test_limits_memory_and_cpus(self, checkout: Any, memory: str, cpus: str) -> None:
        command = dry_run(checkout, MEMORY=memory, CPUS=cpus)
        assert values_of(command, "--memory") == values_of(command, "--memory-swap") == [memory]
        assert values_of(command, "--cpus") == [cpus]

    @pytest.mark.parametrize(
        ("driver", "limited"), [("json-file", True), ("local", True), ("journald", False), ("none", False)]
    )
    def test_limits_the_log_if_the_driver_supports_it(
        self, checkout: Any, driver: str, limited: bool
    ) -> None:
        checkout.change(log_driver=driver)
        assert ("--log-opt" in dry_run(checkout)) is limited

    @pytest.mark.parametrize(
        ("variables", "flags"),
        [
            ({"GPU_MEMORY_FRACTION": "0.5"}, ["--per_process_gpu_memory_fraction=0.5"]),
            ({"XLA": "true"}, ["--xla_cpu_compilation_enabled=true"]),
            ({"XLA": "auto", "GPU": "0"}, ["--xla_gpu_compilation_enabled=true"]),
            ({"XLA": "false"}, []),
            ({"ENABLE_MODEL_WARMUP": "false"}, ["--enable_model_warmup=false"]),
            ({"ENABLE_MODEL_WARMUP": "true"}, ["--enable_model_warmup=true"]),
            ({"MODEL_CONFIG_FILE_POLL_WAIT_SECONDS": "5"}, ["--model_config_file_poll_wait_seconds=5"]),
            ({}, []),
        ],
    )
    def test_settings_become_server_flags(
        self, checkout: Any, variables: dict[str, str], flags: list[str]
    ) -> None:
        command = dry_run(checkout, "multi", **variables)
        assert command[command.index("tfserving-ensemble") + 1 :] == flags

    def test_server_flags_of_the_user_come_last(self, checkout: Any) -> None:
        given = ["--enable_model_warmup=true", "--grpc_channel_arguments=a b;'c'"]
        command = checkout.run(
            "run_tf_serving.sh", "--dry-run", "--", *given, ENABLE_MODEL_WARMUP="false"
        ).command
        assert command[-3:] == ["--enable_model_warmup=false", *given]

    def test_notes_flags_of_the_embedded_server(self, checkout: Any) -> None:
        result = checkout.run("run_tf_serving.sh", "--dry-run", "--", "--access_log=-")
        assert (
            "note: tensorflow_model_server ignores --access_log, a flag of the embedded server" in result.err
        )
        assert result.command[-1] == "--access_log=-"

    def test_docker_args_come_after_the_other_options(self, checkout: Any) -> None:
        command = dry_run(checkout, DOCKER_ARGS="--memory 4g\n--env 'A=b c' --restart no")
        assert command[-7:-1] == ["--memory", "4g", "--env", "A=b c", "--restart", "no"]

    def test_sets_no_log_limit_for_another_log_driver(self, checkout: Any) -> None:
        assert "--log-opt" not in dry_run(checkout, DOCKER_ARGS="--log-driver=journald")

    def test_dry_run_works_without_a_daemon(self, checkout: Any) -> None:
        checkout.change(engine="down")
        assert "max-size=10m" in dry_run(checkout, ENGINE="docker")


class TestXla:
    def test_auto_clusters_the_operations_of_the_device(self, checkout: Any) -> None:
        on_cpu, on_gpu = (dry_run(checkout, XLA="auto", GPU=gpu) for gpu in ("", "0"))
        assert values_of(on_cpu, "--env") == ["TF_XLA_FLAGS=--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"]
        assert values_of(on_gpu, "--env") == ["TF_XLA_FLAGS=--tf_xla_auto_jit=2"]

    @pytest.mark.parametrize("value", ["true", "false", ""])
    def test_other_values_do_not_cluster(self, checkout: Any, value: str) -> None:
        assert "TF_XLA_FLAGS" not in " ".join(dry_run(checkout, XLA=value))


class TestGpu:
    @pytest.mark.parametrize("gpu", ["0", "0,1", GPU_UUID, f"{GPU_UUID},{OTHER_GPU}", "2, 3"])
    def test_quotes_the_value_for_docker(self, checkout: Any, gpu: str) -> None:
        assert values_of(dry_run(checkout, GPU=gpu), "--gpus") == [f'"device={gpu.replace(" ", "")}"']

    def test_is_not_passed_on_unless_set(self, checkout: Any) -> None:
        assert "--gpus" not in dry_run(checkout)

    @pytest.mark.parametrize("env", ["CUDA_VERSION=12.5.1", "NVIDIA_VISIBLE_DEVICES=all"])
    def test_runs_an_image_with_cuda(self, checkout: Any, ports: dict[str, str], env: str) -> None:
        checkout.add_gpus("NVIDIA H200", "NVIDIA H200")
        checkout.add_single_image("digits", "PATH=/bin", env)
        result = checkout.run("run_tf_serving.sh", GPU="0,1", GPU_MEMORY_FRACTION=".5", **ports)
        assert result.code == 0
        (call,) = checkout.calls("run")
        assert values_of(call, "--gpus") == ['"device=0,1"']
        assert call[-1] == "--per_process_gpu_memory_fraction=.5"

    @pytest.mark.parametrize(
        ("variables", "image"),
        [
            ({}, "TF_SERVING_IMAGE=tensorflow/serving:2.20.0-gpu bash build.sh"),
            ({"TF_SERVING_IMAGE": "me/s:1-gpu"}, "TF_SERVING_IMAGE=me/s:1-gpu bash build.sh"),
        ],
    )
    def test_rejects_an_image_without_cuda(
        self, checkout: Any, ports: dict[str, str], variables: dict[str, str], image: str
    ) -> None:
        checkout.add_single_image("digits", "PATH=/bin", "MY_CUDA_VERSION=1")
        rejection = checkout.run("run_tf_serving.sh", GPU="0", **ports, **variables).rejection
        assert "GPU=0, but image tfserving-digits has no CUDA; build it from the -gpu image" in rejection
        assert rejection.endswith(image)
        assert checkout.calls("run") == []

    @pytest.mark.parametrize(
        ("gpus", "gpu", "message"),
        [
            (
                2,
                "7",
                "GPU=7 names 7, which is not a GPU of this machine (found 0 NVIDIA H200, 1 NVIDIA H200)",
            ),
            (
                1,
                "0,1",
                "GPU=0,1 names 1, which is not a GPU of this machine (found 0 NVIDIA H200); set it to",
            ),
            (1, GPU_UUID, f"GPU={GPU_UUID} names {GPU_UUID}, which is not a GPU of this machine"),
            (
                0,
                "7",
                "GPU=7, but this machine has no GPU: nvidia-smi -L reports: No devices were found; inst",
            ),
        ],
    )
    def test_rejects_a_gpu_that_does_not_exist(
        self, checkout: Any, ports: dict[str, str], gpus: int, gpu: str, message: str
    ) -> None:
        checkout.add_gpus(*["NVIDIA H200"] * gpus)
        checkout.add_single_image("digits", "CUDA_VERSION=12.5.1")
        assert message in checkout.run("run_tf_serving.sh", GPU=gpu, **ports).rejection
        assert checkout.calls("run") == []

    @pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="nvidia-smi is installed")
    def test_rejects_a_gpu_without_nvidia_smi(self, checkout: Any, ports: dict[str, str]) -> None:
        checkout.nvidia_smi.unlink()
        checkout.add_single_image("digits", "CUDA_VERSION=12.5.1")
        rejection = checkout.run("run_tf_serving.sh", GPU="0", **ports).rejection
        assert "GPU=0, but this machine has no GPU: nvidia-smi is not installed; install NVIDIA" in rejection

    def test_accepts_uuids_that_nvidia_smi_lists(self, checkout: Any, ports: dict[str, str]) -> None:
        checkout.add_gpus("NVIDIA H200", "NVIDIA H200")
        checkout.add_single_image("digits", "CUDA_VERSION=12.5.1")
        assert checkout.run("run_tf_serving.sh", GPU="GPU-3a23c669-0,1", **ports).code == 0

    @pytest.mark.parametrize("where", ["DOCKER_HOST", "context"])
    def test_leaves_the_gpus_of_a_remote_daemon_to_docker(
        self, checkout: Any, ports: dict[str, str], where: str
    ) -> None:
        checkout.add_single_image("digits", "CUDA_VERSION=12.5.1")
        variables = {"DOCKER_HOST": "ssh://gpu-server"} if where == "DOCKER_HOST" else {}
        checkout.change(address="tcp://192.0.2.1:2376" if where == "context" else "unix:///x")
        assert checkout.run("run_tf_serving.sh", GPU="7", **ports, **variables).code == 0

    @pytest.mark.parametrize("gpu", ["all", "-1", "0,", ",0", "0;id", "GPU-", "a", '0"', "0 1,x", "device=0"])
    def test_rejects_invalid_values(self, checkout: Any, gpu: str) -> None:
        assert (
            "is not a valid GPU (an index such as 0, a UUID"
            in checkout.run("run_tf_serving.sh", GPU=gpu).rejection
        )


class TestMounts:
    @pytest.mark.parametrize(
        ("variable", "flags"),
        [
            ("BATCHING_PARAMETERS_FILE", ["--enable_batching=true", "--batching_parameters_file"]),
            ("MONITORING_CONFIG_FILE", ["--monitoring_config_file"]),
            ("SSL_CONFIG_FILE", ["--ssl_config_file"]),
        ],
    )
    def test_a_file_is_mounted_and_its_flag_is_set(
        self, checkout: Any, tmp_path: Path, variable: str, flags: list[str]
    ) -> None:
        file = tmp_path / "my, \"file\" 'x'.txt"
        file.write_text("")
        command = dry_run(checkout, **{variable: str(file)})
        name = variable.lower()
        quoted = str(file).replace('"', '""')
        assert values_of(command, "--mount") == [
            f'type=bind,"source={quoted}",target=/etc/tfserving/{name},readonly'
        ]
        flags[-1] += f"=/etc/tfserving/{name}"
        assert command[command.index("tfserving-digits") + 1 :] == flags

    def test_advice_for_a_private_key_opens_it_to_one_group_only(self, checkout: Any, tmp_path: Path) -> None:
        file = tmp_path / "ssl.config"
        file.write_text("")
        file.chmod(0o600)
        rejection = checkout.run("run_tf_serving.sh", "--dry-run", SSL_CONFIG_FILE=str(file)).rejection
        assert "not readable for the image's user 65532, and contains a private key" in rejection
        assert f"sudo chgrp 65532 {file} && chmod 640 {file}, or run the container as yourself" in rejection
        assert "o+r" not in rejection

    @pytest.mark.parametrize(("mode", "warned"), [(0o604, True), (0o640, False)])
    def test_warns_about_a_private_key_that_every_user_can_read(
        self, checkout: Any, tmp_path: Path, mode: int, warned: bool
    ) -> None:
        file = tmp_path / "ssl.config"
        file.write_text("")
        file.chmod(mode)
        arguments = {"SSL_CONFIG_FILE": str(file), "DOCKER_ARGS": "--user 0:0"}
        result = checkout.run("run_tf_serving.sh", "--dry-run", **arguments)
        assert result.code == 0
        assert ("contains a private key, and every user of this machine can read it" in result.err) is warned

    def test_a_name_that_begins_with_a_dash_is_not_an_option(self, checkout: Any, tmp_path: Path) -> None:
        (tmp_path / "kept").touch()
        (tmp_path / "-delete").write_text("")
        command = dry_run(checkout, BATCHING_PARAMETERS_FILE="-delete", cwd=tmp_path)
        assert f"source={tmp_path}/-delete," in " ".join(command)
        checkout.add_version("digits", 1)
        checkout.models.rename(tmp_path / "-quit")
        dry_run(checkout, MODELS_DIR="-quit", cwd=tmp_path)
        checkout.models.mkdir()
        checkout.add_version("digits", 1)
        checkout.add_version("half", 1)
        (tmp_path / "etc").mkdir()
        checkout.add_config().rename(tmp_path / "etc" / "-exec")
        command = dry_run(checkout, "multi", MODELS_CONFIG="-exec", cwd=tmp_path / "etc")
        assert command[-1] == "--model_config_file=/etc/tfserving/config/-exec"
        assert (tmp_path / "kept").exists()

    @pytest.mark.parametrize("name", ["BATCHING_PARAMETERS_FILE", "MODELS_CONFIG"])
    def test_rejects_configs_that_could_block_or_never_end(
        self, checkout: Any, tmp_path: Path, name: str
    ) -> None:
        os.mkfifo(tmp_path / "fifo")
        with (tmp_path / "sparse").open("wb") as file:
            file.truncate(2**24 + 1)
        for path, message in [
            ("/dev/zero", "is not a regular file"),
            (f"{tmp_path}/fifo", "is not a regular file"),
            (f"{tmp_path}/sparse", "is too large for a config (at most 16 MiB)"),
        ]:
            result = checkout.run("run_tf_serving.sh", "multi", "--dry-run", **{name: path})
            assert f"{name}={path} {message}" in result.rejection

    def test_models_are_mounted(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        command = dry_run(checkout, MODELS_DIR="./models/")
        assert values_of(command, "--mount") == [
            f"type=bind,source={checkout.models},target=/models,readonly"
        ]
        assert command[-1] == "tfserving-digits"

    def test_a_link_is_not_resolved(self, checkout: Any, tmp_path: Path) -> None:
        checkout.add_version("digits", 1)
        (tmp_path / "current").symlink_to(checkout.models)
        command = dry_run(checkout, MODELS_DIR="current", cwd=tmp_path)
        assert f"type=bind,source={tmp_path}/current,target=/models,readonly" in command

    def test_serves_another_model_of_the_mounted_directory(
        self, checkout: Any, ports: dict[str, str]
    ) -> None:
        checkout.add_single_image()
        checkout.add_version("flowers", 1)
        chosen = {"MODELS_DIR": "models", "MODEL_NAME": "flowers", "IMAGE_NAME": "tfserving-digits"}
        result = checkout.run("run_tf_serving.sh", **chosen, **ports)
        assert result.code == 0
        assert values_of(checkout.calls("run")[0], "--env") == ["MODEL_NAME=flowers"]

    def test_a_config_in_the_models_directory_needs_no_mount(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        checkout.add_version("half", 1)
        checkout.add_config()
        command = dry_run(checkout, "multi", MODELS_DIR="models", MODEL_CONFIG_FILE_POLL_WAIT_SECONDS="1")
        assert values_of(command, "--mount") == [
            f"type=bind,source={checkout.models},target=/models,readonly"
        ]
        assert "tfserving.models_config=/models/models.config" in values_of(command, "--label")
        assert command[-2:] == ["tfserving-ensemble", "--model_config_file_poll_wait_seconds=1"]

    def test_a_flag_names_another_config_in_the_models_directory(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        checkout.add_version("half", 1)
        (checkout.models / "configs").mkdir()
        checkout.add_config(name="configs/b.config")
        command = dry_run(checkout, "multi", MODELS_DIR="models", MODELS_CONFIG="models/configs/b.config")
        assert len(values_of(command, "--mount")) == 1
        assert command[-1] == "--model_config_file=/models/configs/b.config"

    def test_another_config_is_mounted_with_its_directory(self, checkout: Any, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        checkout.add_config().rename(tmp_path / "etc" / "m.config")
        command = dry_run(checkout, "multi", MODELS_CONFIG=str(tmp_path / "etc" / "m.config"))
        assert values_of(command, "--mount") == [
            f"type=bind,source={tmp_path}/etc,target=/etc/tfserving/config,readonly"
        ]
        assert command[-1] == "--model_config_file=/etc/tfserving/config/m.config"
        assert "tfserving.models_config=/etc/tfserving/config/m.config" in values_of(command, "--label")

    def test_rejects_a_config_that_the_image_cannot_read(self, checkout: Any, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir(mode=0o700)
        checkout.add_config().rename(tmp_path / "etc" / "m.config")
        config = {"MODELS_CONFIG": str(tmp_path / "etc" / "m.config")}
        rejection = checkout.run("run_tf_serving.sh", "multi", "--dry-run", **config).rejection
        assert (
            f"{tmp_path}/etc is not readable for the image's user 65532; chmod o+rX {tmp_path}/etc,"
            in rejection
        )

    @pytest.mark.parametrize("closed", [".", "digits/1", "digits/1/saved_model.pb"])
    def test_rejects_models_that_the_image_cannot_read(self, checkout: Any, closed: str) -> None:
        checkout.add_version("digits", 1)
        (checkout.models / ".staging").mkdir(mode=0o700)
        assert dry_run(checkout, MODELS_DIR="models")
        (checkout.models / closed).chmod(0o700)
        rejection = checkout.run("run_tf_serving.sh", "--dry-run", MODELS_DIR="models").rejection
        assert f"{checkout.models / closed} is not readable for the image's user 65532; chmod" in rejection
        assert f"DOCKER_ARGS='--user {os.getuid()}:{os.getgid()}'" in rejection
        assert dry_run(checkout, MODELS_DIR="models", DOCKER_ARGS="--user 0:0")

    def test_checks_a_hidden_models_directory(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        checkout.models.rename(checkout.root / ".models")
        (checkout.root / ".models" / "digits" / "1").chmod(0o700)
        rejection = checkout.run("run_tf_serving.sh", "--dry-run", MODELS_DIR=".models").rejection
        assert "/.models/digits/1 is not readable for the image's user 65532" in rejection

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change owners")
    @pytest.mark.parametrize(
        ("owner", "group", "mode", "readable"),
        [
            (65532, 0, 0o400, True),
            (65532, 0, 0o044, False),
            (0, 65532, 0o040, True),
            (0, 65532, 0o404, False),
        ],
    )
    def test_permissions_of_the_images_user_and_group_count(
        self, checkout: Any, owner: int, group: int, mode: int, readable: bool
    ) -> None:
        file = checkout.add_version("digits", 1) / "1" / "saved_model.pb"
        os.chown(file, owner, group)
        file.chmod(mode)
        result = checkout.run("run_tf_serving.sh", "--dry-run", MODELS_DIR="models")
        assert (result.code == 0) is readable

    @pytest.mark.parametrize("mode", ["single", "multi"])
    @pytest.mark.parametrize("target", ["{outside}/2", "../../outside/2", "{models}/digits/1"])
    def test_rejects_links_that_do_not_work_in_the_container(
        self, checkout: Any, mode: str, target: str
    ) -> None:
        model = checkout.add_version("digits", 1)
        checkout.add_version("half", 1)
        checkout.add_config()
        outside = checkout.root / "outside"
        (model / "1").rename(model / "3")
        outside.mkdir()
        (model / "3").rename(outside / "2")
        checkout.add_version("digits", 1)
        text = target.format(outside=outside, models=checkout.models)
        (model / "2").symlink_to(text)
        rejection = checkout.run("run_tf_serving.sh", mode, "--dry-run", MODELS_DIR="models").rejection
        assert f"{model}/2 is a link to {text}, which does not exist in the container" in rejection
        mounted = {"DOCKER_ARGS": f"--volume {outside}:{outside}"}
        assert dry_run(checkout, mode, MODELS_DIR="models", **mounted)

    def test_accepts_links_inside_the_mounted_directory(self, checkout: Any) -> None:
        model = checkout.add_version("digits", 1)
        (model / "2").symlink_to("../digits/1")
        (checkout.models / "shared").write_bytes(b"x")
        (model / "1" / "first").symlink_to("../../shared")
        (model / "1" / "second").symlink_to("first")
        (model / ".staging").symlink_to("/nowhere")
        (checkout.models / "alias").symlink_to("digits")
        assert dry_run(checkout, MODELS_DIR="models")
        assert dry_run(checkout, MODELS_DIR="models", MODEL_NAME="alias")

    def test_rejects_a_config_that_is_a_link_to_another_directory(
        self, checkout: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "etc").mkdir()
        config = tmp_path / "etc" / "m.config"
        config.symlink_to(checkout.add_config())
        rejection = checkout.run(
            "run_tf_serving.sh", "multi", "--dry-run", MODELS_CONFIG=str(config)
        ).rejection
        assert f"{config} is a link to {checkout.models}/models.config, which does not exist" in rejection


class TestRejects:
    @pytest.mark.parametrize(
        ("variables", "message"),
        [
            ({"MODE": "both"}, "MODE=both is not a valid mode (single, multi)"),
            ({"ENGINE": "podman"}, "ENGINE=podman is not a valid engine (auto, docker, embedded)"),
            ({"CONTAINER_NAME": "a"}, "is not a valid container name (two or more letters"),
            ({"CONTAINER_NAME": "../a"}, "is not a valid container name"),
            ({"CONTAINER_NAME": "-rf"}, "is not a valid container name"),
            ({"CONTAINER_NAME": "a b"}, "is not a valid container name"),
            ({"CONTAINER_NAME": "a;id"}, "is not a valid container name"),
            ({"BIND_ADDRESS": "localhost"}, "is not a valid IP address (127.0.0.1: this machine only"),
            ({"BIND_ADDRESS": "256.0.0.1"}, "is not a valid IP address"),
            ({"BIND_ADDRESS": "127.0.0.1:80"}, "is not a valid IP address"),
            ({"GRPC_PORT": "0"}, "GRPC_PORT=0 is not a valid port (1-65535)"),
            ({"GRPC_PORT": "x[$(id)]"}, "is not a valid port"),
            ({"REST_PORT": "65536"}, "REST_PORT=65536 is not a valid port"),
            ({"REST_PORT": "8500"}, "GRPC_PORT and REST_PORT are both 8500"),
            ({"GPU_MEMORY_FRACTION": "0"}, "is not a valid fraction (above 0, up to 1)"),
            ({"GPU_MEMORY_FRACTION": "1.1"}, "is not a valid fraction"),
            ({"GPU_MEMORY_FRACTION": "half"}, "is not a valid fraction"),
            ({"XLA": "on"}, "XLA=on is not a valid value (true, auto, false)"),
            ({"ENABLE_MODEL_WARMUP": "yes"}, "ENABLE_MODEL_WARMUP=yes is not a valid value (true, false)"),
            (
                {"RESTART_POLICY": "sometimes"},
                "RESTART_POLICY=sometimes is not a valid restart policy (no, always",
            ),
            (
                {"MEMORY": "4gb"},
                "MEMORY=4gb is not a valid memory size (an integer with an optional unit b, k",
            ),
            ({"MEMORY": "-1"}, "is not a valid memory size"),
            ({"MEMORY": "0"}, "is not a valid memory size"),
            ({"MEMORY": "1.5g"}, "is not a valid memory size"),
            ({"CPUS": "0"}, "CPUS=0 is not a valid number of CPUs (a decimal number above 0, such as 1.5)"),
            ({"CPUS": "0.00"}, "is not a valid number of CPUs"),
            ({"CPUS": "two"}, "is not a valid number of CPUs"),
            ({"DRAIN_SECONDS": "-1"}, "DRAIN_SECONDS=-1 is not a valid number of seconds"),
            ({"DRAIN_SECONDS": "1.5"}, "is not a valid number of seconds"),
            (
                {"MAX_CONNECTION_AGE_SECONDS": "1m"},
                "MAX_CONNECTION_AGE_SECONDS=1m is not a valid number of seconds (0-99999)",
            ),
            (
                {"MAX_CONNECTION_AGE_GRACE_SECONDS": "x"},
                "MAX_CONNECTION_AGE_GRACE_SECONDS=x is not a valid number of seconds (0-99999)",
            ),
            ({"START_TIMEOUT": "soon"}, "is not a valid number of seconds"),
            ({"MODEL_CONFIG_FILE_POLL_WAIT_SECONDS": "a"}, "is not a valid number of seconds"),
            (
                {"BATCHING_PARAMETERS_FILE": "/nowhere"},
                "BATCHING_PARAMETERS_FILE=/nowhere is not a regular file",
            ),
            ({"MONITORING_CONFIG_FILE": "/"}, "MONITORING_CONFIG_FILE=/ is not a regular file"),
            ({"SSL_CONFIG_FILE": "; id"}, "SSL_CONFIG_FILE='; id' is not a regular file"),
            ({"MODEL_NAME": "../digits"}, "is not a valid model name"),
            ({"MODEL_NAME": "a b"}, "is not a valid model name"),
            ({"IMAGE_NAME": "A"}, "is not a valid image reference"),
            ({"MODELS_DIR": "/nowhere"}, "MODELS_DIR=/nowhere is not a directory"),
            (
                {"MODELS_DIR": "s3://bucket"},
                "MODELS_DIR=s3://bucket is a URI, and a directory is expected; copy",
            ),
            ({"MODELS_DIR": "models", "MODEL_NAME": "flowers"}, "/models/flowers does not exist"),
            ({"MODE": "multi", "MODELS_CONFIG": "/nowhere"}, "MODELS_CONFIG=/nowhere is not a regular file"),
            ({"MODE": "multi", "MODELS_DIR": "models"}, "models.config is not a regular file"),
            ({"DOCKER_ARGS": "'"}, "has an unclosed quote"),
            ({"SSL_CONFIG_FILE": "\x1b[1m"}, "contains a control character; remove it"),
        ],
    )
    def test_invalid_settings(self, checkout: Any, variables: dict[str, str], message: str) -> None:
        result = checkout.run("run_tf_serving.sh", "--dry-run", **variables)
        assert message in result.rejection
        assert "\x1b" not in result.err
        assert [call[0] for call in checkout.calls()] in ([], ["info"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["both"], "unknown argument both; --help shows the usage"),
            (["--grpc_max_threads=8"], "unknown argument --grpc_max_threads=8"),
            (["single", "stop"], "single and stop are mutually exclusive"),
            (["stop", "--dry-run"], "stop does not support --dry-run"),
            (["status", "--", "--a=b"], "status takes no server flags"),
            (["--", "--port=1"], "--port conflicts with a variable of this script; set GRPC_PORT=1 instead"),
            (["--", "--rest_api_port=1"], "set REST_PORT=1 instead"),
            (["--", "--model_name=a b"], "set MODEL_NAME='a b' instead"),
            (["--", "--model_config_file=/x"], "set MODELS_CONFIG=/x instead"),
            (["--", "grpc_max_threads"], "grpc_max_threads is not a valid server flag"),
            (["--", "--grpc_max_threads", "8"], "--grpc_max_threads has no value (--grpc_max_threads=VALUE)"),
            (
                ["--", "--enable_bathing=true"],
                "--enable_bathing is not a flag of tensorflow_model_server, which ignores it; "
                "did you mean --enable_batching?",
            ),
            (["--", "--no_such=1"], "which ignores it; docs/compatibility.md lists the flags"),
        ],
    )
    def test_invalid_arguments(self, checkout: Any, arguments: list[str], message: str) -> None:
        assert message in checkout.run("run_tf_serving.sh", *arguments).rejection
        assert checkout.calls() == []

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (
                '{"model_config_list": {}}',
                "is JSON, and the server reads protobuf text format; convert it: python -m",
            ),
            ("", "names no model"),
            ("nonsense", "names no model"),
            ('model_config_list { config { name: "digits" base_path: "digits" } }', "nothing was started"),
        ],
    )
    def test_invalid_configs(self, checkout: Any, config: str, message: str) -> None:
        checkout.add_version("digits", 1)
        checkout.add_config(config)
        assert (
            message in checkout.run("run_tf_serving.sh", "multi", "--dry-run", MODELS_DIR="models").rejection
        )

    @pytest.mark.parametrize(
        ("variables", "fix"),
        [
            ({}, "tfserving-digits is not available; build it: bash build.sh"),
            (
                {"MODEL_NAME": "flowers"},
                "tfserving-flowers is not available; build it: MODEL_NAME=flowers bash build.sh",
            ),
            (
                {"MODE": "multi"},
                "tfserving-ensemble is not available; build it: bash build_ensemble.sh",
            ),
            (
                {"IMAGE_NAME": "me/x"},
                "me/x is not available; pull it, or build it: IMAGE_NAME=me/x bash build.sh",
            ),
        ],
    )
    def test_a_missing_image(self, checkout: Any, variables: dict[str, str], fix: str) -> None:
        assert checkout.run("run_tf_serving.sh", **variables).rejection.endswith(fix)

    def test_images_of_another_kind(self, checkout: Any) -> None:
        checkout.add_multi_model_image()
        checkout.add_image("tensorflow/serving")
        checkout.add_single_image()
        for image, message in (
            ("tfserving-ensemble", "is for mode multi, not single"),
            ("tensorflow/serving", "was not built by build.sh or build_ensemble.sh"),
        ):
            assert message in checkout.run("run_tf_serving.sh", IMAGE_NAME=image).rejection
        checkout.add_image("mine")
        for image in ("mine", "tensorflow/serving:2.20.0"):  # which must keep their names
            rejection = checkout.run("run_tf_serving.sh", IMAGE_NAME=image).rejection
            assert rejection.endswith(
                "was not built by build.sh or build_ensemble.sh; build one: bash build.sh"
            )
        other = {"IMAGE_NAME": "tfserving-digits", "MODEL_NAME": "flowers"}
        rejection = checkout.run("run_tf_serving.sh", **other).rejection
        assert "contains model digits, not flowers; build it: MODEL_NAME=flowers" in rejection

    def test_a_container_of_another_program(self, checkout: Any) -> None:
        checkout.add_container("tfserving")
        assert "container tfserving was not started by this script; set another CONTAINER_NAME" in (
            checkout.run("run_tf_serving.sh").rejection
        )
        assert checkout.calls("rm") == checkout.calls("run") == []

    @pytest.mark.parametrize("status", ["running", "restarting", "paused"])
    def test_a_container_that_runs_already(self, checkout: Any, status: str) -> None:
        checkout.add_container("two", status, grpc="127.0.0.1:1", rest="127.0.0.1:2", mode="single")
        rejection = checkout.run("run_tf_serving.sh", CONTAINER_NAME="two").rejection
        assert "two is already running (docker, gRPC 127.0.0.1:1, REST 127.0.0.1:2)" in rejection
        assert "CONTAINER_NAME=two bash run_tf_serving.sh stop" in rejection
        assert checkout.calls("rm") == []

    @pytest.mark.parametrize("name", ["GRPC_PORT", "REST_PORT"])
    def test_a_port_in_use(self, checkout: Any, ports: dict[str, str], name: str) -> None:
        checkout.add_single_image()
        with socket.socket() as used:
            used.bind(("127.0.0.1", int(ports[name])))
            used.listen()
            rejection = checkout.run("run_tf_serving.sh", **ports).rejection
        assert f"port {ports[name]} is in use by another program" in rejection
        assert f"stop it, or set another port: {name}=" in rejection
        assert checkout.calls("run") == []

    def test_the_port_of_another_container(self, checkout: Any) -> None:
        checkout.add_single_image()
        checkout.add_container("other", grpc="127.0.0.1:8500", rest="127.0.0.1:8501")
        rejection = checkout.run("run_tf_serving.sh").rejection
        assert "port 8500 is in use by container other" in rejection
