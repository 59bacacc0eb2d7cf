"""Samples: inputs of a signature, one request each, and the outputs that are expected of them.

They come from arrays in an .npz file or a mapping, or are random.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfserving.errors import ExportError, InvalidInputError
from tfserving.export import images
from tfserving.wire import predict
from tfserving.wire.dtypes import Array, Arrays, DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo

Shapes = Mapping[str, tuple[int, ...]]

# Begins the key of an expected output whose name an input has as well.
_OUTPUT_PREFIX = "outputs/"

_NOT_GENERATED = {DType.DT_STRING, DType.DT_RESOURCE, DType.DT_VARIANT, DType.DT_INVALID}

# A gray image of 1x1 pixels for the signature that takes encoded images.
_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


@dataclass(frozen=True)
class Samples:
    """Samples for one signature.

    Attributes:
        signature: the name of the signature.
        inputs: for each sample, the arrays of a request by input name. If the signature has a batch
            dimension, a request is a batch of one.
        expected: for each sample, the arrays of the outputs that are expected, by name and without the
            dimension of the samples; empty if nothing is expected.
    """

    signature: str
    inputs: tuple[Arrays, ...]
    expected: tuple[Arrays, ...] = ()

    def encode_requests(self, name: str) -> list[bytes]:
        """A serialized PredictRequest to model `name` for each sample."""
        spec = ModelSpec(name, signature=self.signature)
        return [predict.encode_request(spec, inputs) for inputs in self.inputs]

    def batched(self, signature: Signature, sizes: Sequence[int]) -> Samples:
        """One sample of each size; the samples are repeated as often as a batch needs.

        Args:
            signature: the signature of the samples.
            sizes: sizes of the first dimension of every input.

        Raises:
            InvalidInputError: an input has no free first dimension.
        """
        for alias in self.inputs[0]:
            shape = signature.inputs[alias].shape
            if shape is not None and (not shape or shape[0] is not None):
                raise InvalidInputError(
                    f"input {alias!r} of signature {signature.name!r} has shape "
                    f"{signature.inputs[alias].shape_text} and no free batch dimension; omit the batch sizes"
                )
        batches = []
        for size in sizes:
            chosen = [self.inputs[index % len(self.inputs)] for index in range(size)]
            batches.append({alias: np.concatenate([one[alias] for one in chosen]) for alias in chosen[0]})
        return Samples(self.signature, tuple(batches))


def load_samples(source: str | os.PathLike[str] | Mapping[str, Any]) -> Arrays:
    """Arrays by name, from an .npz file or a mapping.

    Raises:
        InvalidInputError: the file is not readable, not an .npz file, empty or contains pickled objects.
    """
    if isinstance(source, Mapping):
        samples = {alias: np.asarray(values) for alias, values in source.items()}
        origin = "the mapping"
    else:
        samples = _read_npz(source)
        origin = os.fspath(source)
    if not samples:
        raise InvalidInputError(f"{origin} has no samples; give an array for each input of the model")
    return samples


def match_samples(
    signatures: Mapping[str, Signature], arrays: Mapping[str, Array], *, signature: str | None = None
) -> Samples:
    """Assign arrays to the inputs and outputs of a signature, and split them into samples.

    Args:
        signatures: signatures of the model by name.
        arrays: arrays by name; their first dimension is the number of samples. A name of an input is that
            input, another name of an output is the output that is expected. `outputs/NAME` is always the
            output NAME. Optional inputs may be missing.
        signature: the signature to use; None for the first that has these inputs, the default one first.

    Raises:
        InvalidInputError: no signature has these inputs, the arrays have different lengths or do not fit the
            signature, or there are no samples.
    """
    chosen, inputs, outputs = _find_signature(_candidates(signatures, signature), arrays)
    if has_sparse(chosen):
        raise InvalidInputError(
            f"signature {chosen.name!r} has sparse tensors, which servers do not support; "
            "export one with dense tensors for the samples"
        )
    counts = {alias: len(array) if array.ndim else 0 for alias, array in arrays.items()}
    count = next(iter(counts.values()))
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{alias} {number}" for alias, number in counts.items())
        raise InvalidInputError(
            f"the arrays have different numbers of samples ({listed}); give as many for each"
        )
    if not count:
        raise InvalidInputError(
            f"{', '.join(arrays)}: 0 samples; give at least one along the first dimension"
        )
    parts = {alias: _split(chosen.inputs[alias], array) for alias, array in inputs.items()}
    return Samples(
        chosen.name,
        tuple({alias: each[index] for alias, each in parts.items()} for index in range(count)),
        tuple({alias: np.asarray(array[index]) for alias, array in outputs.items()} for index in range(count))
        if outputs
        else (),
    )


def random_samples(
    signatures: Mapping[str, Signature],
    count: int,
    *,
    signature: str | None = None,
    shapes: Shapes | None = None,
    seed: int = 0,
) -> Samples:
    """Random samples for a signature, by default the default one if its inputs can be generated.

    Floating-point numbers are from 0 to 1, uint8 from 0 to 255, and other integers 0 or 1, since they are
    often indices. An encoded image is always the same gray one.

    Args:
        count: number of samples, 1 or more.
        shapes: see `resolve_shape`.
        seed: the same samples for the same seed.

    Raises:
        InvalidInputError: `count` is not positive, or a shape does not fit.
        ExportError: no signature has inputs that can be generated.
    """
    if count < 1:
        raise InvalidInputError(f"{count} samples are too few; expected 1 or more")
    candidates = [one for one in _candidates(signatures, signature) if can_generate(one)]
    if not candidates:
        raise ExportError(
            "no sample can be generated: the inputs have strings, sparse tensors or an unknown rank; "
            "give samples in an .npz file"
        )
    check_shapes(candidates[:1], shapes or {})
    infos = candidates[0].inputs
    rng = np.random.default_rng(seed)
    return Samples(
        candidates[0].name,
        tuple(
            {alias: _random(info, resolve_shape(info, 1, shapes), rng) for alias, info in infos.items()}
            for _ in range(count)
        ),
    )


def can_generate(signature: Signature) -> bool:
    """Whether inputs can be generated; servers take and return no sparse tensors."""
    if has_sparse(signature):
        return False
    if signature.name == images.SIGNATURE and list(signature.inputs) == [images.INPUT]:
        return True
    infos = signature.inputs.values()
    return bool(infos) and all(info.shape is not None and info.dtype not in _NOT_GENERATED for info in infos)


def generate_zeros(info: TensorInfo, batch_size: int, shapes: Shapes | None = None) -> Array:
    """Zeros for an input, or an encoded image for an input of strings."""
    return _zeros(info, resolve_shape(info, batch_size, shapes))


def resolve_shape(info: TensorInfo, batch_size: int, shapes: Shapes | None = None) -> tuple[int, ...]:
    """The shape of an array for an input whose rank is known.

    Args:
        batch_size: the first dimension, if that is a free one.
        shapes: by input name, the shape without a free first dimension; free dimensions are 1 without it.

    Raises:
        InvalidInputError: the shape of the input does not allow the one in `shapes`.
    """
    assert info.shape is not None
    has_batch = bool(info.shape) and info.shape[0] is None
    given = (shapes or {}).get(info.name)
    rest = info.shape[1:] if has_batch else info.shape
    if given is None:
        given = tuple(1 if size is None else size for size in rest)
    shape = (batch_size, *given) if has_batch else given
    if not info.is_valid_shape(shape):
        wanted = "x".join("?" if size is None else str(size) for size in rest) or "a scalar"
        raise InvalidInputError(
            f"shape {'x'.join(map(str, given))} does not fit input {info.name!r}; "
            f"expected {wanted}{', without the batch dimension' if has_batch else ''}"
        )
    return shape


def check_shapes(signatures: list[Signature], shapes: Shapes) -> None:
    """Check that the inputs in `shapes` exist.

    Raises:
        InvalidInputError: one does not.
    """
    known = sorted({alias for signature in signatures for alias in signature.inputs})
    for alias in shapes:
        if alias not in known:
            raise InvalidInputError(
                f"there is no input {alias!r} to set the shape of; expected {', '.join(known)}"
            )


def has_sparse(signature: Signature) -> bool:
    """Whether an input or output is a sparse tensor, which servers neither take nor return."""
    return not all(info.tensor_name for info in (*signature.inputs.values(), *signature.outputs.values()))


def _candidates(signatures: Mapping[str, Signature], name: str | None) -> list[Signature]:
    if name is None:
        return sorted(signatures.values(), key=lambda signature: signature.name != DEFAULT_SIGNATURE)
    if name not in signatures:
        raise InvalidInputError(f"the model has no signature {name!r}; it has {', '.join(signatures)}")
    return [signatures[name]]


def _find_signature(
    candidates: list[Signature], arrays: Mapping[str, Array]
) -> tuple[Signature, dict[str, Array], dict[str, Array]]:
    """The first signature that all arrays fit, its inputs and its outputs."""
    for signature in candidates:
        inputs, outputs = {}, {}
        for key, array in arrays.items():
            if key in signature.inputs:
                inputs[key] = array
            else:
                outputs[key if key in signature.outputs else key.removeprefix(_OUTPUT_PREFIX)] = array
        required = signature.inputs.keys() - signature.defaults.keys()
        if inputs and required <= inputs.keys() and outputs.keys() <= signature.outputs.keys():
            return signature, inputs, outputs
    listed = "; ".join(f"{signature.name}: {', '.join(signature.inputs)}" for signature in candidates)
    raise InvalidInputError(
        f"no signature has the inputs of the samples, {', '.join(sorted(arrays))} "
        f"(signatures: {listed}); name the arrays after the inputs"
    )


def _split(info: TensorInfo, array: Array) -> list[Array]:
    """The samples of one input, each with the shape that a request needs."""
    array = _cast(info, array)
    rank = array.ndim if info.shape is None else len(info.shape)
    parts = (
        list(array) if array.ndim == rank + 1 else [array[index : index + 1] for index in range(len(array))]
    )
    parts = [np.asarray(part, dtype=info.dtype.numpy) for part in parts]
    if not info.is_valid_shape(parts[0].shape):
        raise InvalidInputError(
            f"samples of input {info.name!r} have shape {array.shape[1:]}; expected {info.shape_text}"
        )
    return parts


def _cast(info: TensorInfo, array: Array) -> Array:
    wanted = info.dtype.numpy
    if info.dtype is DType.DT_STRING:
        if array.dtype.kind not in "SUO":
            raise InvalidInputError(f"samples of input {info.name!r} are {array.dtype}; expected strings")
        return array
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise InvalidInputError(
            f"samples of input {info.name!r} are {array.dtype}; expected {info.dtype.label}"
        )
    cast = array.astype(wanted)
    if wanted.kind in "iu" and not np.array_equal(cast, array):
        raise InvalidInputError(
            f"samples of input {info.name!r} have values that {info.dtype.label} cannot represent"
        )
    return cast


def _zeros(info: TensorInfo, shape: tuple[int, ...]) -> Array:
    if info.dtype is DType.DT_STRING:
        return np.full(shape, _PNG, dtype=object)
    return np.zeros(shape, info.dtype.numpy)


def _random(info: TensorInfo, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    wanted = info.dtype.numpy
    if info.dtype is DType.DT_STRING or info.dtype.quantized_as is not None:
        return _zeros(info, shape)
    if info.dtype is DType.DT_BOOL or wanted.kind in "iu":
        return rng.integers(0, 256 if info.dtype is DType.DT_UINT8 else 2, shape).astype(wanted)
    return rng.random(shape).astype(wanted)


def _read_npz(path: str | os.PathLike[str]) -> Arrays:
    try:
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.lib.npyio.NpzFile):
                return {alias: file[alias] for alias in file.files}
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(
            f"{path} is not an .npz file of plain arrays ({error}); "
            "write it with np.savez, strings with dtype 'S' or 'U'"
        ) from error
    raise InvalidInputError(f"{path} contains one array without a name; write it with np.savez")
