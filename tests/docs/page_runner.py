"""Runs the commands of README.md and of the guide in order, and compares their output with the output shown.

A `text` block directly below a block of commands shows their output, with `…` for what varies. A `console`
block shows a session: its numbers may differ, and a line `...` stands for lines that were left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.docs.checkout import CheckoutCopy, Output
from tests.docs.pages import ROOT, Page, guide_pages, read_page

# Lines of a session that differ between machines: the engine, and where things are installed.
VARIES = re.compile(r"docker|embedded|\.venv|log:|waiting")
# Commands that need a GPU, a registry, or a download of gigabytes, and those with names of images that a copy
# does not replace, run with a fake docker.
NEEDS_FAKE_DOCKER = re.compile(r"GPU=|-gpu|docker/embedded/build.sh|docker (run|push|rm) |\.sh update|swarm")

# Pages whose commands need a Docker daemon and an image with Envoy.
NEEDS_ENVOY = ["docs/guide/gateway.md"]
# The page whose commands run without a server; it exports the model of README.md again.
EXPORT = "docs/guide/export.md"


def run_pages(
    copy: CheckoutCopy, fake: FakeDocker, fake_variables: dict[str, str], skipped: Sequence[str] = ()
) -> None:
    """Run the blocks of README.md, then those of the guide.

    Args:
        fake_variables: variables that make a block use the fake docker.
        skipped: pages to skip.
    """
    fake.add_image(f"{copy.prefix}-tfserving-iris")
    run_page(read_page("README.md"), copy, fake, fake_variables)
    if EXPORT not in skipped:
        shutil.rmtree(copy.root / "models" / "iris")
    for name in guide_pages():
        if name in skipped:
            continue
        run_page(read_page(name), copy, fake, fake_variables)


def run_page(page: Page, copy: CheckoutCopy, fake: FakeDocker, fake_variables: dict[str, str]) -> None:
    output = Output("", "")
    for block in page.blocks:
        try:
            if "kubectl " in block.text and shutil.which("kubectl") is None:
                continue
            if block.language == "bash" and NEEDS_FAKE_DOCKER.search(block.text):
                output = copy.run_bash(block.text, {**fake_variables, "ENGINE": "docker"})
                fake.check_gpu_arguments(block.text)
            elif block.language == "bash" and "run_tests.sh" not in block.text:
                output = copy.run_bash(block.text)
            elif block.language == "python":
                output = copy.run_python(block.text)
            elif block.language == "text" and block.is_output:
                compare_output(block.text, output.stdout)
            elif block.language == "console":
                compare_session(block.text, output)
        except AssertionError as error:
            raise AssertionError(f"{page.name}:{block.line}: {error}") from error


def compare_output(shown: str, printed: str) -> None:
    """Check that the page shows what the command printed; `…` matches any text."""
    pattern = re.escape(shown.strip()).replace(re.escape("…"), ".*?")
    assert re.fullmatch(pattern, printed.strip(), re.S), (
        f"the page shows\n{shown}\nand the command prints\n{printed}"
    )


def compare_session(shown: str, output: Output) -> None:
    """Check that the command printed every line of the session, apart from numbers and paths."""

    def normalize(line: str) -> str:
        line = re.sub(r"/\S+/", "", line)  # the location of the checkout
        line = re.sub(r"\d+(\.\d*)?(e-\d+)?", "N", line)
        return re.sub(r" (?=[],])", "", " ".join(line.split()))

    printed = {normalize(line) for line in (output.stdout + output.stderr).splitlines()}
    for line in shown.splitlines():
        is_picture = not re.search(r"\w", line) or "read: " in line
        if not (is_picture or line.startswith("$ ") or VARIES.search(line)):
            assert normalize(line) in printed, (
                f"the page shows the line\n{line}\nand the command prints\n{output.stdout}\n{output.stderr}"
            )


class FakeDocker:
    """tests/scripts/fake_docker.py as the docker command with the images that the commands need; two GPUs."""

    def __init__(self, directory: Path) -> None:
        self.world = directory / "world"
        self.bin = directory / "bin"
        self.world.mkdir(parents=True)
        self.bin.mkdir()
        command = self.bin / "docker"
        script = ROOT / "tests" / "scripts" / "fake_docker.py"
        # fake_docker.py does not read a build context from standard input.
        ignore_context = 'for last; do :; done; [ "$last" != - ] || exec cat >/dev/null'
        command.write_text(f'#!/bin/sh\n{ignore_context}\nexec {sys.executable} -S -E {script} "$@"\n')
        command.chmod(0o755)
        gpus = self.bin / "nvidia-smi"
        gpus.write_text('#!/bin/sh\nfor gpu in 0 1; do echo "GPU $gpu: NVIDIA H200 (UUID: GPU-$gpu)"; done\n')
        gpus.chmod(0o755)
        labels = {"tfserving.mode": "single", "tfserving.model_name": "iris", "tfserving.models": "iris:1"}
        image = {"env": ["CUDA_VERSION=12.5.1"], "labels": labels}
        state = {"engine": "answers", "log_driver": "json-file", "build": "works", "run": "works"}
        images = {"tfserving-iris": image, "tfserving-iris:gpu": image}
        images |= {name: {"env": [], "labels": {}} for name in ("prom/prometheus", "grafana/grafana")}
        state |= {"images": images, "containers": {}}
        (self.world / "state").write_text(json.dumps(state))
        (self.world / "models").write_text("{}")
        (self.world / "server").write_text("works")
        (self.world / "log").write_text("")

    def add_image(self, name: str) -> None:
        """Add a name for the image of iris: a copy of the checkout has its own default names."""
        state = json.loads((self.world / "state").read_text())
        state["images"][name] = state["images"]["tfserving-iris"]
        (self.world / "state").write_text(json.dumps(state))

    def check_gpu_arguments(self, text: str) -> None:
        """Check that each command of the block passed its GPU to docker, unless it was a dry run."""
        calls = [json.loads(line) for line in (self.world / "calls").read_text().splitlines()]
        for gpus, rest in re.findall(r"^GPU=(\S+)(.*)", text, re.M):
            for gpu in gpus.split(",") if "REPLICAS_PER_GPU" in rest else [gpus]:
                given = [call for call in calls if call[0] == "run" and f'"device={gpu}"' in call]
                assert given or "--dry-run" in rest, f"no docker run with GPU {gpu} among {calls}"

    def close(self) -> None:
        """Stop the processes that stand for its containers."""
        for container in json.loads((self.world / "state").read_text())["containers"].values():
            if container["pid"]:
                os.kill(container["pid"], signal.SIGKILL)


def make_kubectl(directory: Path) -> Path:
    """A directory with a kubectl that renders what it would apply, and checks the flags of other commands."""
    real = shutil.which("kubectl")
    path = directory / "kubectl" / "kubectl"
    path.parent.mkdir()
    path.write_text(
        f"""#!/bin/sh
case "$1 $2" in
  "kustomize "*) exec {real} "$@" ;;
  "apply -k") exec {real} kustomize "$3" ;;
  "apply --filename") test -f "$3" ;;
  *) {real} "$@" --help >/dev/null ;;
esac
"""
    )
    path.chmod(0o755)
    return path.parent
