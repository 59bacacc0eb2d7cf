"""A real Envoy with deploy/gateway as Kubernetes mounts it, scraped by a real Prometheus."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client.fakes import FakeRestServer, FakeRpcServer, FakeService, half
from tests.deploy.load import repeated
from tests.deploy.prometheus import (
    PACKAGE,
    Prometheus,
    find_free_port,
    read_dashboard_expressions,
    read_rule_expressions,
    run_prometheus,
)
from tests.deploy.tools import find_tool, import_tool
from tests.embedded import ROOT
from tests.gateway.envoy import Backend, Gateway, copy_files, find_envoy, gateway
from tests.server.certificates import certificate
from tfserving.client import TfRpcClient, Tls
from tfserving.gateway.client_tokens import add_token
from tfserving.gateway.traffic_weights import write_weights

yaml = import_tool("yaml", "PyYAML")

MANIFEST = ROOT / "deploy" / "kubernetes" / "components" / "gateway" / "gateway.yaml"


class Volume:
    """A directory whose files change as those of a mounted ConfigMap: all of them, with one rename of a link.

    Attributes:
        source: the files to mount with the next update.
    """

    def __init__(self, path: Path, source: Path) -> None:
        self.source = source
        self._path = path
        self._updates = 0
        path.mkdir()

    def update(self) -> None:
        self._updates += 1
        name = f"..{self._updates}"
        shutil.copytree(self.source, self._path / name, ignore=shutil.ignore_patterns(".*"))
        (self._path / "..data_tmp").symlink_to(name)
        (self._path / "..data_tmp").rename(self._path / "..data")
        for file in (self._path / name).iterdir():
            if not (self._path / file.name).is_symlink():
                (self._path / file.name).symlink_to(f"..data/{file.name}")


@dataclass(frozen=True)
class Cluster:
    """A gateway in front of the groups stable, with version 1, and canary, with version 2."""

    gateway: Gateway
    volume: Volume
    ca: Path
    metadata: dict[str, str]

    def connect(self) -> TfRpcClient:
        return TfRpcClient(self.gateway.address, "digits", tls=Tls(ca=self.ca), metadata=self.metadata)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    find_envoy()
    directory = tmp_path_factory.mktemp("gateway")
    copy_files(directory)
    source = (directory / "dynamic").rename(directory / "source")
    _, token = add_token(source, "test")
    volume = Volume(directory / "dynamic", source)
    volume.update()
    (directory / "tls").mkdir()
    for name, text in zip(("tls.crt", "tls.key"), certificate(), strict=True):
        (directory / "tls" / name).write_text(text)
    with ExitStack() as stack:
        groups = {}
        for version, group in ((1, "stable"), (2, "canary")):
            service = FakeService({"digits": {version: half(version)}})
            rpc, rest = (stack.enter_context(kind(service)) for kind in (FakeRpcServer, FakeRestServer))
            groups[group] = [Backend(rpc.port, rest.port)]
        ports = [find_free_port() for _ in range(3)]
        running = stack.enter_context(gateway(directory, ports, groups))
        metadata = {"authorization": f"Bearer {token}"}
        yield Cluster(running, volume, directory / "tls" / "tls.crt", metadata)


@pytest.fixture(scope="module")
def prometheus(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a gateway: valid calls, calls without a token, and paths without a route."""
    find_tool("prometheus", PACKAGE)
    targets = {"gateway": {"gateway": f"127.0.0.1:{cluster.gateway.metrics_port}"}}
    with load(cluster), run_prometheus(tmp_path_factory.mktemp("prometheus"), targets) as prometheus:
        yield prometheus


@contextmanager
def load(cluster: Cluster) -> Iterator[None]:
    """Call through the gateway until the context ends."""
    context = ssl.create_default_context(cafile=str(cluster.ca))

    def get(path: str, headers: dict[str, str]) -> int:
        request = urllib.request.Request(f"https://{cluster.gateway.address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as response:
                return response.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def send() -> None:
        assert client.infer([1.0])["y"].tolist() in ([1.5], [2.5])
        statuses = [get("/v1/models/digits", headers) for headers in (cluster.metadata, {})]
        statuses.append(get("/monitoring/prometheus/metrics", cluster.metadata))
        assert statuses == [200, 401, 404]

    with cluster.connect() as client, repeated(send):
        yield


def test_rules_have_values_under_load(prometheus: Prometheus) -> None:
    assert find_empty_rules(prometheus) == []


def find_empty_rules(prometheus: Prometheus) -> list[str]:
    return prometheus.find_empty([each for each in read_rule_expressions() if each.group == "gateway"])


def test_panels_have_values_under_load(prometheus: Prometheus) -> None:
    panels = [each for each in read_dashboard_expressions() if each.group == "Gateway"]
    assert prometheus.find_empty(panels) == []


def test_rejected_requests_are_counted(prometheus: Prometheus) -> None:
    assert find_empty_rules(prometheus) == []
    for metric in ("envoy_http_jwt_authn_denied", "envoy_http_no_route"):
        (sample,) = prometheus.query(f'{metric}{{envoy_http_conn_manager_prefix="gateway"}}')
        assert float(sample["value"][1]) > 0, metric


def test_stores_only_the_metrics_that_the_rules_need(prometheus: Prometheus) -> None:
    assert find_empty_rules(prometheus) == []
    names = {sample["metric"]["__name__"] for sample in prometheus.query('{__name__=~"envoy_.+"}')}
    used = " ".join(each.text for each in [*read_rule_expressions(), *read_dashboard_expressions()])
    assert {name for name in names if name not in used} == set()


def test_a_change_of_the_config_map_takes_effect_without_a_restart(
    cluster: Cluster, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    with cluster.connect() as client:
        assert client.infer([1.0])["y"].tolist() == [1.5]
        write_weights(cluster.volume.source, {"canary": 100})
        cluster.volume.update()
        eventually(lambda: client.infer([1.0])["y"].tolist() == [2.5])


def test_a_gateway_asks_clients_to_leave_before_it_stops(
    cluster: Cluster, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    (container,) = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]["containers"]
    assert container["args"][-2:] == ["--drain-time-s", "15"]
    program, option, script = container["lifecycle"]["preStop"]["exec"]["command"]
    ports = [find_free_port() for _ in range(3)]
    context = ssl.create_default_context(cafile=str(cluster.ca))
    with gateway(cluster.gateway.directory, ports, {}, arguments=("--drain-time-s", "1")) as stopping:

        def is_asked_to_leave() -> bool:
            connection.request("GET", "/v1/models/digits")
            with connection.getresponse() as response:
                response.read()
                assert response.status == 401
                return response.getheader("connection") == "close"

        connection = http.client.HTTPSConnection("localhost", stopping.port, timeout=30, context=context)
        assert not is_asked_to_leave()
        script = script.replace("/9901", f"/{stopping.admin_port}").replace("sleep 20", "sleep 0")
        subprocess.run([program, option, script], check=True, timeout=30)
        eventually(is_asked_to_leave)
        connection.close()
