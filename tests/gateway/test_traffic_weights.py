"""Weights in routes.json."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from tests.embedded import ROOT
from tfserving.errors import ConfigError, FailedPreconditionError, InvalidInputError
from tfserving.gateway.traffic_weights import read_weights, write_weights

DYNAMIC = ROOT / "deploy" / "gateway" / "dynamic"


@pytest.fixture
def directory(tmp_path):
    """A copy of deploy/gateway/dynamic."""
    return shutil.copytree(DYNAMIC, tmp_path / "dynamic")


def change_routes(directory, change):
    path = directory / "routes.json"
    content = json.loads(path.read_text())
    change(content["resources"][0])
    path.write_text(json.dumps(content))


def clusters_of(directory):
    (host,) = json.loads((directory / "routes.json").read_text())["resources"][0]["virtual_hosts"]
    return [
        {cluster["name"]: cluster["weight"] for cluster in route["route"]["weighted_clusters"]["clusters"]}
        for route in host["routes"]
        if "route" in route
    ]


def test_all_traffic_goes_to_stable_at_first(directory):
    assert read_weights(directory) == {"stable": 100, "canary": 0}


def test_sets_the_weights_of_every_route_and_keeps_everything_else(directory):
    before = json.loads((directory / "routes.json").read_text())
    assert write_weights(directory, {"canary": 5, "stable": 95}) == {"stable": 95, "canary": 5}
    assert read_weights(directory) == {"stable": 95, "canary": 5}
    grpc = {"stable-grpc": 95, "canary-grpc": 5}
    rest = {"stable-rest": 95, "canary-rest": 5}
    assert clusters_of(directory) == [grpc, grpc, rest]
    write_weights(directory, {"stable": 100})
    assert json.loads((directory / "routes.json").read_text()) == before


def test_a_group_without_a_weight_gets_nothing(directory):
    assert write_weights(directory, {"canary": 100}) == {"stable": 0, "canary": 100}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"stable": 95, "canary": 6}, "the weights stable=95 canary=6 add up to 101, not to 100"),
        ({"stable": 101, "canary": -1}, "stable=101 is not a valid weight (0-100)"),
        ({"canary": -1, "stable": 101}, "canary=-1 is not a valid weight (0-100)"),
        ({}, "the weights  add up to 0, not to 100"),
        ({"stable": 95, "canry": 5}, "'canry' is not a group of .*routes.json (groups: stable, canary)"),
    ],
)
def test_rejects_weights_without_writing(directory, weights, message):
    before = (directory / "routes.json").read_bytes()
    with pytest.raises(InvalidInputError) as caught:
        write_weights(directory, weights)
    start, _, end = message.partition(".*")
    assert str(caught.value).startswith(start)
    assert end in str(caught.value)
    assert (directory / "routes.json").read_bytes() == before


def test_replaces_the_file_and_keeps_its_permissions(directory):
    path = directory / "routes.json"
    path.chmod(0o640)
    inode = path.stat().st_ino
    write_weights(directory, {"stable": 50, "canary": 50})
    assert path.stat().st_ino != inode
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in directory.iterdir()) == sorted(os.listdir(DYNAMIC))


def test_reports_routes_with_different_weights(directory):
    def change(resource):
        route = resource["virtual_hosts"][0]["routes"][0]["route"]
        route["weighted_clusters"]["clusters"][0]["weight"] = 7

    change_routes(directory, change)
    with pytest.raises(ConfigError, match="routes have different weights, stable=7 canary=0 and stable=100"):
        read_weights(directory)
    assert write_weights(directory, {"stable": 90, "canary": 10}) == {"stable": 90, "canary": 10}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"routes.json:1: not valid JSON: .*; restore the file"),
        ("[]", "does not contain one RouteConfiguration"),
        ('{"resources": []}', "does not contain one RouteConfiguration"),
        ('{"resources": [{"@type": "a.b.Cluster"}]}', "does not contain one RouteConfiguration"),
        ('{"resources": [{"@type": "a.b.RouteConfiguration"}]}', "has no route with weighted_clusters"),
        ("\udcff", "is not UTF-8 text"),
    ],
)
def test_rejects_a_broken_file(directory, text, message):
    (directory / "routes.json").write_bytes(text.encode(errors="surrogateescape"))
    for call in (read_weights, lambda where: write_weights(where, {"stable": 100})):
        with pytest.raises(ConfigError, match=message):
            call(directory)


def test_rejects_a_cluster_without_a_group(directory):
    def change(resource):
        route = resource["virtual_hosts"][0]["routes"][0]["route"]
        route["weighted_clusters"]["clusters"][0]["name"] = "blue"

    change_routes(directory, change)
    with pytest.raises(ConfigError, match="cluster 'blue' does not end with -grpc or -rest"):
        read_weights(directory)


def test_rejects_a_missing_directory(tmp_path):
    with pytest.raises(ConfigError, match="No such file or directory; pass the directory of the gateway"):
        read_weights(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"cannot open the directory .*; pass the directory of the gateway"):
        write_weights(tmp_path / "missing", {"stable": 100})


def test_reports_a_directory_that_is_not_writable(directory, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tfserving.gateway.dynamic_files.NamedTemporaryFile", refuse)
    with pytest.raises(FailedPreconditionError, match=r"cannot write .*routes.json: Permission denied"):
        write_weights(directory, {"stable": 100})
