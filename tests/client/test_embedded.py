"""The four clients against the embedded server and models that TensorFlow exported."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.client.clients import Blocking, make_client
from tests.embedded import embedded
from tfserving.client import VersionStatus, describe
from tfserving.errors import InvalidInputError, NotFoundError, UnsupportedError

pytestmark = pytest.mark.tensorflow

ZOO = Path(__file__).parents[1] / "conformance" / "zoo.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    done = subprocess.run([sys.executable, str(ZOO), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    flags = [f"--model_config_file={folder}/models.config"]
    flags.append("--allow_version_labels_for_unavailable_models=true")
    with embedded(folder / "server.log", *flags) as running:
        yield running


@pytest.fixture(params=["rpc", "aio", "rest", "aio_rest"])
def client(request, server):
    address = server.rest if "rest" in request.param else server.grpc
    loop = asyncio.new_event_loop()
    wrapped = Blocking(make_client(request.param, address, "half_plus_two"), loop)
    yield wrapped
    wrapped.close()
    loop.close()


def values(outputs):
    return {name: array.tolist() for name, array in outputs.items()}


def test_the_server_logs_its_devices_before_it_loads_models(server):
    log = server.log.read_text()
    assert 0 < log.index("devices: ") < log.index("loading from")


# What JSON values cannot be converted to by tensorflow_model_server.
ONLY_GRPC = {"float16", "bfloat16", "uint16", "complex64"}


@pytest.mark.parametrize(
    "name",
    [
        *sorted(ONLY_GRPC),
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint32",
        "uint64",
        "bool",
    ],
)
def test_each_dtype_survives_a_round_trip(client, name):
    def call():
        return client.predict([0, 1, 1], "types", signature=name)["y"]

    if name in ONLY_GRPC and "Rest" in type(client.wrapped).__name__:
        with pytest.raises((InvalidInputError, UnsupportedError)):
            call()
        return
    got = call()
    assert got.dtype.name == name
    assert got.astype(complex).real.tolist() == [0, 1, 1]


def test_infers_with_inputs_and_outputs_of_all_kinds(client):
    assert values(client.infer([[1], [2]])) == {"y": [[2.5], [3.0]]}
    assert values(client.predict({"a": [[1, 2, 3]], "b": [4]}, "multi")) == {"sum": [10.0], "b2": [8]}
    assert values(client.predict({"a": [[1, 2, 3]], "b": [4]}, "multi", outputs="b2")) == {"b2": [8]}
    assert values(client.predict([[1, 2, 3]], "multi", signature="only_a")) == {"out": [[10.0, 20.0, 30.0]]}
    assert values(client.predict(4, "shapes", signature="scalar")) == {"y": 5.0}
    assert values(client.predict([[[1]]], "shapes")) == {"y": [[[2.0]]]}
    assert client.predict([1, 2], "shapes", signature="empty")["y"].shape == (0,)
    text = client.predict(["ab", "c"], "text")
    assert values(text) == {"upper": [b"AB", b"C"], "length": [2, 1], "raw_bytes": [b"ab", b"c"]}
    numbers = client.predict([1.0, -1.0], "numbers")
    assert numbers["div"].tolist() == [np.inf, -np.inf]
    assert np.isnan(numbers["root"]).all()
    assert np.signbit(numbers["neg"]).tolist() == [True, False]
    big = client.predict([2**63 - 1, -(2**63)], "numbers", signature="ints")
    assert values(big) == {"y": [2**63 - 1, -(2**63)], "big": [2**63 - 1] * 2}


def test_selects_versions_and_labels(client):
    assert values(client.predict([1], "every", version=2)) == {"y": [2.0]}
    assert values(client.predict([1], "newest")) == {"y": [10.0]}
    assert values(client.predict([1], "chosen", label="stable")) == {"y": [1.0]}
    assert client.status("chosen") == [VersionStatus(3, "AVAILABLE"), VersionStatus(1, "AVAILABLE")]
    client.wait_until_available(30, "chosen", label="stable")
    with pytest.raises(NotFoundError, match="Servable not found for request: "):
        client.predict([1], "chosen", version=2)


def test_classifies_and_regresses_examples(client):
    examples = [{"x": 80.0}, {"x": 2.0}]
    assert client.regress(examples, signature="regress_x_to_y").tolist() == [42.0, 3.0]
    assert client.classify(examples, signature="classify_labels") == [[("42.0", 42.0)], [("3.0", 3.0)]]
    if "Rpc" in type(client.wrapped).__name__:
        both = client.multi_inference(examples, ["regress_x_to_y", "classify_x_to_y"])
        assert both["regress_x_to_y"].tolist() == [42.0, 3.0]
        assert both["classify_x_to_y"] == [[("", 42.0)], [("", 3.0)]]


def test_returns_signatures(client):
    text = describe(client.metadata("multi"))
    assert "inputs['a']  DT_FLOAT (-1, 3)  serving_default_a:0" in text
    assert "outputs['b2']   DT_INT32 (-1)  " in text


def test_an_error_in_the_graph_has_its_message(client):
    with pytest.raises(InvalidInputError, match="x must not be negative"):
        client.predict([-1], "failing")
