"""The requests of a benchmark."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.client.fakes import PREDICT
from tfserving.bench.workload import WorkloadFactory
from tfserving.errors import InvalidInputError
from tfserving.repository.warmup_records import warmup_file, write_warmup
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import decode_request, encode_request
from tfserving.wire.signatures import Signature, TensorInfo

PAIR = {"a": (DType.DT_FLOAT, (None, 2)), "b": (DType.DT_INT64, (None,))}


def factory_for(inputs=PAIR, *, name="serving_default", signature="", is_grpc=True):
    infos = {alias: TensorInfo(alias, dtype, shape) for alias, (dtype, shape) in inputs.items()}
    found = {name: Signature(name, PREDICT, infos, {})}
    return WorkloadFactory(ModelSpec("m", 3, signature=signature), found, is_grpc=is_grpc)


def decode(workload):
    return [decode_request(request.body) for request in workload.requests]


def arrays(rows):
    values = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    return {"a": values, "b": np.arange(rows, dtype=np.int64)}


def test_arrays_are_one_request():
    (call,) = decode(factory_for().from_arrays(arrays(5), None, "f.npz"))
    assert (call.spec.name, call.spec.version) == ("m", 3)
    assert call.read()["b"].tolist() == [0, 1, 2, 3, 4]


def test_arrays_are_divided_into_batches():
    workload = factory_for().from_arrays(arrays(5), 2, "f.npz")
    assert [call.read()["b"].tolist() for call in decode(workload)] == [[0, 1], [2, 3]]
    assert workload.description.startswith("2 requests of ")


def test_rejects_fewer_rows_than_a_batch():
    with pytest.raises(InvalidInputError, match=r"f\.npz has arrays with so many rows: a 5, b 5; .* 6"):
        factory_for().from_arrays(arrays(5), 6, "f.npz")


def test_rejects_arrays_that_do_not_fit_the_signature():
    with pytest.raises(InvalidInputError, match="needs input 'b'"):
        factory_for().from_arrays({"a": arrays(1)["a"]}, None, "f.npz")


def test_records_keep_their_signature_and_outputs(tmp_path):
    write_warmup(
        tmp_path, [encode_request(ModelSpec("other", signature="s"), {"x": np.ones(2, np.float32)}, ["y"])]
    )
    factory = factory_for({"x": (DType.DT_FLOAT, (None,))}, name="s")
    (call,) = decode(factory.from_records(warmup_file(tmp_path)))
    assert (call.spec.name, call.spec.version, call.spec.signature) == ("m", 3, "s")
    assert call.outputs == ("y",)
    assert call.read()["x"].tolist() == [1, 1]


def test_rejects_a_file_without_records(tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        factory_for().from_records(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="has no records"):
        factory_for().from_records(tmp_path / "empty")


def test_generates_values_for_the_shapes_of_the_signature():
    (call,) = decode(factory_for().from_signature({}, 4))
    found = call.read()
    assert found["a"].shape == (4, 2)
    assert ((found["a"] >= 0) & (found["a"] < 1)).all()
    assert found["b"].tolist() == [0, 0, 0, 0]


def test_writes_json_for_rest():
    workload = factory_for(is_grpc=False).from_signature({"b": (1,)}, None)
    (request,) = workload.requests
    assert request.path == "/v1/models/m/versions/3:predict"
    assert json.loads(request.body)["inputs"]["b"] == [0]


FREE = {"tokens": (DType.DT_INT32, (None, None))}


@pytest.mark.parametrize(
    ("inputs", "shapes", "batch_size", "message"),
    [
        (FREE, {}, None, r"'tokens' has dimensions of any size: \(-1, -1\); .* --shape tokens=1x128"),
        ({"x": (DType.DT_FLOAT, None)}, {}, None, "unknown rank; pass --shape x=SIZES"),
        (FREE, {"tokens": (3,)}, None, r"--shape tokens=3 does not fit the signature, which has \(-1, -1\)"),
        (
            FREE,
            {"ids": (3,)},
            None,
            "--shape ids: signature 'serving_default' has no such input; .* 'tokens'",
        ),
        ({"x": (DType.DT_FLOAT, ())}, {}, 2, r"--batch-size 2 does not fit input 'x'.* \(\); omit"),
        ({"x": (DType.DT_STRING, (None,))}, {}, None, "'x' has strings.* pass --data or --warmup-records"),
    ],
)
def test_errors_name_the_option(inputs, shapes, batch_size, message):
    with pytest.raises(InvalidInputError, match=message):
        factory_for(inputs).from_signature(shapes, batch_size)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("", r"model 'm' has no default signature; pass --signature NAME \(it has: other\)"),
        ("none", r"--signature none: model 'm' has no such signature \(it has: other\)"),
    ],
)
def test_a_missing_signature_is_an_error_that_lists_the_others(signature, message):
    with pytest.raises(InvalidInputError, match=message):
        factory_for(name="other", signature=signature).from_signature({}, None)
