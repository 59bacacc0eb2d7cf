"""The public names, and what importing them costs."""

import subprocess
import sys

import pytest

import tf_rpc_client
import tfserving.client

NAMES = {
    "AsyncTfRestClient",
    "AsyncTfRpcClient",
    "Classification",
    "ConfigError",
    "DeadlineError",
    "ExhaustedError",
    "FailedPreconditionError",
    "InvalidInputError",
    "Keepalive",
    "NotFoundError",
    "PermissionDeniedError",
    "ProtocolError",
    "Retry",
    "Signature",
    "TensorInfo",
    "TfRestClient",
    "TfRpcClient",
    "TfServingError",
    "Tls",
    "UnavailableError",
    "UnsupportedError",
    "VersionStatus",
    "describe",
}
METHODS = {
    "classify",
    "close",
    "infer",
    "metadata",
    "multi_inference",
    "predict",
    "regress",
    "reload_config",
    "status",
    "wait_until_available",
}


def test_the_public_names_are_these():
    assert set(tfserving.client.__all__) == set(tf_rpc_client.__all__) == NAMES
    for name in NAMES:
        assert getattr(tf_rpc_client, name) is getattr(tfserving.client, name)
    assert dir(tfserving.client) == sorted(NAMES)
    with pytest.raises(AttributeError, match="nope"):
        _ = tf_rpc_client.nope


@pytest.mark.parametrize("name", ["TfRpcClient", "AsyncTfRpcClient", "TfRestClient", "AsyncTfRestClient"])
def test_the_public_methods_are_these(name):
    cls = getattr(tfserving.client, name)
    public = {method for method in dir(cls) if not method.startswith("_")}
    assert public - {"after_fork"} == METHODS
    assert all(getattr(cls, method).__doc__ for method in METHODS)
    assert cls.__doc__


def modules_after(code):
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_a_grpc_client_imports_nothing_that_it_does_not_use():
    loaded = modules_after("from tf_rpc_client import TfRpcClient\nTfRpcClient('127.0.0.1:1', 'm')")
    unwanted = {"tensorflow", "requests", "aiohttp", "orjson", "ml_dtypes", "tfserving.server", "hypothesis"}
    assert not loaded & unwanted
    assert "grpc" in loaded


def test_names_alone_import_no_transport():
    loaded = modules_after("import tf_rpc_client, tfserving.client")
    assert not loaded & {"grpc", "requests", "aiohttp", "numpy"}


def test_the_rest_client_needs_no_grpc():
    loaded = modules_after("from tfserving.client import TfRestClient\nTfRestClient('127.0.0.1:1', 'm')")
    assert not loaded & {"grpc", "aiohttp", "orjson", "tensorflow"}
