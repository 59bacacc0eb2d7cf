"""Valid and invalid renamings. No TensorFlow."""

from __future__ import annotations

import pytest

from tfserving.errors import InvalidInputError
from tfserving.export.rewrite import Renaming
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import PREDICT_METHOD, Signature, TensorInfo


def signature(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...] = ("output_0",)) -> Signature:
    def infos(names: tuple[str, ...]) -> dict[str, TensorInfo]:
        return {alias: TensorInfo(alias, DType.DT_FLOAT, (None,)) for alias in names}

    return Signature(name, PREDICT_METHOD, infos(inputs), infos(outputs))


@pytest.mark.parametrize(
    "name", ["", "1st", "a b", "a.b", "a-b", "a/b", "../a", "_x", "ä", "class", "None", "a\n", "a:0"]
)
def test_rejects_names_that_tensorflow_would_change(name):
    with pytest.raises(InvalidInputError, match="is not a valid name of an input"):
        Renaming(inputs={"x": name})


@pytest.mark.parametrize("name", ["image", "x1", "image_bytes", "A"])
def test_accepts_valid_names(name):
    Renaming(inputs={"x": name}, outputs={"y": name}).check([signature("serving_default", ("x",), ("y",))])


def test_rejects_an_unknown_old_name_and_lists_the_known_ones():
    with pytest.raises(InvalidInputError, match="has no input 'image'; its inputs are: a, b"):
        Renaming(inputs={"image": "x"}).check([signature("serving_default", ("b", "a"))])
    with pytest.raises(InvalidInputError, match="has no output 'image'; its outputs are: output_0"):
        Renaming(outputs={"image": "x"}).check([signature("serving_default", ("b", "a"))])


def test_rejects_a_name_in_use():
    with pytest.raises(InvalidInputError, match="signature 'serving_default' would have two inputs 'b'"):
        Renaming(inputs={"a": "b"}).check([signature("serving_default", ("a", "b"))])


def test_rejects_one_name_for_two_outputs():
    with pytest.raises(InvalidInputError, match="two outputs cannot both be renamed to 'c'"):
        Renaming(outputs={"a": "c", "b": "c"})


def test_accepts_swapped_names():
    Renaming(inputs={"a": "b", "b": "a"}).check([signature("serving_default", ("a", "b"))])


def test_checks_every_signature():
    with pytest.raises(InvalidInputError, match="signature 'other'"):
        Renaming(inputs={"a": "b"}).check(
            [signature("serving_default", ("a",)), signature("other", ("a", "b"))]
        )


def test_is_false_without_names():
    assert not Renaming()
    assert Renaming(outputs={"a": "b"})
