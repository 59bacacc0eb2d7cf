"""The file of warmup records of a version."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tfserving.errors import InvalidInputError, ProtocolError
from tfserving.repository import tfrecord, warmup_records
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import encode_request


def request(value: float) -> bytes:
    return encode_request(ModelSpec("m", signature="s"), {"x": np.array([value], np.float32)})


def test_reads_the_requests_that_were_written_as_prediction_logs(tmp_path):
    warmup_records.write_warmup(tmp_path, [request(1.0), request(2.0)])
    logs = list(warmup_records.read_warmup(tmp_path))
    assert [log.predict_log.request.SerializeToString() for log in logs] == [request(1.0), request(2.0)]
    assert logs[0].predict_log.request.model_spec.signature_name == "s"


def test_writes_the_file_that_servers_read(tmp_path):
    warmup_records.write_warmup(tmp_path, [request(1.0)])
    assert (tmp_path / "assets.extra" / "tf_serving_warmup_requests").is_file()


def test_a_version_without_the_file_has_no_requests(tmp_path):
    assert list(warmup_records.read_warmup(tmp_path)) == []


def test_writing_replaces_existing_requests(tmp_path):
    warmup_records.write_warmup(tmp_path, [request(1.0), request(2.0)])
    warmup_records.write_warmup(tmp_path, [request(3.0)])
    assert len(list(warmup_records.read_warmup(tmp_path))) == 1


def test_accepts_up_to_1000_requests(tmp_path):
    warmup_records.write_warmup(tmp_path, [request(1.0)] * 1000)
    assert len(list(warmup_records.read_warmup(tmp_path))) == 1000
    with pytest.raises(InvalidInputError, match="1001"):
        warmup_records.write_warmup(tmp_path, [request(1.0)] * 1001)
    record = next(tfrecord.read_records(warmup_records.warmup_file(tmp_path)))
    tfrecord.write_records(warmup_records.warmup_file(tmp_path), [record] * 1001)
    with pytest.raises(ProtocolError, match="at most 1000"):
        list(warmup_records.read_warmup(tmp_path))


def test_rejects_bytes_that_are_not_a_request(tmp_path):
    with pytest.raises(ProtocolError, match="not a PredictRequest"):
        warmup_records.write_warmup(tmp_path, [b"\xff\xff"])
    assert not warmup_records.warmup_file(tmp_path).exists()


def test_rejects_a_fifo_without_waiting_for_a_writer(tmp_path):
    warmup_records.warmup_file(tmp_path).parent.mkdir()
    os.mkfifo(warmup_records.warmup_file(tmp_path))
    with pytest.raises(ProtocolError, match="is not a regular file"):
        list(warmup_records.read_warmup(tmp_path))


def test_reports_the_number_of_a_record_that_is_not_a_prediction_log(tmp_path):
    warmup_records.warmup_file(tmp_path).parent.mkdir()
    tfrecord.write_records(warmup_records.warmup_file(tmp_path), [b"", b"\xff\xff"])
    with pytest.raises(ProtocolError, match="record 2 is not a PredictionLog"):
        list(warmup_records.read_warmup(tmp_path))


def test_removing_preserves_other_extra_assets(tmp_path):
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
