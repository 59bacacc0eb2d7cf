"""The public names, and the imports that they cause."""

import inspect
import subprocess
import sys

import pytest

import tf_rpc_client
import tfserving.client
import tfserving.errors

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
    "RowResult",
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
    "infer_many",
    "metadata",
    "multi_inference",
    "predict",
    "regress",
    "reload_config",
    "resolve_version",
    "status",
    "wait_until_available",
}


def test_exports_exactly_the_public_names():
    assert set(tfserving.client.__all__) == set(tf_rpc_client.__all__) == NAMES
    for name in NAMES:
        assert getattr(tf_rpc_client, name) is getattr(tfserving.client, name)
    assert dir(tfserving.client) == sorted(NAMES)
    with pytest.raises(AttributeError, match="nope"):
        _ = tf_rpc_client.nope


@pytest.mark.parametrize("name", ["TfRpcClient", "AsyncTfRpcClient", "TfRestClient", "AsyncTfRestClient"])
def test_clients_have_exactly_the_public_methods(name):
    cls = getattr(tfserving.client, name)
    public = {method for method in dir(cls) if not method.startswith("_")}
    assert public == METHODS
    assert all(getattr(cls, method).__doc__ for method in METHODS)
    assert cls.__doc__


@pytest.mark.parametrize("name", ["TfRpcClient", "AsyncTfRpcClient", "TfRestClient", "AsyncTfRestClient"])
def test_clients_and_calls_have_explicit_signatures(name):
    cls = getattr(tfserving.client, name)
    for function in (cls, *(getattr(cls, method) for method in METHODS)):
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        assert not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def test_no_error_is_an_oserror():
    errors = [value for value in vars(tfserving.errors).values() if isinstance(value, type)]
    assert len(errors) > 10
    assert not [error for error in errors if issubclass(error, OSError)]


def modules_after(code):
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_a_grpc_client_does_not_import_unused_packages():
    loaded = modules_after("from tf_rpc_client import TfRpcClient\nTfRpcClient('127.0.0.1:1', 'm')")
    unwanted = {"tensorflow", "requests", "aiohttp", "orjson", "ml_dtypes", "numpy", "tfserving.server"}
    assert not loaded & unwanted
    assert "grpc" in loaded


def test_the_package_imports_no_transport():
    loaded = modules_after("import tf_rpc_client, tfserving.client")
    assert not loaded & {"grpc", "requests", "aiohttp", "numpy"}


def test_the_rest_client_does_not_import_grpc():
    loaded = modules_after("from tfserving.client import TfRestClient\nTfRestClient('127.0.0.1:1', 'm')")
    assert not loaded & {"grpc", "aiohttp", "orjson", "tensorflow"}
