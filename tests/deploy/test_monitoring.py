"""deploy/monitoring: checked with promtool, and evaluated by a Prometheus that scrapes a server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.load import load
from tests.deploy.prometheus import (
    DASHBOARDS,
    MONITORING,
    PACKAGE,
    RULES,
    THRESHOLD,
    Expression,
    Prometheus,
    read_dashboard,
    read_dashboard_expressions,
    read_rule_expressions,
    read_rules,
    run_prometheus,
)
from tests.deploy.tools import find_tool, import_tool, list_deploy_files, run_tool
from tests.docs.pages import read_page
from tests.embedded import embedded
from tests.versioned_model import VersionedModel

yaml = import_tool("yaml", "PyYAML")

RULES_TEST = Path(__file__).parent / "rules.test.yml"


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    promtool = find_tool("promtool", PACKAGE)
    run_tool(promtool, "check", "config", RULES / "prometheus.yml")
    run_tool(promtool, "check", "rules", *sorted(RULES.glob("*.rules.yml")))


def test_alerts_fire_when_they_must() -> None:
    run_tool(find_tool("promtool", PACKAGE), "test", "rules", RULES_TEST)


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    cases = yaml.safe_load(RULES_TEST.read_text())["tests"]
    firing = {
        case["alertname"] for test in cases for case in test.get("alert_rule_test", []) if case["exp_alerts"]
    }
    assert firing == {rule["alert"] for _, _, rule in read_rules() if "alert" in rule}


def test_every_alert_has_a_severity_and_a_summary() -> None:
    for file, _, rule in read_rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning", "info"), (file, rule["alert"])
            assert rule["annotations"]["summary"], (file, rule["alert"])


def test_every_alert_but_load_failed_ends_in_a_threshold() -> None:
    alerts = [rule for _, _, rule in read_rules() if "alert" in rule]
    assert [rule["alert"] for rule in alerts if not THRESHOLD.search(rule["expr"])] == ["LoadFailed"]


def test_grafana_knows_every_key_of_the_dashboard() -> None:
    assert find_unknown_keys(read_dashboard()) == []


def test_a_misspelled_key_of_the_dashboard_is_found() -> None:
    for place, key in {(place, key) for place, key, _ in walk(read_dashboard())}:
        dashboard = read_dashboard()
        node = next(node for *found, node in walk(dashboard) if found == [place, key])
        node[f"{key}_"] = node.pop(key)
        assert find_unknown_keys(dashboard), f"{place}.{key}"


def find_unknown_keys(dashboard: dict[str, Any]) -> list[str]:
    """Read the dashboard with Grafana's own models and write it: what they do not know is lost or differs."""
    models = import_tool("grafana_foundation_sdk.models.dashboard", "grafana-foundation-sdk")
    encoder = import_tool("grafana_foundation_sdk.cog.encoder", "grafana-foundation-sdk")
    import_tool("grafana_foundation_sdk.cog.plugins", "grafana-foundation-sdk").register_default_plugins()
    try:
        read = models.Dashboard.from_json(dashboard)
    except (KeyError, TypeError, AttributeError) as error:
        return [repr(error)]
    return find_differences(dashboard, json.loads(encoder.JSONEncoder().encode(read)))


def find_differences(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """The places of `ours` that `theirs`, which may have more keys, does not have."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(key, ours[key], theirs.get(key, theirs)) for key in ours]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [("[]", *pair) for pair in zip(ours, theirs, strict=True)]
    else:
        return [] if ours == theirs else [place]
    return [each for key, one, other in pairs for each in find_differences(one, other, f"{place}.{key}")]


def walk(node: Any, place: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Place, key and dictionary of every key; elements of lists have the same place."""
    children = node.items() if isinstance(node, dict) else [("[]", each) for each in node]
    for key, child in children:
        if isinstance(node, dict):
            yield place, key, node
        if isinstance(child, dict | list):
            yield from walk(child, f"{place}.{key}")


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    panels = read_dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_the_dashboard_uses_only_its_own_variables() -> None:
    dashboard = read_dashboard()
    own = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"]))) == own


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    datasource = yaml.safe_load((MONITORING / "grafana" / "datasources" / "prometheus.yml").read_text())
    (datasource,) = datasource["datasources"]
    prometheus = yaml.safe_load((RULES / "prometheus.yml").read_text())
    assert datasource["type"] == "prometheus"
    assert datasource["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((DASHBOARDS / "files.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/etc/grafana/provisioning/dashboards"


@pytest.fixture(scope="module")
def prometheus(
    versioned_model: VersionedModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a server under load, with batching and a version that cannot be loaded."""
    find_tool("prometheus", PACKAGE)
    directory = tmp_path_factory.mktemp("monitoring")
    base_path = directory / "half"
    versioned_model.publish(base_path, 1)
    flags = [
        f"--model_base_path={base_path}",
        "--model_name=half",
        f"--monitoring_config_file={MONITORING / 'monitoring.config'}",
        "--enable_batching",
        "--max_num_load_retries=0",
    ]
    with ExitStack() as stack:
        server = stack.enter_context(embedded(directory / "log", *flags))
        versioned_model.publish_broken(base_path, 2)
        stack.enter_context(load(server.grpc, server.rest))
        targets = {"serving": {"stable": server.rest}}
        yield stack.enter_context(run_prometheus(directory / "prometheus", targets))


@pytest.mark.tensorflow
def test_rules_have_values_under_load(prometheus: Prometheus) -> None:
    assert find_empty_rules(prometheus) == []


def find_empty_rules(prometheus: Prometheus) -> list[str]:
    return prometheus.find_empty([each for each in read_rule_expressions() if each.group == "serving"])


@pytest.mark.tensorflow
def test_panels_have_values_under_load(prometheus: Prometheus) -> None:
    panels = [each for each in read_dashboard_expressions() if each.group != "Gateway"]
    assert prometheus.find_empty(panels) == []


@pytest.mark.tensorflow
def test_an_alert_reports_the_version_that_failed_to_load(prometheus: Prometheus) -> None:
    firing = 'ALERTS{alertname="LoadFailed"}'
    assert prometheus.find_empty([Expression("LoadFailed", "serving", firing)]) == []
    (alert,) = prometheus.query(firing)
    assert alert["metric"]["model_path"].endswith("half/2")


@pytest.mark.tensorflow
def test_stores_only_the_metrics_that_the_rules_need(prometheus: Prometheus) -> None:
    assert find_empty_rules(prometheus) == []
    names = {sample["metric"]["__name__"] for sample in prometheus.query('{job="serving"}')}
    assert {name for name in names if not re.match(":tensorflow:|tfserving_|up$|scrape_|ALERTS", name)} == {
        "instance_model:tfserving_errors:total"
    }


@pytest.mark.parametrize("name", ["docs/guide/monitoring.md", "docs/guide/monitoring.zh.md"])
def test_the_guide_lists_every_file(name: str) -> None:
    rows = read_page(name).table_with("`prometheus/prometheus.yml`")
    files = {str(path.relative_to("monitoring")) for path in list_deploy_files("monitoring")}
    shown = {row.strip("`") for row in rows if row.startswith("`")}
    assert shown == {file for file in files if Path(file).name != "kustomization.yaml"}


@pytest.mark.parametrize("name", ["docs/guide/monitoring.md", "docs/guide/monitoring.zh.md"])
def test_the_guide_lists_every_alert_with_its_severity(name: str) -> None:
    rows = read_page(name).table_with("`ServerDown`")
    shown = {row: cells[0] for row, cells in rows.items() if row.startswith("`")}
    assert shown == {
        f"`{rule['alert']}`": rule["labels"]["severity"] for _, _, rule in read_rules() if "alert" in rule
    }
