"""The fake servers of the tests of the client."""

from tests.client.conftest import certificates, rest_server, rpc_server, service

__all__ = ["certificates", "rest_server", "rpc_server", "service"]
