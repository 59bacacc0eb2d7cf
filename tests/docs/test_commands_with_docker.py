"""The commands of README.md and of the guide, with a Docker daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from tests.docs.checkout import CheckoutCopy
from tests.docs.page_runner import EXPORT, NEEDS_ENVOY, FakeDocker, make_kubectl, run_pages
from tests.docs.pages import settings

GATEWAY_IMAGE = "envoyproxy/envoy:v1.40.0"


@pytest.mark.tensorflow
@pytest.mark.docker
def test_commands_succeed_with_docker(tmp_path: Path) -> None:
    image = base_image()
    envoy = os.environ.get("TFSERVING_TEST_ENVOY_IMAGE") or GATEWAY_IMAGE
    skipped = [EXPORT]  # it runs with the embedded server, and would do the same here
    if not has_image(envoy):
        if os.environ.get("TFSERVING_REQUIRE_DOCKER") == "1":
            pytest.fail(f"no image {envoy}, and TFSERVING_REQUIRE_DOCKER=1")
        skipped += NEEDS_ENVOY
    fake = FakeDocker(tmp_path / "docker")
    variables = {"TF_SERVING_IMAGE": image, "GATEWAY_IMAGE": envoy}
    copy = CheckoutCopy(tmp_path, variables, [make_kubectl(tmp_path)])
    try:
        path = f"{fake.bin}:{copy.environment['PATH']}"
        run_pages(copy, fake, {"PATH": path, "FAKE_WORLD": str(fake.world)}, skipped)
    finally:
        fake.close()
        copy.close()
        remove_containers_and_images(copy.prefix)


def base_image() -> str:
    """The base image. Skips the test if no Docker daemon responds or the image is not available."""
    image = os.environ.get("TFSERVING_TEST_IMAGE") or settings()["TF_SERVING_IMAGE"]
    if shutil.which("docker") is None or docker("info").returncode != 0:
        skip_or_fail("no Docker daemon responds")
    if not has_image(image):
        skip_or_fail(f"no image {image}")
    return image


def has_image(image: str) -> bool:
    return docker("image", "inspect", image).returncode == 0 or docker("pull", image).returncode == 0


def skip_or_fail(reason: str) -> NoReturn:
    if os.environ.get("TFSERVING_REQUIRE_DOCKER") == "1":
        pytest.fail(f"{reason}, and TFSERVING_REQUIRE_DOCKER=1")
    pytest.skip(reason)


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(error.cmd, 124, "", "")


def remove_containers_and_images(prefix: str) -> None:
    containers = docker("ps", "--all", "--quiet", "--filter", f"name=^{prefix}").stdout.split()
    if containers:
        docker("rm", "--force", *containers)
    docker("network", "rm", f"{prefix}-network")
    images = docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"{prefix}*").stdout.split()
    if images:
        docker("rmi", "--force", *images)
