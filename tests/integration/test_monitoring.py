"""deploy/monitoring with the base image: the rules and the dashboard have values for its metrics."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.deploy.load import load, predict
from tests.deploy.prometheus import (
    MONITORING,
    PACKAGE,
    read_dashboard_expressions,
    read_rule_expressions,
    run_prometheus,
)
from tests.deploy.tools import find_tool
from tests.integration.conftest import StartContainer

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
