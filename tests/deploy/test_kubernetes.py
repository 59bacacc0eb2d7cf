"""deploy/kubernetes: rendered by kubectl, validated strictly, and checked for what no schema knows."""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.deploy.manifests import (
    CUSTOM_FIELDS,
    OVERLAYS,
    VERSIONS,
    Manifest,
    find_insecure_settings,
    find_reference_errors,
    find_schema_errors,
    find_workloads,
    list_image_commands,
    list_image_variables,
    load,
    load_inference_service,
    port_names,
    select_pods,
)
from tests.deploy.prometheus import RULES
from tests.deploy.tools import DEPLOY, import_tool
from tfserving.server.flags import FLAGS

yaml = import_tool("yaml", "PyYAML")

# Maps whose keys are free.
FREE_KEYS = re.compile(r"\.(labels|annotations|matchLabels|data|stringData|selector|requests|limits)$")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_valid(overlay: str, version: str) -> None:
    assert [error for each in load(overlay) for error in find_schema_errors(each, version)] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_inference_service_is_valid(version: str) -> None:
    assert find_schema_errors(load_inference_service(), version) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_labels_and_ports_of_overlays_exist(overlay: str) -> None:
    assert find_reference_errors(load(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted(overlay: str) -> None:
    assert [error for each in find_workloads(load(overlay)) for error in find_insecure_settings(each)] == []


def test_the_inference_service_is_restricted() -> None:
    predictor = load_inference_service()["spec"]["predictor"]
    workload = {"kind": "InferenceService", "metadata": {"name": "digits"}}
    assert find_insecure_settings({**workload, "spec": {"template": {"spec": predictor}}}) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_the_namespace(overlay: str) -> None:
    for manifest in load(overlay):
        if manifest["kind"] == "Namespace":
            assert manifest["metadata"]["name"] == "tfserving"
        else:
            assert manifest["metadata"]["namespace"] == "tfserving"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_servers_use_what_the_image_has(overlay: str) -> None:
    servers = select_pods({"app.kubernetes.io/component": "server"}, load(overlay))
    assert servers
    for server in servers:
        check_server(server["spec"]["containers"][0])


def test_the_inference_service_uses_what_the_image_has() -> None:
    check_server(load_inference_service()["spec"]["predictor"]["containers"][0])


def check_server(container: Manifest) -> None:
    """Commands, variables, flags and ports of a model server exist."""
    for probe in ("startupProbe", "readinessProbe"):
        assert set(container[probe]["exec"]["command"]) <= list_image_commands()
    assert {each["name"] for each in container["env"]} <= list_image_variables()
    flags = {f"--{flag.name}" for flag in FLAGS}
    assert {argument.partition("=")[0] for argument in container.get("args", [])} <= flags
    assert {port["containerPort"] for port in container["ports"]} <= {8500, 8501}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rollouts_never_remove_a_server_first(overlay: str) -> None:
    for workload in find_workloads(load(overlay)):
        if workload["metadata"]["name"] != "prometheus":
            assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_only_gateways_and_prometheus_may_connect_behind_a_gateway() -> None:
    (policy,) = (
        each
        for each in load("gateway")
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "server"
    )
    callers = {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: {
            port["port"] for port in rule["ports"]
        }
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
    }
    assert callers == {"gateway": {"grpc", "rest"}, "prometheus": {"rest"}}


def test_the_canary_differs_from_stable_only_in_name_number_and_image() -> None:
    stable, canary = (
        yaml.safe_dump(next(each for each in load("canary") if names(each) == ("Deployment", name)))
        for name in ("stable", "canary")
    )
    expected = stable.replace("name: stable", "name: canary").replace("pool: stable", "pool: canary")
    expected = expected.replace("image: tfserving-digits\n", "image: tfserving-digits-canary\n")
    assert canary.replace("  replicas: 1\n", "") == expected


def names(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def test_prometheus_finds_servers_and_gateways() -> None:
    services = {each["metadata"]["name"]: each for each in load("gateway") if each["kind"] == "Service"}
    jobs = yaml.safe_load((RULES / "prometheus.yml").read_text())["scrape_configs"]
    found = set()
    for job in jobs:
        for discovery in job.get("dns_sd_configs", []):
            for name in discovery["names"]:
                spec = services[name]["spec"]
                assert spec["clusterIP"] == "None", name
                assert discovery["port"] in {port["port"] for port in spec["ports"]}, name
                assert spec.get("publishNotReadyAddresses", False) == name.endswith("-monitoring"), name
                found.add((job["job_name"], name.removesuffix("-monitoring"), name))
    assert found == {
        (job, name, f"{name}{suffix}")
        for job, name in (("serving", "stable"), ("serving", "canary"), ("gateway", "gateway"))
        for suffix in ("", "-monitoring")
    }


def test_gateways_have_the_files_and_ports_of_their_configuration() -> None:
    manifests = load("gateway")
    (gateway,) = select_pods({"app.kubernetes.io/component": "gateway"}, manifests)
    assert set(port_names(gateway).values()) == {8443, 9902}
    for port in port_names(gateway).values():
        assert f"address: 0.0.0.0, port_value: {port}" in (DEPLOY / "gateway" / "envoy.yaml").read_text()
    content = {names(each): each["data"] for each in manifests if each["kind"] in ("ConfigMap", "Secret")}
    mounts = {mount["name"]: mount for mount in gateway["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["dynamic"]["mountPath"] == "/etc/envoy/dynamic"
    assert mounts["tls"]["mountPath"] == "/etc/envoy/tls"
    dynamic = {**content["ConfigMap", "gateway-dynamic"], **content["Secret", "gateway-clients"]}
    texts = [(DEPLOY / "gateway" / "envoy.yaml").read_text(), *dynamic.values()]
    files = {file for text in texts for file in re.findall(r"/etc/envoy/dynamic/([\w.]+)", text)}
    assert files == dynamic.keys()


def test_gateways_have_a_worker_for_each_cpu_that_they_request() -> None:
    (gateway,) = select_pods({"app.kubernetes.io/component": "gateway"}, load("gateway"))
    (container,) = gateway["spec"]["containers"]
    workers = container["args"][container["args"].index("--concurrency") + 1]
    assert workers == container["resources"]["requests"]["cpu"]


def test_the_load_balancer_keeps_the_addresses_of_clients() -> None:
    (service,) = (each for each in load("gateway") if names(each) == ("Service", "gateway-public"))
    assert service["spec"]["externalTrafficPolicy"] == "Local"


def test_gateways_can_authenticate_clients_by_certificate() -> None:
    tokens, certificates = (load(overlay) for overlay in ("gateway", "gateway-certificates"))
    changed = {names(each): each for each in certificates if each not in tokens}
    assert changed.keys() == {
        ("Deployment", "gateway"),
        ("ConfigMap", "gateway-dynamic"),
        ("Secret", "gateway-clients"),
    }
    files = DEPLOY / "gateway" / "client_certificates"
    dynamic = changed["ConfigMap", "gateway-dynamic"]["data"]
    assert dynamic["client_ca.json"] == (files / "client_ca.json").read_text()
    (before,) = (each["data"] for each in tokens if names(each) == ("ConfigMap", "gateway-dynamic"))
    assert {**dynamic, "client_ca.json": ""} == {**before, "client_ca.json": ""}
    (authentication,) = changed["Secret", "gateway-clients"]["data"].values()
    assert base64.b64decode(authentication) == (files / "authentication.json").read_bytes()
    volumes = {
        each["name"]: each for each in changed["Deployment", "gateway"]["spec"]["template"]["spec"]["volumes"]
    }
    secrets = [source["secret"]["name"] for source in volumes["tls"]["projected"]["sources"]]
    assert secrets == ["gateway-tls", "gateway-client-ca"]


def test_changes_of_the_gateways_dynamic_files_do_not_restart_them() -> None:
    kinds = {names(each) for each in load("gateway")}
    assert ("ConfigMap", "gateway-dynamic") in kinds
    assert ("Secret", "gateway-clients") in kinds


def test_the_volume_replaces_the_models_of_the_image() -> None:
    (server,) = select_pods({"app.kubernetes.io/component": "server"}, load("volume"))
    container = server["spec"]["containers"][0]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]
    assert {"name": "MODE", "value": "multi"} in container["env"]


def test_gpu_servers_request_a_gpu_and_tolerate_its_nodes() -> None:
    (server,) = select_pods({"app.kubernetes.io/component": "server"}, load("gpu"))
    container = server["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["image"] == "tfserving-digits:gpu"
    assert server["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"


# Every place of a field in any overlay: a misspelled field must not pass.


def walk(node: Any, place: str) -> Iterator[tuple[str, str, Manifest]]:
    """Place, key and parent of each field; elements of lists have the same place."""
    if isinstance(node, list):
        for element in node:
            yield from walk(element, place)
    elif isinstance(node, dict):
        for key, value in node.items():
            if not FREE_KEYS.search(place):
                yield place, key, node
            yield from walk(value, f"{place}.{key}")


def all_manifests() -> list[Manifest]:
    return [*(each for overlay in OVERLAYS for each in load(overlay)), load_inference_service()]


def test_a_misspelled_field_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    cache_schemas(monkeypatch)
    tried = set()
    for manifest in all_manifests():
        for place, key in {(place, key) for place, key, _ in walk(manifest, manifest["kind"])} - tried:
            tried.add((place, key))
            misspelled = copy.deepcopy(manifest)
            node = next(node for *found, node in walk(misspelled, manifest["kind"]) if found == [place, key])
            node[f"{key}x"] = node.pop(key)
            if manifest["kind"] in CUSTOM_FIELDS and not place.startswith(f"{manifest['kind']}.spec"):
                continue
            if (place, key) not in {(manifest["kind"], "kind"), (manifest["kind"], "apiVersion")}:
                assert find_schema_errors(misspelled, VERSIONS[0]), f"{place}.{key}"
    assert len(tried) > 150


def cache_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """kubernetes-validate reads its files again for every manifest."""
    utils = import_tool("kubernetes_validate.utils", "kubernetes-validate")
    monkeypatch.setattr(utils, "schema_contents", cache(utils.schema_contents))


def misspell(node: Any, path: tuple[str, ...]) -> None:
    """Append a letter to the string at a path, or to all strings of the map there."""
    for key in path[:-1]:
        node = node[int(key)] if isinstance(node, list) else node[key]
    last: Any = int(path[-1]) if isinstance(node, list) else path[-1]
    value = node[last]
    node[last] = {key: f"{each}x" for key, each in value.items()} if isinstance(value, dict) else f"{value}x"


CONTAINER = ("spec", "template", "spec", "containers", "0")
POD = ("spec", "template", "spec")


@pytest.mark.parametrize(
    ("overlay", "kind", "name", "path"),
    [
        ("gateway", "Service", "stable", ("spec", "selector")),
        ("gateway", "Service", "canary", ("spec", "ports", "0", "targetPort")),
        ("gateway", "Service", "canary-monitoring", ("spec", "selector")),
        ("gateway", "Service", "gateway-monitoring", ("spec", "ports", "0", "targetPort")),
        ("gateway", "Service", "gateway", ("spec", "ports", "1", "targetPort")),
        ("gateway", "Service", "gateway-public", ("spec", "selector")),
        ("gateway", "PodDisruptionBudget", "stable", ("spec", "selector", "matchLabels")),
        ("gateway", "PodDisruptionBudget", "gateway", ("spec", "selector", "matchLabels")),
        ("gateway", "HorizontalPodAutoscaler", "stable", ("spec", "scaleTargetRef", "name")),
        ("gateway", "NetworkPolicy", "server", ("spec", "podSelector", "matchLabels")),
        ("gateway", "NetworkPolicy", "server", ("spec", "ingress", "0", "ports", "0", "port")),
        ("gateway", "NetworkPolicy", "gateway", ("spec", "egress", "0", "ports", "0", "port")),
        ("gateway", "NetworkPolicy", "prometheus", ("spec", "egress", "1", "ports", "0", "port")),
        ("gateway", "Deployment", "stable", ("spec", "selector", "matchLabels")),
        ("gateway", "Deployment", "stable", ("spec", "template", "metadata", "labels")),
        ("gateway", "Deployment", "stable", (*CONTAINER, "livenessProbe", "tcpSocket", "port")),
        ("gateway", "Deployment", "gateway", (*CONTAINER, "readinessProbe", "httpGet", "port")),
        ("gateway", "Deployment", "gateway", (*CONTAINER, "volumeMounts", "0", "name")),
        ("gateway", "Deployment", "gateway", (*POD, "volumes", "0", "configMap", "name")),
        (
            "gateway",
            "Deployment",
            "gateway",
            (*POD, "volumes", "1", "projected", "sources", "1", "secret", "name"),
        ),
        (
            "gateway-certificates",
            "Deployment",
            "gateway",
            (*POD, "volumes", "2", "projected", "sources", "1", "secret", "name"),
        ),
        ("gateway", "Deployment", "prometheus", (*POD, "volumes", "1", "persistentVolumeClaim", "claimName")),
        ("canary", "GRPCRoute", "serving", ("spec", "rules", "0", "backendRefs", "1", "name")),
        ("canary", "GRPCRoute", "serving", ("spec", "parentRefs", "0", "sectionName")),
        ("canary", "HTTPRoute", "serving", ("spec", "hostnames", "0")),
        ("canary", "HTTPRoute", "serving", ("spec", "parentRefs", "0", "name")),
    ],
)
def test_a_misspelled_reference_is_found(overlay: str, kind: str, name: str, path: tuple[str, ...]) -> None:
    manifests = load(overlay)
    (manifest,) = (each for each in manifests if names(each) == (kind, name))
    misspell(manifest, path)
    assert find_reference_errors(manifests)


def test_weights_that_are_not_100_together_are_found() -> None:
    manifests = load("canary")
    (route,) = (each for each in manifests if names(each) == ("GRPCRoute", "serving"))
    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = 90
    assert find_reference_errors(manifests) == ["GRPCRoute serving: the weights are not 100 together"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "template", "spec", "terminationGracePeriodSeconds"), 20),
        ((*CONTAINER, "resources", "limits"), {"cpu": "1"}),
    ],
)
def test_a_missing_limit_or_a_short_grace_period_is_found(path: tuple[str, ...], value: object) -> None:
    manifests = load("cpu")
    (workload,) = find_workloads(manifests)
    node: Any = workload
    for key in path[:-1]:
        node = node[int(key)] if isinstance(node, list) else node[key]
    node[path[-1]] = value
    assert find_reference_errors(manifests)


@pytest.mark.parametrize("setting", ["allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"])
def test_a_missing_restriction_is_found(setting: str) -> None:
    (workload,) = find_workloads(load("cpu"))
    del workload["spec"]["template"]["spec"]["containers"][0]["securityContext"][setting]
    assert find_insecure_settings(workload)
