"""A Prometheus with the configuration of deploy/monitoring, and the expressions of rules and dashboard."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.tools import DEPLOY, find_tool, import_tool

yaml = import_tool("yaml", "PyYAML")

MONITORING = DEPLOY / "monitoring"
RULES = MONITORING / "prometheus"
DASHBOARDS = MONITORING / "grafana" / "dashboards"
PACKAGE = "Debian: prometheus"
TIMEOUT = 90.0  # seconds until every expression has a value; a few are enough on an idle machine
# The last comparison of an alert: without it, the expression has a value also if the alert does not fire.
THRESHOLD = re.compile(r" (==|!=|<|>) [\d.]+$")


@dataclass(frozen=True)
class Expression:
    """An expression in PromQL that is expected to have a value under load.

    Attributes:
        source: the file, and the rule or panel.
        group: the group of rules, or the row of the dashboard.
    """

    source: str
    group: str
    text: str


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression. Raises AssertionError if it is not valid."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/query?{query}", timeout=30) as response:
                result = json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{expression}: {error.read().decode()}") from error
        samples = [result] if result["resultType"] == "scalar" else result["result"]
        return [sample for sample in samples if sample]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    def find_empty(self, expressions: list[Expression]) -> list[str]:
        """Poll until every expression has a value, or until the timeout; return those without one."""
        deadline = time.monotonic() + TIMEOUT
        missing = expressions
        while missing and time.monotonic() < deadline:
            missing = [each for each in missing if not self.query(each.text)]
            time.sleep(0.5)
        return [f"{each.source}: {each.text}" for each in missing]


@contextmanager
def run_prometheus(directory: Path, targets: Mapping[str, Mapping[str, str]]) -> Iterator[Prometheus]:
    """Run a Prometheus with deploy/monitoring and one target per job, which it scrapes every second.

    Args:
        directory: an empty directory for the configuration, the data and the log.
        targets: HOST:PORT by pool, by job: {"serving": {"stable": "127.0.0.1:8501"}}.
    """
    command = find_tool("prometheus", PACKAGE)
    shutil.copytree(RULES, directory, dirs_exist_ok=True)
    config = directory / "prometheus.yml"
    config.write_text(re.sub(r"_interval: 15s", "_interval: 1s", config.read_text()))
    (directory / "targets").mkdir()
    for job, addresses in targets.items():
        # As in Kubernetes, where two names have the address.
        groups = [
            {"targets": [address], "labels": {"__meta_dns_name": name}}
            for pool, address in addresses.items()
            for name in (pool, f"{pool}-monitoring")
        ]
        (directory / "targets" / f"{job}.yml").write_text(yaml.safe_dump(groups))
    port = find_free_port()
    arguments = [f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
    arguments += [f"--web.listen-address=127.0.0.1:{port}"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([command, *arguments], stdout=log, stderr=subprocess.STDOUT)
    try:
        prometheus = Prometheus(port)
        deadline = time.monotonic() + TIMEOUT
        while not prometheus.is_ready():
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline, (directory / "log").read_text()
            time.sleep(0.1)
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def read_rules() -> list[tuple[str, str, dict[str, Any]]]:
    """File, group and rule of all recording rules and alerts."""
    return [
        (path.name, group["name"], rule)
        for path in sorted(RULES.glob("*.rules.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def read_rule_expressions() -> list[Expression]:
    """The expressions of all rules, those of alerts without the threshold."""
    return [
        Expression(f"{file} {rule.get('alert') or rule['record']}", group, THRESHOLD.sub("", rule["expr"]))
        for file, group, rule in read_rules()
    ]


def read_dashboard() -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads((DASHBOARDS / "tfserving.json").read_text())
    return dashboard


def read_dashboard_expressions() -> list[Expression]:
    """The expressions of all panels, with the variables replaced as Grafana replaces them for "All"."""
    found = []
    row = ""
    for panel in read_dashboard()["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for target in panel.get("targets", []):
            text = re.sub(r"\$(pool|model)\b", ".*", target["expr"]).replace("$__rate_interval", "1m")
            found.append(Expression(f"tfserving.json {panel['title']}", row, text))
    return found
