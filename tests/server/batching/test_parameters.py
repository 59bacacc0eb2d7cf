import pytest

from tfserving.errors import ConfigError
from tfserving.server.batching.parameters import BatchingParameters, read_parameters


def written(tmp_path, text):
    path = tmp_path / "batching_params.pbtxt"
    path.write_text(text)
    return path


def test_an_empty_file_means_the_defaults(tmp_path):
    assert read_parameters(written(tmp_path, "")) == BatchingParameters()


def test_reads_every_parameter(tmp_path):
    text = """
        max_batch_size { value: 8 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 3 }
        num_batch_threads { value: 2 } allowed_batch_sizes: 4 allowed_batch_sizes: 6
        pad_variable_length_inputs: true
        enable_large_batch_splitting { value: true } max_execution_batch_size { value: 6 }
    """
    expected = BatchingParameters(8, 0, 3, 2, (4, 6), True, True, 6)
    assert read_parameters(written(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_sizes { value: 1 }", "max_batch_sizes"),
        ("max_batch_size { value: 0 }", "max_batch_size is 0, expected 1 or more"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros is -1, expected 0 or more"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "the last is 8"),
        ("max_batch_size { value: 8 } max_execution_batch_size { value: 9 }", "9, expected 0 to 8"),
        ("max_execution_batch_size { value: -3 }", "max_execution_batch_size is -3"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 9 allowed_batch_sizes: 8", "ascending"),
    ],
)
def test_rejects_invalid_parameters(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_parameters(path)
    assert str(caught.value).startswith(f"batching parameters {path}: ")


def test_rejects_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_parameters(tmp_path / "missing")
