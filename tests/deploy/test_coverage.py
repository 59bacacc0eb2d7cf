"""Every file of deploy/ is rendered with an overlay, or a test uses it or checks it with its own tool."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.deploy.manifests import KUBERNETES, OVERLAYS
from tests.deploy.tools import DEPLOY, ROOT, import_tool, list_deploy_files

yaml = import_tool("yaml", "PyYAML")

# Files that a test finds by their folder: the test, and what it calls them. Other files are named in a test.
FOUND_BY_FOLDER = {
    "monitoring/prometheus/*.yml": ("tests/deploy/prometheus.py", 'MONITORING / "prometheus"'),
    "monitoring/grafana/dashboards/*": ("tests/deploy/prometheus.py", '"grafana" / "dashboards"'),
    "gateway/client_certificates/*": ("tests/integration/test_gateway.py", "client_certificates"),
    "swarm/*.yml": ("tests/scripts/test_swarm_stack.py", 'folder.glob("*.yml")'),
}


def list_rendered(directory: Path) -> set[Path]:
    """The files that kustomize reads for a directory, relative to deploy/."""
    kustomization = directory / "kustomization.yaml"
    content = yaml.safe_load(kustomization.read_text())
    found = {kustomization.relative_to(DEPLOY)}
    for name in [*content.get("resources", []), *content.get("components", [])]:
        path = (directory / name).resolve()
        found |= list_rendered(path) if path.is_dir() else {path.relative_to(DEPLOY)}
    for generator in [*content.get("configMapGenerator", []), *content.get("secretGenerator", [])]:
        found |= {(directory / name).relative_to(DEPLOY) for name in generator["files"]}
    return found


@cache
def list_all_rendered() -> set[Path]:
    return {path for overlay in OVERLAYS for path in list_rendered(KUBERNETES / "overlays" / overlay)}


@cache
def read_other_tests() -> str:
    return "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))


@pytest.mark.parametrize("path", list_deploy_files(), ids=str)
def test_a_test_covers_the_file(path: Path) -> None:
    is_found = any(path.match(pattern) for pattern in FOUND_BY_FOLDER)
    is_named = re.search(rf"(?<![\w.-]){re.escape(path.name)}\b", read_other_tests())
    assert is_found or is_named or path in list_all_rendered() or path.name == "README.md", (
        f"no test covers deploy/{path}: use it in a test, or check it there with the tool of its kind"
    )


@pytest.mark.parametrize("pattern", FOUND_BY_FOLDER)
def test_the_test_of_a_folder_names_it(pattern: str) -> None:
    test, text = FOUND_BY_FOLDER[pattern]
    assert any(path.match(pattern) for path in list_deploy_files())
    assert text in (ROOT / test).read_text()
