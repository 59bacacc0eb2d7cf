"""TensorFlow's dtypes: their numbers on the wire, their names and their numpy dtypes."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


class DType(enum.IntEnum):
    """The numbers of `tensorflow.DataType`; the members have the names that saved_model_cli prints."""

    DT_INVALID = 0
    DT_FLOAT = 1
    DT_DOUBLE = 2
    DT_INT32 = 3
    DT_UINT8 = 4
    DT_INT16 = 5
    DT_INT8 = 6
    DT_STRING = 7
    DT_COMPLEX64 = 8
    DT_INT64 = 9
    DT_BOOL = 10
    DT_QINT8 = 11
    DT_QUINT8 = 12
    DT_QINT32 = 13
    DT_BFLOAT16 = 14
    DT_QINT16 = 15
    DT_QUINT16 = 16
    DT_UINT16 = 17
    DT_COMPLEX128 = 18
    DT_HALF = 19
    DT_RESOURCE = 20
    DT_VARIANT = 21
    DT_UINT32 = 22
    DT_UINT64 = 23

    @property
    def label(self) -> str:
        """The name that TensorFlow's Python API uses, e.g. "float32"."""
        return _LABELS.get(self, self.name.removeprefix("DT_").lower())

    @property
    def quantized_as(self) -> DType | None:
        """The integer dtype that holds such quantized numbers; None for a dtype that is not quantized."""
        return _QUANTIZED.get(self)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype of such a tensor: little-endian for numbers, object (of bytes) for strings.

        Quantized numbers have the structured dtypes of TensorFlow's Python API, e.g. [("qint8", "i1")], so
        that they are not confused with integers.

        Raises:
            InvalidInputError: DT_RESOURCE, DT_VARIANT and DT_INVALID have no values to send.
        """
        found = _NUMPY.get(self)
        if found is None:
            if self is not DType.DT_BFLOAT16:
                raise InvalidInputError(
                    f"a {self.name} tensor cannot be sent: it has no values outside its graph"
                )
            import ml_dtypes

            found = _NUMPY[self] = np.dtype(ml_dtypes.bfloat16)
            _BY_NUMPY[found] = self
        return found

    @classmethod
    def of(cls, dtype: np.dtype[Any]) -> DType:
        """The DType for arrays of a numpy dtype, of either byte order; text and bytes are DT_STRING.

        Raises:
            InvalidInputError: TensorFlow has no such dtype (datetimes, structured arrays, longdouble, ...).
        """
        found = _BY_NUMPY.get(dtype)
        if found is None:
            if dtype.kind in "SUO":
                return cls.DT_STRING
            if dtype.name == "bfloat16":
                return cls.DT_BFLOAT16
            found = _BY_NUMPY.get(dtype.newbyteorder("<"))
            if found is None:
                raise InvalidInputError(
                    f"numpy dtype {dtype} has no TensorFlow counterpart; convert the array first"
                )
        return found

    @classmethod
    def from_number(cls, number: int) -> DType:
        """The member for a number from the wire; DT_INVALID for an unknown number."""
        try:
            return cls(number)
        except ValueError:
            return cls.DT_INVALID


def as_wire_array(array: Array) -> Array:
    """The values C-contiguous and little-endian; the array itself if it already is both."""
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not _LITTLE):
        array = array.astype(array.dtype.newbyteorder("<"))
    return array if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(array.shape)


_LITTLE = np.little_endian

_LABELS = {DType.DT_FLOAT: "float32", DType.DT_DOUBLE: "float64", DType.DT_HALF: "float16"}

_QUANTIZED = {
    DType.DT_QINT8: DType.DT_INT8,
    DType.DT_QUINT8: DType.DT_UINT8,
    DType.DT_QINT16: DType.DT_INT16,
    DType.DT_QUINT16: DType.DT_UINT16,
    DType.DT_QINT32: DType.DT_INT32,
}

_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.DT_FLOAT: np.dtype("<f4"),
    DType.DT_DOUBLE: np.dtype("<f8"),
    DType.DT_HALF: np.dtype("<f2"),
    DType.DT_INT8: np.dtype("i1"),
    DType.DT_INT16: np.dtype("<i2"),
    DType.DT_INT32: np.dtype("<i4"),
    DType.DT_INT64: np.dtype("<i8"),
    DType.DT_UINT8: np.dtype("u1"),
    DType.DT_UINT16: np.dtype("<u2"),
    DType.DT_UINT32: np.dtype("<u4"),
    DType.DT_UINT64: np.dtype("<u8"),
    DType.DT_BOOL: np.dtype("?"),
    DType.DT_COMPLEX64: np.dtype("<c8"),
    DType.DT_COMPLEX128: np.dtype("<c16"),
    DType.DT_STRING: np.dtype(object),
}
_NUMPY.update({dtype: np.dtype([(dtype.label, _NUMPY[held])]) for dtype, held in _QUANTIZED.items()})
_BY_NUMPY: dict[np.dtype[Any], DType] = {dtype: member for member, dtype in _NUMPY.items()}
