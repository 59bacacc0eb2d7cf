"""deploy/monitoring and deploy/kubernetes with real containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import manifests as kubernetes
from tests.deploy.load import load, predict
from tests.deploy.prometheus import (
    MONITORING,
    PACKAGE,
    read_dashboard_expressions,
    read_rule_expressions,
    run_prometheus,
)
from tests.deploy.tools import find_tool
from tests.integration.conftest import ROOT, Container, Docker, StartContainer

pytestmark = pytest.mark.docker

# The metrics of these rows come from other servers.
OTHER_ROWS = ("Embedded server only", "Gateway")


def test_rules_and_panels_have_values_for_the_base_image(
    start_container: StartContainer, base_image: str, models: Path, tmp_path: Path
) -> None:
    find_tool("prometheus", PACKAGE)
    base_path = tmp_path / "half"
    shutil.copytree(models / "half" / "1", base_path / "1")
    tmp_path.chmod(0o755)
    mounts = (f"type=bind,source={base_path},target=/models/half,readonly",)
    mounts += (f"type=bind,source={MONITORING},target=/monitoring,readonly",)
    options = [word for mount in mounts for word in ("--mount", mount)]
    flags = ("--monitoring_config_file=/monitoring/monitoring.config", "--enable_batching")
    flags += ("--grpc_max_threads=64", "--max_num_load_retries=0")
    container = start_container(base_image, *flags, options=[*options, "--env", "MODEL_NAME=half"])
    grpc, rest = (f"127.0.0.1:{container.port(port)}" for port in (8500, 8501))
    container.wait_until(lambda: is_available(rest), "available")
    broken = base_path / "2"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"not a graph")
    expressions = [each for each in read_rule_expressions() if each.group == "serving"]
    expressions += [each for each in read_dashboard_expressions() if each.group not in OTHER_ROWS]
    with load(grpc, rest):
        with run_prometheus(tmp_path / "prometheus", {"serving": {"stable": rest}}) as prometheus:
            assert prometheus.find_empty(expressions) == []
            (alert,) = prometheus.query('ALERTS{alertname="LoadFailed"}')
            assert alert["metric"]["model_path"] == "/models/half/2"


def is_available(rest: str) -> bool:
    try:
        return predict(rest, [2.0])[0] == 200
    except OSError:
        return False


def test_a_server_of_the_manifests_serves_with_its_restrictions_and_drains(
    docker: Docker, base_image: str, models: Path, tmp_path: Path, start_container: StartContainer
) -> None:
    image = docker.name("image")
    settings = {"IMAGE_NAME": image, "MODEL_NAME": "half", "TF_SERVING_IMAGE": base_image}
    environment = {**os.environ, **settings, "MODELS_DIR": str(models)}
    done = subprocess.run(
        ["bash", "build.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    manifests = kubernetes.load("cpu")
    (pod,) = kubernetes.select_pods({"app.kubernetes.io/component": "server"}, manifests)
    spec = pod["spec"]
    server = spec["containers"][0]
    options = [*pod_options(spec, manifests, tmp_path), *container_options(server)]
    container = start_container(image, *server["args"], options=options)

    container.wait_until(lambda: succeeds(container, server["startupProbe"]), "started")
    assert succeeds(container, server["readinessProbe"])
    assert container.rest("/v1/models/half:predict", {"instances": [2.0]}) == (200, {"predictions": [3.0]})
    command = ("bash", "-c", "echo >/dev/tcp/127.0.0.1/8501")
    assert container.exec(*command).returncode == 0
    assert container.exec("touch", "/file").returncode != 0

    container.kill("TERM")
    container.wait_until(lambda: not succeeds(container, server["readinessProbe"]), "draining", 10)
    assert container.rest("/v1/models/half:predict", {"instances": [2.0]})[0] == 200
    container.kill("TERM")
    container.exit_code()


def pod_options(spec: dict[str, Any], manifests: Sequence[dict[str, Any]], directory: Path) -> list[str]:
    """Options of `docker run` for the user and the volumes of a pod."""
    context = spec["securityContext"]
    options = ["--user", f"{context['runAsUser']}:{context['runAsGroup']}"]
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    directory.chmod(0o755)
    for volume in spec["volumes"]:
        target = mounts[volume["name"]]
        if "emptyDir" in volume:
            options += ["--tmpfs", f"{target}:mode=0777,size={volume['emptyDir']['sizeLimit'].lower()[:-1]}"]
        else:
            name = volume["configMap"]["name"]
            (files,) = (each["data"] for each in manifests if each["metadata"]["name"] == name)
            source = directory / volume["name"]
            source.mkdir()
            for file, content in files.items():
                (source / file).write_text(content)
            options += ["--mount", f"type=bind,source={source},target={target},readonly"]
    return options


def container_options(container: dict[str, Any]) -> list[str]:
    """Options of `docker run` for the variables; `Container` sets the restrictions."""
    return [word for each in container["env"] for word in ("--env", f"{each['name']}={each['value']}")]


def succeeds(container: Container, probe: dict[str, Any]) -> bool:
    return container.exec(*probe["exec"]["command"]).returncode == 0
