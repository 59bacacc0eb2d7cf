"""The file of warmup requests in a version directory."""

from __future__ import annotations

import numpy as np
import pytest

from tfserving.errors import InvalidInputError, ProtocolError
from tfserving.repository import tfrecord, warmup_records
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import encode_request


def request(value: float) -> bytes:
    return encode_request(ModelSpec("m", signature="s"), {"x": np.array([value], np.float32)})


def test_requests_come_back_as_prediction_logs(tmp_path):
    assert warmup_records.write_warmup(tmp_path, [request(1.0), request(2.0)]) == 2
    logs = list(warmup_records.read_warmup(tmp_path))
    assert [log.predict_log.request.SerializeToString() for log in logs] == [request(1.0), request(2.0)]
    assert logs[0].predict_log.request.model_spec.signature_name == "s"


def test_the_file_is_where_the_server_looks(tmp_path):
    warmup_records.write_warmup(tmp_path, [request(1.0)])
    assert (tmp_path / "assets.extra" / "tf_serving_warmup_requests").is_file()


def test_a_version_without_the_file_has_no_requests(tmp_path):
    assert list(warmup_records.read_warmup(tmp_path)) == []


def test_writing_replaces_what_was_there(tmp_path):
    warmup_records.write_warmup(tmp_path, [request(1.0), request(2.0)])
    warmup_records.write_warmup(tmp_path, [request(3.0)])
    assert len(list(warmup_records.read_warmup(tmp_path))) == 1


def test_a_thousand_requests_are_the_limit(tmp_path):
    warmup_records.write_warmup(tmp_path, [request(1.0)] * 1000)
    assert len(list(warmup_records.read_warmup(tmp_path))) == 1000
    with pytest.raises(InvalidInputError, match="1001"):
        warmup_records.write_warmup(tmp_path, [request(1.0)] * 1001)
    record = next(tfrecord.read_records(warmup_records.warmup_file(tmp_path)))
    tfrecord.write_records(warmup_records.warmup_file(tmp_path), [record] * 1001)
    with pytest.raises(ProtocolError, match="more than 1000"):
        list(warmup_records.read_warmup(tmp_path))


def test_bytes_that_are_no_request_are_not_written(tmp_path):
    with pytest.raises(ProtocolError, match="no PredictRequest"):
        warmup_records.write_warmup(tmp_path, [b"\xff\xff"])
    assert not warmup_records.warmup_file(tmp_path).exists()


def test_a_record_that_is_no_prediction_log_is_named(tmp_path):
    warmup_records.warmup_file(tmp_path).parent.mkdir()
    tfrecord.write_records(warmup_records.warmup_file(tmp_path), [b"", b"\xff\xff"])
    with pytest.raises(ProtocolError, match="record 2 is no PredictionLog"):
        list(warmup_records.read_warmup(tmp_path))


def test_removing_leaves_other_extra_assets_alone(tmp_path):
    warmup_records.write_warmup(tmp_path, [request(1.0)])
    warmup_records.remove_warmup(tmp_path)
    assert not (tmp_path / "assets.extra").exists()

    warmup_records.write_warmup(tmp_path, [request(1.0)])
    (tmp_path / "assets.extra" / "note.txt").touch()
    warmup_records.remove_warmup(tmp_path)
    assert [path.name for path in (tmp_path / "assets.extra").iterdir()] == ["note.txt"]


@pytest.mark.tensorflow
def test_the_official_messages_read_the_file(tmp_path):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    warmup_records.write_warmup(tmp_path, [request(7.0)])
    (record,) = tf.data.TFRecordDataset(str(warmup_records.warmup_file(tmp_path)))
    log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
    assert tf.make_ndarray(log.predict_log.request.inputs["x"]).tolist() == [7.0]
