"""The commands of the README, read out of it and run in their order; the output that it shows is compared.

A `text` block under a block of commands is what these print, `…` stands for what varies. A `console` block is
a session: its numbers may differ.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from copies import Copy, Done
from pages import ROOT, Block, Page, settings

# What says which engine, where something lies, or was installed: not the same on any two machines.
VARIES = re.compile(r"docker|embedded|\.venv|log:|waiting")


@pytest.mark.tensorflow
def test_with_the_embedded_server(tmp_path: Path) -> None:
    fake = FakeDocker(tmp_path / "docker")
    copy = Copy(tmp_path, {"ENGINE": "embedded", "FAKE_WORLD": str(fake.world)}, [fake.bin])
    try:
        run(copy, fake, {})
    finally:
        fake.close()
        copy.close()


@pytest.mark.tensorflow
@pytest.mark.docker
def test_with_docker(tmp_path: Path) -> None:
    image = base_image()
    fake = FakeDocker(tmp_path / "docker")
    copy = Copy(tmp_path, {"TF_SERVING_IMAGE": image})
    try:
        run(copy, fake, {"PATH": f"{fake.bin}:{copy.environment['PATH']}", "FAKE_WORLD": str(fake.world)})
    finally:
        fake.close()
        copy.close()
        clean(copy.prefix)


def run(copy: Copy, fake: FakeDocker, with_fake: dict[str, str]) -> None:
    """Runs the README's blocks; `with_fake` are the variables that those for GPUs get."""
    done = Done("", "")
    for block in Page("README.md").blocks:
        try:
            if block.language == "bash" and re.search("GPU=|-gpu", block.text):
                copy.bash(block.text, {**with_fake, "ENGINE": "docker"})
                fake.check_gpu_arguments(block.text)
            elif block.language == "bash" and "run_tests.sh" not in block.text:
                done = copy.bash(block.text)
            elif block.language == "python":
                done = copy.python(block.text)
            elif block.language == "text" and not block.alone:
                compare(block.text, done.out)
            elif block.language == "console":
                compare_session(block.text, done)
        except AssertionError as error:
            raise AssertionError(f"README.md line {block.line}: {error}") from error


def compare(shown: str, printed: str) -> None:
    """Whether the README shows what was printed, but for `…` and blanks at the ends."""
    pattern = re.escape(shown.strip()).replace(re.escape("…"), ".*?")
    assert re.fullmatch(pattern, printed.strip(), re.S), (
        f"it shows\n{shown}\nand the command prints\n{printed}"
    )


def compare_session(shown: str, done: Done) -> None:
    """Whether every line of the README's session was printed, whatever its numbers."""

    def shape(line: str) -> str:
        line = re.sub(r"/\S+/", "", line)  # where the checkout lies
        return " ".join(re.sub(r"\d+(\.\d+)?", "N", line).split())

    printed = {shape(line) for line in (done.out + done.err).splitlines()}
    for line in shown.splitlines():
        is_picture = not re.search(r"\w", line) or "read: " in line
        if not (is_picture or line.startswith("$ ") or VARIES.search(line)):
            assert shape(line) in printed, f"it shows the line\n{line}\nand the command prints\n{done.out}"


class FakeDocker:
    """tests/scripts/fake_docker.py as the docker command, with the images that the README's commands want."""

    def __init__(self, directory: Path) -> None:
        self.world = directory / "world"
        self.bin = directory / "bin"
        self.world.mkdir(parents=True)
        self.bin.mkdir()
        command = self.bin / "docker"
        script = ROOT / "tests" / "scripts" / "fake_docker.py"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {script} "$@"\n')
        command.chmod(0o755)
        labels = {"tfserving.mode": "single", "tfserving.model_name": "iris", "tfserving.models": "iris:1"}
        image = {"env": ["CUDA_VERSION=12.5.1"], "labels": labels}
        state = {"engine": "answers", "log_driver": "json-file", "build": "works", "run": "works"}
        state |= {"images": {"tfserving-iris:gpu": image}, "containers": {}}
        (self.world / "state").write_text(json.dumps(state))
        (self.world / "models").write_text("{}")
        (self.world / "server").write_text("works")

    def check_gpu_arguments(self, text: str) -> None:
        """Whether each command of the block gave docker its GPU, unless it was a dry run."""
        calls = [json.loads(line) for line in (self.world / "calls").read_text().splitlines()]
        for gpu, rest in re.findall(r"^GPU=(\S+)(.*)", text, re.M):
            given = [call for call in calls if call[0] == "run" and f'"device={gpu}"' in call]
            assert given or "--dry-run" in rest, f"no docker run with GPU {gpu} among {calls}"

    def close(self) -> None:
        """Ends what "runs" in it."""
        for container in json.loads((self.world / "state").read_text())["containers"].values():
            if container["pid"]:
                os.kill(container["pid"], signal.SIGKILL)


def base_image() -> str:
    """The base of the image, where an engine answers and has it or can pull it; else the test is skipped."""
    image = os.environ.get("TFSERVING_TEST_IMAGE") or settings()["TF_SERVING_IMAGE"]
    if shutil.which("docker") is None or docker("info").returncode != 0:
        not_here("no Docker engine answers")
    if docker("image", "inspect", image).returncode != 0 and docker("pull", image).returncode != 0:
        not_here(f"no image {image}")
    return image


def not_here(reason: str) -> NoReturn:
    if os.environ.get("TFSERVING_REQUIRE_DOCKER") == "1":
        pytest.fail(f"{reason}, and TFSERVING_REQUIRE_DOCKER=1")
    pytest.skip(reason)


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(error.cmd, 124, "", "")


def clean(prefix: str) -> None:
    """Removes the containers and images of a copy."""
    containers = docker("ps", "--all", "--quiet", "--filter", f"name=^{prefix}").stdout.split()
    if containers:
        docker("rm", "--force", *containers)
    images = docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"{prefix}*").stdout.split()
    if images:
        docker("rmi", "--force", *images)


def blocks() -> Iterator[Block]:
    yield from Page("README.md").blocks


def test_every_block_has_a_known_language() -> None:
    assert {block.language for block in blocks()} <= {"bash", "python", "text", "console", "textproto"}


def test_the_two_commands_come_first() -> None:
    commands = [block.text for block in blocks() if block.language == "bash"]
    assert commands[:2] == ["bash quickstart.sh\n", "bash run_tests.sh\n"]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a 1\n", "a 1\n", True),
        ("a 1\n", "a 2\n", False),
        ("a …\nb\n", "a anything\nb\n", True),
        ("a …\nb\n", "a anything\nc\n", False),
        ("[[…]]\n", "[[1.5, 2.5]]\n", True),
        ("a\n", "a\nb\n", False),
    ],
)
def test_compare(shown: str, printed: str, same: bool) -> None:
    if same:
        compare(shown, printed)
    else:
        with pytest.raises(AssertionError):
            compare(shown, printed)


def test_compare_session() -> None:
    done = Done("[1/5] engine\n  docker: answers\n gRPC  0.98  12.5 ms\n", "a note\n")
    compare_session(
        "$ bash quickstart.sh\n[1/5] engine\n  embedded: x\n gRPC 0.99 7 ms\na note\n ## \n", done
    )
    with pytest.raises(AssertionError):
        compare_session("[1/5] engines\n", done)
