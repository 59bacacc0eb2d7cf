"""The fake servers of the tests of the client."""

from tests.client.conftest import rest_server, rpc_server, service

__all__ = ["rest_server", "rpc_server", "service"]
