"""Refusal of versions that a server has loaded."""

from __future__ import annotations

import pytest

from tfserving.errors import RepositoryError, UnavailableError
from tfserving.release.loaded_versions import check_not_loaded
from tfserving.release.servers import ServerConnections, ServerProcess


def check(name, address, model, version):
    with ServerConnections([ServerProcess(name, address)]) as connections:
        check_not_loaded(connections, model, version)


@pytest.mark.parametrize("state", [20, 30, 40])
def test_rejects_a_version_in_memory(service, rpc_server, state):
    service.models["half"][2].state = state
    with pytest.raises(RepositoryError, match=r"^tf \(.*\) has loaded version 2 of half and would not"):
        check("tf", rpc_server.address, "half", 2)


def test_accepts_a_version_that_is_not_in_memory(service, rpc_server):
    service.models["half"][2].state = 50
    for model, version in (("half", 2), ("half", 3), ("other", 1)):
        check("tf", rpc_server.address, model, version)


def test_reports_a_server_that_does_not_respond():
    with pytest.raises(UnavailableError):
        check("tf", "127.0.0.1:1", "half", 1)
