"""A fake docker command for the tests of the scripts.

The directory FAKE_WORLD has its state: `calls`, one JSON list of arguments per line; `state`, the images and
containers as JSON; `context`, the context of the last build. A container is a fake_server.py on the REST port
that it publishes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # like the imports of shutil and subprocess below, for a fast start
    from typing import Any, NoReturn

WORLD = Path(os.environ["FAKE_WORLD"])


class Options:
    """The arguments of `docker run`: options with their values, the image, and the container's arguments."""

    WITHOUT_VALUE = ("--detach", "--rm", "--read-only", "--init")

    def __init__(self, words: list[str]) -> None:
        self.given: dict[str, list[str]] = {}
        while words[0].startswith("-"):
            name, equals, value = words.pop(0).partition("=")
            if not equals and name not in self.WITHOUT_VALUE:
                value = words.pop(0)
            self.given.setdefault(name, []).append(value)
        self.image, *self.arguments = words

    def one(self, name: str) -> str:
        return self.given[name][-1]

    def pairs(self, name: str) -> dict[str, str]:
        return dict(value.split("=", 1) for value in self.given.get(name, []))


def load() -> dict[str, Any]:
    state: dict[str, Any] = json.loads((WORLD / "state").read_text())
    return state


def save(state: dict[str, Any]) -> None:
    """Replaces the file, since other processes read it at the same time."""
    new = WORLD / f"state.{os.getpid()}"
    new.write_text(json.dumps(state))
    new.rename(WORLD / "state")


def new_identifier(name: str) -> str:
    """An ID for a new container; it stays the same when the container is renamed."""
    return hashlib.sha256(f"{name} {os.getpid()}".encode()).hexdigest()


def identifier(state: dict[str, Any], name: str) -> str:
    return str(state["containers"][name].setdefault("id", hashlib.sha256(name.encode()).hexdigest()))


def find(state: dict[str, Any], name_or_id: str) -> str:
    """The name of the container; fails if there is none."""
    names: list[str] = [name for name in state["containers"] if name_or_id in (name, identifier(state, name))]
    return names[0] if names else fail(f"Error: No such container: {name_or_id}")


def fail(message: str, code: int = 1) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)


ENGINE_ERRORS = {
    "down": "Cannot connect to the Docker daemon. Is the docker daemon running?",
    "denied": "ERROR: Got permission denied while trying to connect to the Docker daemon socket",
    "broken": "ERROR: request returned Internal Server Error",
}


def check_engine(state: dict[str, Any], arguments: list[str]) -> None:
    if state["engine"] == "hangs":
        signal.pause()
    if state["engine"] == "denied" and arguments[0] == "info":
        print("engine  ")  # as clients of Docker 20.10
        sys.exit()
    if state["engine"] in ENGINE_ERRORS:
        fail(ENGINE_ERRORS[state["engine"]])


def info(state: dict[str, Any]) -> None:
    print(f"engine 20.10.24 {state['log_driver']}")


def build(state: dict[str, Any], arguments: list[str]) -> None:
    import shutil

    shutil.rmtree(WORLD / "context", ignore_errors=True)
    shutil.copytree(arguments[-1], WORLD / "context", symlinks=True)
    if state["build"] == "hangs":
        (WORLD / "building").touch()
        signal.pause()
    print("Step 1/1 : FROM scratch", flush=True)
    if state["build"] == "fails":
        fail("unable to find image")


def inspect_image(state: dict[str, Any], reference: str) -> None:
    image = state["images"].get(reference) or fail(f"Error: No such image: {reference}")
    labels = image["labels"]
    mode, name = labels.get("tfserving.mode", ""), labels.get("tfserving.model_name", "")
    print(f"{mode}|{name}|{' '.join(image['env'])} ")


def inspect_container(state: dict[str, Any], template: str, name: str) -> None:
    name = find(state, name)
    container = state["containers"][name]
    if template == "{{.State.Status}} {{.RestartCount}}":
        print(container["status"], container["restarts"])
        return
    if template == "{{.Args}}":
        print(container.get("arguments", []))
        return
    labels = ("grpc", "rest", "mode", "model_name", "models", "models_config")
    # The command line knows .ID. For other names it falls back to JSON, where missing labels have a value.
    missing = "" if template.startswith("{{.ID}}") else "<no value>"
    values = [container["labels"].get(f"tfserving.{label}", missing) for label in labels]
    mounts = [mount for mount in container.get("mounts", []) if ",target=/models," in mount]
    details = [
        container.get("image", ""),
        str(container["restarts"]),
        str(container.get("exit_code", 0)),
        str(container.get("oom", False)).lower(),
        "2026-01-02T03:04:05.678Z",
        container["labels"].get("org.opencontainers.image.created", ""),
        container["labels"].get("org.opencontainers.image.revision", ""),
        mounts[0].split("source=")[1].split(",")[0] if mounts else "",
    ]
    print(
        "|".join([identifier(state, name), "15", *details, container["status"], container["health"], *values])
    )


def start_server(port: str) -> int:
    import subprocess

    return subprocess.Popen(
        [sys.executable, "-S", str(Path(__file__).with_name("fake_server.py")), f"--rest_api_port={port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ).pid


def run(state: dict[str, Any], arguments: list[str]) -> None:
    options = Options(arguments)
    name = options.one("--name")
    image = state["images"][options.image]
    if name in state["containers"]:
        fail(f'docker: Error response from daemon: Conflict. The name "/{name}" is already in use.', 125)
    published = [value.rpartition(":")[0] for value in options.given["--publish"]]
    running = [each for each in state["containers"].values() if each["status"] == "running"]
    used = {port for each in running for port in each.get("published", [])}
    container = {
        "id": new_identifier(name),
        "labels": {**image["labels"], **options.pairs("--label")},
        "status": "running",
        "health": "starting",
        "restarts": 0,
        "pid": None,
        "mounts": options.given.get("--mount", []),
        "published": published,
        "image": options.image,
        "arguments": options.arguments,
    }
    state["containers"][name] = container
    config = container["labels"].get("tfserving.models_config")
    if config:  # the entrypoint writes it
        (WORLD / "server_state").mkdir(exist_ok=True)
        (WORLD / "server_state" / "models.config").write_text(file_of(container, config).read_text())
    if state["run"] in ("fails", f"fails {name}") or used.intersection(published):
        container["status"] = "created"
        save(state)
        print(container["id"], flush=True)
        fail("docker: Error response from daemon: driver failed programming external connectivity.", 125)
    if state["run"] == "dies":
        container["status"] = "restarting"
    elif "tfserving.mode" in image["labels"]:
        port = options.given["--publish"][1].split(":")[-2]
        container["pid"] = start_server(port)
    save(state)
    print(container["id"])


def run_client(state: dict[str, Any], arguments: list[str]) -> None:
    """A client in the network of a stack: compiles its script and prints what README's model responds."""
    options = Options(arguments)
    network = options.one("--network")
    if not any(service.startswith(f"{network.removesuffix('-servers')}_") for service in state["services"]):
        fail(f"docker: Error response from daemon: network {network} not found.", 125)
    for volume in options.given["--volume"]:
        source, target, _ = volume.split(":")
        script = Path(options.arguments[0].replace(target, source))
    compile(script.read_text(), script, "exec")
    print(f"{options.arguments[1]} calls in 1.0 s, all of class 0")


def start(state: dict[str, Any], name: str) -> None:
    container = state["containers"][find(state, name)]
    port = container["published"][1].rpartition(":")[2]
    container.update(status="running", pid=start_server(port))
    save(state)


def rename(state: dict[str, Any], old: str, new: str) -> None:
    if new in state["containers"]:
        fail(f'Error response from daemon: Conflict. The name "/{new}" is already in use.')
    state["containers"][new] = state["containers"].pop(find(state, old))
    save(state)


def update(state: dict[str, Any], policy: str, name: str) -> None:
    state["containers"][find(state, name)]["restart_policy"] = policy
    save(state)


def file_of(container: dict[str, Any], path: str) -> Path:
    """The file on this machine that is mounted at this path, else the one in WORLD/files."""
    for mount in container.get("mounts", []):
        source, _, target = mount.removesuffix(",readonly").partition("source=")[2].partition(",target=")
        if path.startswith(f"{target}/"):
            return Path(source, path[len(target) + 1 :])
    return WORLD / "files" / path.lstrip("/")


def print_file(container: dict[str, Any], path: str) -> None:
    try:
        print(file_of(container, path).read_text(), end="")
    except OSError as error:
        fail(f"cat: {path}: {error.strerror}")


def remove(state: dict[str, Any], name: str) -> None:
    container = state["containers"].pop(find(state, name))
    if container["pid"]:
        os.kill(container["pid"], signal.SIGKILL)
    save(state)


def stop(state: dict[str, Any], name: str) -> None:
    container = state["containers"][find(state, name)]
    if state.get("stop") == "drains":
        save({**state, "stop": "works"})
        (WORLD / "server_state").mkdir()
        (WORLD / "server_state" / "draining").touch()
        signal.pause()
    os.kill(container["pid"], signal.SIGTERM)
    container.update(status="exited", pid=None)
    save(state)


def ps(state: dict[str, Any], filter_: str) -> None:
    kind, _, value = filter_.partition("=")
    for name, container in state["containers"].items():
        labels = container["labels"]
        ports = [labels.get(f"tfserving.{api}", "").rpartition(":")[2] for api in ("grpc", "rest")]
        wanted = value in (ports if kind == "publish" else labels)
        if wanted and container["status"] == "running":
            print(name)


def list_all(state: dict[str, Any]) -> None:
    for name, container in state["containers"].items():
        labels = container["labels"]
        if "tfserving.rest" in labels:
            grpc, rest = labels["tfserving.grpc"], labels["tfserving.rest"]
            print(f"{name}|{grpc}|{rest}|{container['status']}, {container.get('image', '')}")


def main(arguments: list[str]) -> None:
    with (WORLD / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    if arguments[0] in ("stack", "service", "run", "rm", "stop", "start", "rename", "update"):
        lock = (WORLD / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    state = load()
    check_engine(state, arguments)
    match arguments:
        case ["info", "--format", template] if "Swarm" in template:
            print(state.get("swarm", "active true"))
        case ["stack" | "service", *_] | ["network", "ls", *_]:
            import fake_swarm

            if not fake_swarm.handle(state, arguments):
                fail(f"fake docker does not support {arguments}", 99)
            save(state)
        case ["context", "inspect", *_]:
            print(state.get("address", "unix:///var/run/docker.sock"))
        case ["info", *_]:
            info(state)
        case ["build", *rest]:
            build(state, rest)
        case ["image", "inspect", "--format", template, reference] if ".Id" in template:
            bases = state.get("bases", {reference: "sha256:0"})
            print(bases.get(reference) or fail(f"Error: No such image: {reference}"))
        case ["pull", reference]:
            save({**state, "bases": {reference: state["registry"][reference]}})
        case ["image", "inspect", "--format", _, reference]:
            inspect_image(state, reference)
        case ["container", "inspect", "--format", template, name]:
            inspect_container(state, template, name)
        case ["run", "--rm", "--network", network, *rest] if network.endswith("-servers"):
            run_client(state, ["--network", network, *rest])
        case ["run", *rest]:
            run(state, rest)
        case ["rm", name] | ["rm", "--force", name]:
            remove(state, name)
        case ["rm", "--force", *names]:
            for name in names:
                remove(state, name)
        case ["network", "create" | "rm", _]:
            pass
        case ["stop", name]:
            stop(state, name)
        case ["stop", "--time", _, name]:
            stop(state, name)
        case ["start", name]:
            start(state, name)
        case ["rename", old, new]:
            rename(state, old, new)
        case ["update", "--restart", policy, name]:
            update(state, policy, name)
        case ["ps", "--all", "--filter", "label=tfserving.rest", *_]:
            list_all(state)
        case ["push", _]:
            pass
        case ["tag", source, target]:
            state["images"][target] = state["images"][source]
            save(state)
        case ["ps", "--quiet", "--filter", name] if name.endswith("_gateway"):
            print("gateway1", "gateway2", sep="\n")
        case ["logs", "gateway1" | "gateway2"]:
            print('{"group":"stable-grpc"}', '{"group":"canary-grpc"}', sep="\n")
        case ["logs", *_]:
            print("what the server in the container logged")
            print((WORLD / "log").read_text(), file=sys.stderr)  # as the server
        case ["ps", "--filter", filter_, *_]:
            ps(state, filter_)
        case ["exec", name, "cat", path]:
            print_file(state["containers"][find(state, name)], path)
        case ["exec", _, "bash", "-c", script]:
            source = Path(__file__).parents[2] / "docker" / "server_config.sh"
            script = script.replace("/usr/local/bin/server_config.sh", str(source))
            os.environ["STATE_DIR"] = str(WORLD / "server_state")
            os.execvp("bash", ["bash", "-c", script])
        case _:
            fail(f"fake docker does not support {arguments}", 99)


if __name__ == "__main__":
    main(sys.argv[1:])
