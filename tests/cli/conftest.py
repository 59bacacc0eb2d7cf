"""The fixtures of the parts that the subcommands call."""

from tests.client.conftest import rest_server, rpc_server, service
from tests.export.conftest import call_signature, keras_model, signature
from tests.repository.conftest import make_version, models_dir

__all__ = [
    "call_signature",
    "keras_model",
    "make_version",
    "models_dir",
    "rest_server",
    "rpc_server",
    "service",
    "signature",
]
