"""A fake docker command for the tests of the scripts.

The directory FAKE_WORLD has its state: `calls`, one JSON list of arguments per line; `state`, the images and
containers as JSON; `context`, the context of the last build. A container is a fake_server.py on the REST port
that it publishes.
"""

from __future__ import annotations

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
    (WORLD / "state").write_text(json.dumps(state))


def fail(message: str, code: int = 1) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)


def info(state: dict[str, Any]) -> None:
    if state["engine"] == "hangs":
        signal.pause()
    if state["engine"] == "down":
        fail("Cannot connect to the Docker daemon. Is the docker daemon running?")
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
    container = state["containers"].get(name) or fail(f"Error: No such container: {name}")
    if template == "{{.State.Status}} {{.RestartCount}}":
        print(container["status"], container["restarts"])
        return
    labels = ("grpc", "rest", "mode", "model_name", "models", "models_config")
    values = [container["labels"].get(f"tfserving.{label}", "") for label in labels]
    print("|".join([container["status"], container["health"], *values]))


def run(state: dict[str, Any], arguments: list[str]) -> None:
    import subprocess

    options = Options(arguments)
    name = options.one("--name")
    image = state["images"][options.image]
    container = {
        "labels": {**image["labels"], **options.pairs("--label")},
        "status": "running",
        "health": "starting",
        "restarts": 0,
        "pid": None,
        "mounts": options.given.get("--mount", []),
    }
    state["containers"][name] = container
    if state["run"] == "fails":
        container["status"] = "created"
        save(state)
        fail("docker: Error response from daemon: driver failed programming external connectivity.", 125)
    if state["run"] == "dies":
        container["status"] = "restarting"
    else:
        port = options.given["--publish"][1].split(":")[-2]
        server = Path(__file__).with_name("fake_server.py")
        container["pid"] = subprocess.Popen(
            [sys.executable, "-S", str(server), f"--rest_api_port={port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ).pid
    save(state)
    print("0123456789abcdef")


def remove(state: dict[str, Any], name: str) -> None:
    container = state["containers"].pop(name, None)
    if container and container["pid"]:
        os.kill(container["pid"], signal.SIGKILL)
    save(state)


def stop(state: dict[str, Any], name: str) -> None:
    container = state["containers"][name]
    if state.get("stop") == "drains":
        save({**state, "stop": "works"})
        (WORLD / "draining").touch()
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


def main(arguments: list[str]) -> None:
    with (WORLD / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    state = load()
    match arguments:
        case ["info", *_]:
            info(state)
        case ["build", *rest]:
            build(state, rest)
        case ["image", "inspect", "--format", _, reference]:
            inspect_image(state, reference)
        case ["container", "inspect", "--format", template, name]:
            inspect_container(state, template, name)
        case ["run", *rest]:
            run(state, rest)
        case ["rm", "--force", name]:
            remove(state, name)
        case ["stop", name]:
            stop(state, name)
        case ["push", _]:
            pass
        case ["logs", *_]:
            print("what the server in the container logged")
            print((WORLD / "log").read_text())
        case ["ps", "--filter", filter_, *_]:
            ps(state, filter_)
        case ["exec", name, "bash", "-c", test] if "/draining" in test:
            sys.exit(not (WORLD / "draining").exists())
        case ["exec", name, "cat", path]:
            print((WORLD / "files" / path.lstrip("/")).read_text())
        case _:
            fail(f"fake docker does not support {arguments}", 99)


if __name__ == "__main__":
    main(sys.argv[1:])
