"""The Dockerfile builds offline, with the classic builder of Docker 20.10."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


@pytest.fixture
def instructions() -> list[str]:
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.M)
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def test_has_no_run_instruction(instructions: list[str]) -> None:
    assert {line.split()[0] for line in instructions} == {
        *("ARG", "FROM", "COPY", "USER", "WORKDIR", "HEALTHCHECK", "ENTRYPOINT", "EXPOSE", "ENV", "LABEL")
    }


def test_needs_no_buildkit(instructions: list[str]) -> None:
    assert not [line for line in instructions if "<<" in line or line.startswith(("COPY --", "RUN --"))]
    assert not DOCKERFILE.read_text().startswith("# syntax=")


def test_arguments_have_no_defaults(instructions: list[str]) -> None:
    given = [line for line in instructions if line.startswith("ARG") and not line.startswith("ARG BAKED_")]
    assert set(given) == {"ARG TF_SERVING_IMAGE", "ARG MODE", "ARG MODEL_NAME", "ARG MODELS"}


def test_models_are_the_last_layer(instructions: list[str]) -> None:
    assert instructions[-1] == "COPY models/ /models/"


def test_user_is_a_number(instructions: list[str]) -> None:
    assert [line for line in instructions if line.startswith("USER")] == ["USER 65532:65532"]


def test_a_draining_container_is_unhealthy_when_the_scripts_say(instructions: list[str]) -> None:
    (healthcheck,) = [line for line in instructions if line.startswith("HEALTHCHECK")]
    interval, retries = (
        int(re.findall(rf"--{name}=(\d+)", healthcheck)[0]) for name in ("interval", "retries")
    )
    engine = (DOCKERFILE.parent / "lib" / "docker_engine.sh").read_text()
    assert f"UNHEALTHY_AFTER={interval * retries + 2}\n" in engine


def test_commands_are_in_exec_form(instructions: list[str]) -> None:
    assert 'ENTRYPOINT ["tfserving-entrypoint"]' in instructions
    (healthcheck,) = [line for line in instructions if line.startswith("HEALTHCHECK")]
    assert healthcheck.endswith('CMD ["tfserving-healthcheck"]')
