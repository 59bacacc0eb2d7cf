"""The Swarm of fake_docker.py: services with an image, a number of replicas and the state before an update.

An image whose name contains "broken" fails the update, and Swarm rolls back.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    Service = dict[str, Any]

# The stack file that contains a service.
FILES = {"gateway": "gateway.yml", "prometheus": "monitoring.yml"}


def handle(state: dict[str, Any], arguments: list[str]) -> bool:
    """Run a docker command, which may change the state; return whether it is one of a Swarm."""
    services: dict[str, Service] = state.setdefault("services", {})
    match arguments:
        case ["stack", "deploy", *options, stack]:
            _deploy(services, stack, {option.rpartition("/")[2] for option in options})
        case ["stack", "services", "--quiet", stack]:
            print(*(name for name in services if name.startswith(f"{stack}_")), sep="\n")
        case ["stack", "rm", stack]:
            for name in [name for name in services if name.startswith(f"{stack}_")]:
                del services[name]
        case ["service", "inspect", "--format", template, name]:
            print(_fill(template, _find(services, name)))
        case ["service", "ps", "--quiet", "--no-trunc", name]:
            _list_tasks(name, _find(services, name), ["--format", "{{.ID}}"])
        case ["service", "ps", "--no-trunc", *options, name]:
            _list_tasks(name, _find(services, name), options)
        case ["service", "update", "--detach", *options, name]:
            _update(_find(services, name), options)
        case ["service", "rollback", "--detach", name]:
            service = _find(services, name)
            service.update(service.pop("previous"), update="rollback_completed")
        case ["service", "logs", *_]:
            print("what the servers logged")
        case ["network", "ls", *_]:
            pass
        case _:
            return False
    return True


def _find(services: dict[str, Service], name: str) -> Service:
    if name not in services:
        print(f"Error: no such service: {name}", file=sys.stderr)
        sys.exit(1)
    return services[name]


def _deploy(services: dict[str, Service], stack: str, files: set[str]) -> None:
    for group, prefix, image in (("stable", "", "IMAGE_NAME"), ("canary", "CANARY_", "CANARY_IMAGE")):
        services[f"{stack}_{group}"] = {
            "image": os.environ[image],
            "replicas": int(os.environ[f"{prefix}REPLICAS"]),
            "update": "",
        }
    for group, image, replicas in (("gateway", "GATEWAY_IMAGE", 2), ("prometheus", "PROMETHEUS_IMAGE", 1)):
        if FILES[group] in files:
            services[f"{stack}_{group}"] = {"image": os.environ[image], "replicas": replicas, "update": ""}


def _update(service: Service, options: list[str]) -> None:
    given = dict(itertools.pairwise(options))
    if "broken" in given["--image"]:
        service["update"] = "rollback_completed"
        service.setdefault("failures", []).insert(0, given["--image"])
        service.pop("previous", None)
        return
    service["previous"] = {"image": service["image"], "replicas": service["replicas"]}
    service.update(image=given["--image"], update="completed")
    service["replicas"] = int(given.get("--replicas", service["replicas"]))


def _fill(template: str, service: Service) -> str:
    values = {
        "{{.ID}}": "id",
        "{{.Spec.Mode.Replicated.Replicas}}": str(service["replicas"]),
        "{{.Spec.TaskTemplate.ContainerSpec.Image}}": service["image"],
        "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}": service["update"],
        "{{if .UpdateStatus}}{{.UpdateStatus.Message}}{{end}}": service["update"].replace("_", " "),
        "{{if .PreviousSpec}}yes{{end}}": "yes" if "previous" in service else "",
    }
    for placeholder, value in values.items():
        template = template.replace(placeholder, value)
    assert "{{" not in template, template
    return template


def _list_tasks(name: str, service: Service, options: list[str]) -> None:
    template = options[options.index("--format") + 1]
    tasks = [
        {"ID": f"running{number}", "Image": service["image"], "CurrentState": "Running 2 minutes ago"}
        for number in range(service["replicas"])
    ]
    if "desired-state=running" not in options:
        failures = service.get("failures", [])
        tasks += [
            {
                "ID": f"failed{len(failures) - number}",
                "Image": image,
                "CurrentState": "Failed 9 seconds ago",
                "Error": '"task: non-zero exit (2)"',
            }
            for number, image in enumerate(failures)
        ]
    for task in tasks:
        line = template.replace("{{.Name}}", f"{name}.1").replace("{{.Node}}", "node-1")
        for key in ("ID", "Image", "CurrentState", "Error"):
            line = line.replace(f"{{{{.{key}}}}}", task.get(key, ""))
        print(line.strip())
