"""Warmup requests from signatures and samples. No TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

from tfserving.errors import ExportError, InvalidInputError
from tfserving.export.samples import load_samples
from tfserving.export.warmup_requests import encode_samples, generate_requests
from tfserving.wire.dtypes import DType
from tfserving.wire.predict import decode_request
from tfserving.wire.signatures import PREDICT_METHOD, Signature, TensorInfo


def signatures(**inputs_of: dict[str, tuple[DType, tuple[int | None, ...] | None]]) -> dict[str, Signature]:
    return {
        name: Signature(
            name,
            PREDICT_METHOD,
            {
                alias: TensorInfo(alias, dtype, shape, f"{alias}:0")
                for alias, (dtype, shape) in inputs.items()
            },
            {},
        )
        for name, inputs in inputs_of.items()
    }


def decoded(requests):
    return [decode_request(request) for request in requests]


class TestGenerateRequests:
    def test_generates_zeros_in_batches_of_1_and_8(self):
        given = signatures(serving_default={"x": (DType.DT_FLOAT, (None, 3)), "n": (DType.DT_INT64, (None,))})
        calls = decoded(generate_requests("m", given, 3))
        assert [call.read()["x"].shape for call in calls] == [(1, 3), (8, 3), (1, 3)]
        assert [call.read()["n"].shape for call in calls] == [(1,), (8,), (1,)]
        assert calls[0].read()["x"].dtype == np.float32
        assert calls[0].read()["n"].dtype == np.int64
        assert not calls[1].read()["x"].any()
        assert (calls[0].spec.name, calls[0].spec.signature) == ("m", "serving_default")

    @pytest.mark.parametrize(
        ("shape", "expected"),
        [((), ()), ((2, 3), (2, 3)), ((None, None, None, 3), (1, 1, 1, 3)), ((4, None), (4, 1))],
    )
    def test_unknown_sizes_become_1(self, shape, expected):
        (call,) = decoded(
            generate_requests("m", signatures(serving_default={"x": (DType.DT_FLOAT, shape)}), 1)
        )
        assert call.read()["x"].shape == expected

    @pytest.mark.parametrize("dtype", [DType.DT_HALF, DType.DT_BOOL, DType.DT_UINT8, DType.DT_COMPLEX64])
    def test_generates_each_dtype(self, dtype):
        (call,) = decoded(generate_requests("m", signatures(serving_default={"x": (dtype, (None,))}), 1))
        assert DType.of(call.read()["x"].dtype) is dtype

    def test_generates_requests_for_each_signature(self):
        given = signatures(a={"x": (DType.DT_FLOAT, (None,))}, b={"x": (DType.DT_FLOAT, (None,))})
        assert [call.spec.signature for call in decoded(generate_requests("m", given, 2))] == [
            "a",
            "a",
            "b",
            "b",
        ]

    def test_skips_and_logs_strings_and_unknown_ranks(self, caplog):
        given = signatures(
            plain={"x": (DType.DT_FLOAT, (None,))},
            text={"x": (DType.DT_FLOAT, (None,)), "s": (DType.DT_STRING, (None,))},
            rankless={"x": (DType.DT_FLOAT, None)},
            empty={},
        )
        assert [call.spec.signature for call in decoded(generate_requests("m", given, 1))] == ["plain"]
        assert [record.args for record in caplog.records] == [("text",), ("rankless",), ("empty",)]

    def test_skips_and_logs_sparse_inputs_and_outputs(self, caplog):
        sparse = TensorInfo("s", DType.DT_FLOAT, (None, 3))
        given = signatures(plain={"x": (DType.DT_FLOAT, (None,))}, out={"x": (DType.DT_FLOAT, (None,))})
        given["in"] = Signature("in", PREDICT_METHOD, {"s": sparse}, {})
        given["out"] = Signature("out", PREDICT_METHOD, given["out"].inputs, {"s": sparse})
        assert [call.spec.signature for call in decoded(generate_requests("m", given, 1))] == ["plain"]
        assert [record.args for record in caplog.records] == [("out",), ("in",)]

    def test_generates_an_encoded_image(self):
        given = signatures(image_bytes={"image_bytes": (DType.DT_STRING, (None,))})
        calls = decoded(generate_requests("m", given, 2))
        assert [call.read()["image_bytes"].shape for call in calls] == [(1,), (8,)]
        assert calls[0].read()["image_bytes"][0].startswith(b"\x89PNG")

    def test_rejects_a_model_without_a_suitable_signature(self):
        with pytest.raises(ExportError, match="--warmup-data"):
            generate_requests("m", signatures(serving_default={"s": (DType.DT_STRING, (None,))}), 1)

    def test_rejects_more_than_1000_in_total(self):
        given = signatures(a={"x": (DType.DT_FLOAT, (None,))}, b={"x": (DType.DT_FLOAT, (None,))})
        assert len(generate_requests("m", given, 500)) == 1000
        with pytest.raises(InvalidInputError, match="1-500"):
            generate_requests("m", given, 501)


class TestEncodeSamples:
    def test_sends_a_sample_as_a_batch_of_one(self):
        given = signatures(serving_default={"x": (DType.DT_FLOAT, (None, 2))})
        calls = decoded(encode_samples("m", given, {"x": np.array([[1.0, 2.0], [3.0, 4.0]])}))
        assert [call.read()["x"].tolist() for call in calls] == [[[1.0, 2.0]], [[3.0, 4.0]]]
        assert calls[0].read()["x"].dtype == np.float32

    def test_sends_a_sample_as_it_is_to_a_signature_without_a_batch(self):
        given = signatures(serving_default={"x": (DType.DT_FLOAT, (2, 2)), "k": (DType.DT_INT32, ())})
        samples = {"x": np.arange(12).reshape(3, 2, 2), "k": np.array([1, 2, 3])}
        calls = decoded(encode_samples("m", given, samples))
        assert [call.read()["x"].shape for call in calls] == [(2, 2)] * 3
        assert [call.read()["k"].tolist() for call in calls] == [1, 2, 3]

    def test_encodes_strings_as_utf_8(self):
        given = signatures(serving_default={"s": (DType.DT_STRING, (None,))})
        calls = decoded(encode_samples("m", given, {"s": np.array(["é", "b"])}))
        assert [call.read()["s"].tolist() for call in calls] == [["é".encode()], [b"b"]]

    def test_finds_the_signature_by_its_inputs_the_default_first(self):
        given = signatures(
            a={"x": (DType.DT_FLOAT, (None,))},
            other={"z": (DType.DT_FLOAT, (None,))},
            serving_default={"x": (DType.DT_FLOAT, (None,))},
        )
        assert decoded(encode_samples("m", given, {"x": np.ones(1)}))[0].spec.signature == "serving_default"
        assert decoded(encode_samples("m", given, {"z": np.ones(1)}))[0].spec.signature == "other"

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            ({"y": np.ones((2, 3))}, r"inputs of the samples, y \(signatures: serving_default: x\)"),
            ({"x": np.ones((2, 4))}, r"have shape \(4,\); expected \(-1, 3\)"),
            ({"x": np.ones(2)}, r"have shape \(\); expected \(-1, 3\)"),
            ({"x": np.ones((2, 5, 3, 1))}, "shape"),
            ({"x": np.array([["a"] * 3])}, "expected float32"),
            ({"x": np.ones((2, 3), np.complex64)}, "expected float32"),
            ({"x": np.array(1.0)}, "0 samples"),
            ({"x": np.ones((0, 3))}, "0 samples"),
            ({"x": np.ones((1001, 3))}, "1001 samples"),
        ],
    )
    def test_rejects_samples_that_do_not_fit(self, samples, message):
        given = signatures(serving_default={"x": (DType.DT_FLOAT, (None, 3))})
        with pytest.raises(InvalidInputError, match=message):
            encode_samples("m", given, samples)

    def test_rejects_integers_out_of_range(self):
        given = signatures(serving_default={"x": (DType.DT_UINT8, (None,))})
        assert len(encode_samples("m", given, {"x": np.array([0, 255], np.uint16)})) == 2
        with pytest.raises(InvalidInputError, match="uint8 cannot represent"):
            encode_samples("m", given, {"x": np.array([256], np.uint16)})

    def test_rejects_numbers_for_strings(self):
        given = signatures(serving_default={"s": (DType.DT_STRING, (None,))})
        with pytest.raises(InvalidInputError, match="expected strings"):
            encode_samples("m", given, {"s": np.ones(2)})

    def test_rejects_inputs_with_different_numbers_of_samples(self):
        given = signatures(serving_default={"a": (DType.DT_FLOAT, (None,)), "b": (DType.DT_FLOAT, (None,))})
        with pytest.raises(InvalidInputError, match="different numbers of samples"):
            encode_samples("m", given, {"a": np.ones(2), "b": np.ones(3)})

    def test_rejects_samples_of_a_signature_with_sparse_tensors(self):
        sparse = TensorInfo("s", DType.DT_FLOAT, (None, 3))
        given = {"in": Signature("in", PREDICT_METHOD, {"s": sparse}, {})}
        with pytest.raises(
            InvalidInputError, match="signature 'in' has sparse tensors, which servers do not"
        ):
            encode_samples("m", given, {"s": np.zeros((1, 3), np.float32)})


class TestLoadSamples:
    def test_reads_arrays_by_name(self, tmp_path):
        np.savez(tmp_path / "samples.npz", x=np.ones(2), s=np.array([b"a", b"b"]))
        samples = load_samples(tmp_path / "samples.npz")
        assert samples["x"].tolist() == [1.0, 1.0]
        assert samples["s"].tolist() == [b"a", b"b"]

    def test_accepts_a_mapping_of_lists(self):
        assert load_samples({"x": [[1, 2]]})["x"].shape == (1, 2)

    def test_rejects_invalid_files(self, tmp_path):
        np.save(tmp_path / "one.npy", np.ones(2))
        np.savez(tmp_path / "empty.npz")
        np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
        (tmp_path / "text.npz").write_text("no zip")
        (tmp_path / "nothing.npz").touch()
        whole = tmp_path / "whole.npz"
        np.savez(whole, x=np.ones(1000))
        (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:1000])
        for name, message in [
            ("one.npy", "without a name"),
            ("empty.npz", "has no samples"),
            ("objects.npz", "plain arrays"),
            ("text.npz", "plain arrays"),
            ("nothing.npz", "plain arrays"),
            ("cut.npz", "plain arrays"),
            ("missing.npz", "cannot read"),
        ]:
            with pytest.raises(InvalidInputError, match=message):
                load_samples(tmp_path / name)
