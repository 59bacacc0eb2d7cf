"""Every file of deploy/ is rendered with an overlay, or named here with the test that uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import KUBERNETES, OVERLAYS
from tests.deploy.tools import DEPLOY, ROOT, list_deploy_files

# For the files that no overlay renders: the test that uses or checks them, and what it calls them.
TESTED_BY = {
    "kubernetes/kserve/inference-service.yaml": ("tests/deploy/manifests.py", "inference-service.yaml"),
    "monitoring/prometheus/*.yml": ("tests/deploy/prometheus.py", 'MONITORING / "prometheus"'),
    "monitoring/grafana/dashboards/*": ("tests/deploy/test_monitoring.py", "DASHBOARDS"),
    "monitoring/grafana/datasources/*": ("tests/deploy/test_monitoring.py", '"datasources"'),
    "monitoring/monitoring.config": ("tests/deploy/test_monitoring.py", "monitoring.config"),
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


def list_all_rendered() -> set[Path]:
    return {path for overlay in OVERLAYS for path in list_rendered(KUBERNETES / "overlays" / overlay)}


@pytest.mark.parametrize("path", list_deploy_files(), ids=str)
def test_a_test_covers_the_file(path: Path) -> None:
    is_tested = any(path.match(pattern) for pattern in TESTED_BY)
    assert is_tested or path in list_all_rendered() or path.name == "README.md", (
        f"no test covers deploy/{path}; add one, and its name to TESTED_BY"
    )


@pytest.mark.parametrize("pattern", TESTED_BY)
def test_the_pattern_matches_a_file_that_the_test_names(pattern: str) -> None:
    test, text = TESTED_BY[pattern]
    assert any(path.match(pattern) for path in list_deploy_files())
    assert text in (ROOT / test).read_text()
