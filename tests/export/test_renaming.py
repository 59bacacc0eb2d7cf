"""Which new names are taken, and what is said about the others. No TensorFlow."""

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
def test_names_that_tensorflow_would_change_are_refused(name):
    with pytest.raises(InvalidInputError, match="cannot be the name of an input"):
        Renaming(inputs={"x": name})


@pytest.mark.parametrize("name", ["image", "x1", "image_bytes", "A"])
def test_plain_names_are_taken(name):
    Renaming(inputs={"x": name}, outputs={"y": name}).check([signature("serving_default", ("x",), ("y",))])


def test_an_unknown_old_name_lists_those_there_are():
    with pytest.raises(InvalidInputError, match=r"no input is called 'image': there are a, b"):
        Renaming(inputs={"image": "x"}).check([signature("serving_default", ("b", "a"))])
    with pytest.raises(InvalidInputError, match=r"no output is called 'image': there is output_0"):
        Renaming(outputs={"image": "x"}).check([signature("serving_default", ("b", "a"))])


def test_a_name_that_is_in_use_is_refused():
    with pytest.raises(
        InvalidInputError, match="two inputs of signature 'serving_default' would be called 'b'"
    ):
        Renaming(inputs={"a": "b"}).check([signature("serving_default", ("a", "b"))])


def test_one_name_for_two_is_refused():
    with pytest.raises(InvalidInputError, match="two outputs cannot both be called 'c'"):
        Renaming(outputs={"a": "c", "b": "c"})


def test_names_can_be_swapped():
    Renaming(inputs={"a": "b", "b": "a"}).check([signature("serving_default", ("a", "b"))])


def test_a_collision_in_a_signature_that_is_not_the_default_is_seen():
    with pytest.raises(InvalidInputError, match="signature 'other'"):
        Renaming(inputs={"a": "b"}).check(
            [signature("serving_default", ("a",)), signature("other", ("a", "b"))]
        )


def test_nothing_to_rename_is_false():
    assert not Renaming()
    assert Renaming(outputs={"a": "b"})
