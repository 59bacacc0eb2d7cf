"""docs/compatibility.md agrees with the code, and lists every recorded flag and metric."""

import csv
import re
from pathlib import Path

import pytest

from tests.server.recorded_metrics import NEVER_SET
from tfserving.server.flags import FLAGS
from tfserving.server.observability.access_log import AccessLog
from tfserving.server.observability.metrics import Metrics
from tfserving.server.request_context import GRPC, RequestContext

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()


def tables():
    """The tables of the page: lists of rows, each a dict with the headings of the table as keys."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        found.append([dict(zip(rows[0], row, strict=True)) for row in rows[2:]])
    return found


FLAGS_TABLE, OWN_FLAGS, METRICS, OWN_METRICS, KEYS = tables()


def recorded(name):
    with (ROOT / "tests" / "conformance" / name).open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_recorded_flag_is_listed_with_its_default():
    listed = [(row["flag"], row["default"]) for row in FLAGS_TABLE]
    assert listed == [(f"`--{row['flag']}`", row["default"]) for row in recorded("flags.tsv")]


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if not flag.own], ids=lambda flag: flag.name)
def test_the_support_of_each_flag_is_listed(flag):
    (row,) = [row for row in FLAGS_TABLE if row["flag"] == f"`--{flag.name}`"]
    assert row["embedded server"] == flag.support


def test_own_flags_are_listed_with_their_defaults():
    own = [(f"`--{flag.name}`", str(flag.default).lower()) for flag in FLAGS if flag.own]
    assert [(row["flag"], row["default"]) for row in OWN_FLAGS] == own


def test_every_recorded_metric_is_listed():
    listed = [(names(row["metric"])[0], row["type"]) for row in METRICS]
    assert listed == [(row["metric"], row["type"]) for row in recorded("metrics.tsv")]


def test_metrics_have_the_listed_types_and_labels():
    families = {family.name: family for family in Metrics().registry.families}
    rows = {names(row["metric"])[0]: row for row in [*METRICS, *OWN_METRICS]}
    assert rows.keys() == families.keys()
    for name, row in rows.items():
        assert row["type"] == families[name].kind, name
        assert row["labels"] == ", ".join(sorted(families[name].labels)), name
        if "embedded server" in row:
            assert row["embedded server"] == ("never set" if name in NEVER_SET else "supported"), name


def test_the_keys_of_the_access_log_are_listed_in_order(tmp_path):
    log = AccessLog(str(tmp_path / "log"))
    with RequestContext(GRPC, "Predict", observers=[log]):
        pass
    log.close()
    written = re.findall(r'"(\w+)":', (tmp_path / "log").read_text())
    assert [name for row in KEYS for name in names(row["key"])] == written
    example = re.search(r"^\{.*\}$", PAGE, re.MULTILINE)[0]
    assert re.findall(r'"(\w+)":', example) == written
