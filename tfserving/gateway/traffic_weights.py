"""The share of the traffic that each group of model servers gets.

A group is a pair of clusters in Envoy's configuration, GROUP-grpc and GROUP-rest. The routes of routes.json
name all clusters with their weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tfserving.errors import ConfigError, InvalidInputError
from tfserving.gateway.dynamic_files import lock, read_resource, write_resource

TOTAL = 100
_FILE = "routes.json"
_SUFFIXES = ("-grpc", "-rest")


def read_weights(directory: Path) -> dict[str, int]:
    """Return the percentage of each group.

    Args:
        directory: contains routes.json.

    Raises:
        ConfigError: the file is not valid, or its routes have different weights.
    """
    path = directory / _FILE
    routes = list(_read_weighted_routes(path, read_resource(path, "RouteConfiguration")))
    first = _weights_of(path, routes[0])
    for clusters in routes[1:]:
        other = _weights_of(path, clusters)
        if other != first:
            raise ConfigError(
                f"{path}: routes have different weights, {_format(first)} and {_format(other)}; "
                "set them with tfserving traffic set"
            )
    return first


def write_weights(directory: Path, weights: Mapping[str, int]) -> dict[str, int]:
    """Set the percentage of each group in all routes and return the new weights.

    Args:
        directory: contains routes.json.
        weights: percentages by group, which add up to 100; groups without one get 0.

    Raises:
        InvalidInputError: the weights are not valid, or name a group that the routes do not have.
        ConfigError: the file is not valid.
    """
    _check(weights)
    path = directory / _FILE
    with lock(directory):
        resource = read_resource(path, "RouteConfiguration")
        for clusters in _read_weighted_routes(path, resource):
            groups = _weights_of(path, clusters)
            for name in weights:
                if name not in groups:
                    raise InvalidInputError(
                        f"{name!r} is not a group of {path} (groups: {', '.join(groups)}); "
                        "nothing was changed"
                    )
            for cluster in clusters:
                cluster["weight"] = weights.get(_group_of(path, cluster), 0)
        write_resource(path, resource)
    return read_weights(directory)


def _check(weights: Mapping[str, int]) -> None:
    for name, weight in weights.items():
        if not 0 <= weight <= TOTAL:
            raise InvalidInputError(f"{name}={weight} is not a valid weight (0-{TOTAL})")
    total = sum(weights.values())
    if total != TOTAL:
        raise InvalidInputError(f"the weights {_format(weights)} add up to {total}, not to {TOTAL}")


def _format(weights: Mapping[str, int]) -> str:
    return " ".join(f"{name}={weight}" for name, weight in weights.items())


def _read_weighted_routes(path: Path, resource: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Yield the weighted clusters of each route that has them; at least one."""
    found = False
    for host in resource.get("virtual_hosts", ()):
        for route in host.get("routes", ()):
            clusters = route.get("route", {}).get("weighted_clusters", {}).get("clusters")
            if clusters:
                found = True
                yield clusters
    if not found:
        raise ConfigError(f"{path} has no route with weighted_clusters; restore the file")


def _weights_of(path: Path, clusters: list[dict[str, Any]]) -> dict[str, int]:
    return {_group_of(path, cluster): int(cluster.get("weight", 0)) for cluster in clusters}


def _group_of(path: Path, cluster: dict[str, Any]) -> str:
    name = str(cluster.get("name"))
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    raise ConfigError(f"{path}: cluster {name!r} does not end with {' or '.join(_SUFFIXES)}; rename it")
