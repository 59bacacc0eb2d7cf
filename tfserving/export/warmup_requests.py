"""Warmup records, generated from signatures or samples.

The first request to a signature is slow (up to 48 times the median), since TensorFlow optimizes the graph,
selects kernels and allocates memory; new batch sizes repeat part of that. So the requests cover every
signature and two batch sizes.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfserving.errors import ExportError, InvalidInputError
from tfserving.export import images
from tfserving.repository.warmup_records import MAX_RECORDS
from tfserving.wire import predict
from tfserving.wire.dtypes import Array, Arrays, DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo

log = logging.getLogger(__name__)

# Batch sizes of the generated requests, in turn.
BATCH_SIZES = (1, 8)

_NOT_GENERATED = {DType.DT_STRING, DType.DT_RESOURCE, DType.DT_VARIANT, DType.DT_INVALID}

# A gray image of 1x1 pixels for the signature that takes encoded images.
_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


def generate_requests(name: str, signatures: Mapping[str, Signature], count: int) -> list[bytes]:
    """`count` serialized PredictRequests for each signature whose inputs can be generated.

    Numbers are zeros. An unknown size is 1, or 1 and 8 in turn if it is the first dimension. Strings cannot
    be generated, except for the signature that takes encoded images. Signatures without requests are logged.

    Raises:
        InvalidInputError: `count` is out of range.
        ExportError: no signature can get requests.
    """
    chosen = []
    for signature in signatures.values():
        if can_generate(signature):
            chosen.append(signature)
        else:
            log.warning("signature %r gets no warmup records: its inputs cannot be generated", signature.name)
    if not chosen:
        raise ExportError(
            "no warmup record can be generated: every signature has strings, sparse tensors or an unknown "
            "rank; give samples with --warmup-data"
        )
    limit = MAX_RECORDS // len(chosen)
    if not 0 < count <= limit:
        raise InvalidInputError(
            f"{count} warmup records for each of {len(chosen)} signatures are out of range (1-{limit}); "
            f"servers accept at most {MAX_RECORDS} in total"
        )
    return [
        predict.encode_request(
            ModelSpec(name, signature=signature.name),
            {
                alias: _generate(info, BATCH_SIZES[index % len(BATCH_SIZES)])
                for alias, info in signature.inputs.items()
            },
        )
        for signature in chosen
        for index in range(count)
    ]


def can_generate(signature: Signature) -> bool:
    """Whether `generate_requests` can generate inputs; servers take and return no sparse tensors."""
    if _has_sparse(signature):
        return False
    if signature.name == images.SIGNATURE and list(signature.inputs) == [images.INPUT]:
        return True
    infos = signature.inputs.values()
    return bool(infos) and all(info.shape is not None and info.dtype not in _NOT_GENERATED for info in infos)


def encode_samples(
    name: str, signatures: Mapping[str, Signature], samples: Mapping[str, Array]
) -> list[bytes]:
    """A serialized PredictRequest for each sample.

    Args:
        name: name of the model.
        signatures: signatures of the model. The requests are for the one whose inputs have the names in
            `samples`; the default signature is tried first.
        samples: arrays by input name; their first dimension is the number of samples. If the signature has
            a batch dimension, a sample is sent as a batch of one.

    Raises:
        InvalidInputError: no signature has these inputs, the arrays have different lengths or do not fit the
            signature, or there are more samples than servers accept.
    """
    signature = _signature_for(samples, signatures)
    if _has_sparse(signature):
        raise InvalidInputError(
            f"signature {signature.name!r} has sparse tensors, which servers do not support; "
            "export one with dense tensors for the warmup samples"
        )
    counts = {alias: len(array) if array.ndim else 0 for alias, array in samples.items()}
    count = next(iter(counts.values()))
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{alias} {number}" for alias, number in counts.items())
        raise InvalidInputError(
            f"the inputs have different numbers of warmup samples ({listed}); give as many for each"
        )
    if not 0 < count <= MAX_RECORDS:
        raise InvalidInputError(
            f"{count} warmup samples are out of range (1-{MAX_RECORDS}); a few are enough"
        )
    batches = {alias: _batches(signature.inputs[alias], array) for alias, array in samples.items()}
    return [
        predict.encode_request(
            ModelSpec(name, signature=signature.name),
            {alias: parts[index] for alias, parts in batches.items()},
        )
        for index in range(count)
    ]


def load_samples(source: str | os.PathLike[str] | Mapping[str, Any]) -> Arrays:
    """Samples by input name, from an .npz file or a mapping.

    Raises:
        InvalidInputError: the file is not readable, not an .npz file, empty or contains pickled objects.
    """
    if isinstance(source, Mapping):
        samples = {alias: np.asarray(values) for alias, values in source.items()}
        origin = "warmup_data"
    else:
        samples = _read_npz(source)
        origin = os.fspath(source)
    if not samples:
        raise InvalidInputError(f"{origin} has no samples; give an array for each input of the model")
    return samples


def _has_sparse(signature: Signature) -> bool:
    return not all(info.tensor_name for info in (*signature.inputs.values(), *signature.outputs.values()))


def _generate(info: TensorInfo, batch_size: int) -> Array:
    assert info.shape is not None
    shape = [1 if size is None else size for size in info.shape]
    if info.shape and info.shape[0] is None:
        shape[0] = batch_size
    if info.dtype is DType.DT_STRING:
        return np.full(shape, _PNG, dtype=object)
    return np.zeros(shape, info.dtype.numpy)


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


def _signature_for(samples: Mapping[str, Array], signatures: Mapping[str, Signature]) -> Signature:
    in_order = sorted(signatures.values(), key=lambda signature: signature.name != DEFAULT_SIGNATURE)
    for signature in in_order:
        if set(signature.inputs) == set(samples):
            return signature
    listed = "; ".join(f"{signature.name}: {', '.join(signature.inputs)}" for signature in in_order)
    raise InvalidInputError(
        f"no signature has the inputs of the warmup samples, {', '.join(sorted(samples))} "
        f"(signatures: {listed}); name the arrays after the inputs"
    )


def _batches(info: TensorInfo, array: Array) -> list[Array]:
    """The samples of one input, each with the shape that a request needs."""
    array = _cast(info, array)
    rank = array.ndim if info.shape is None else len(info.shape)
    parts = (
        list(array) if array.ndim == rank + 1 else [array[index : index + 1] for index in range(len(array))]
    )
    parts = [np.asarray(part, dtype=info.dtype.numpy) for part in parts]
    if not info.is_valid_shape(parts[0].shape):
        raise InvalidInputError(
            f"warmup samples of input {info.name!r} have shape {array.shape[1:]}; expected {info.shape_text}"
        )
    return parts


def _cast(info: TensorInfo, array: Array) -> Array:
    wanted = info.dtype.numpy
    if info.dtype is DType.DT_STRING:
        if array.dtype.kind not in "SUO":
            raise InvalidInputError(
                f"warmup samples of input {info.name!r} are {array.dtype}; expected strings"
            )
        return array
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise InvalidInputError(
            f"warmup samples of input {info.name!r} are {array.dtype}; expected {info.dtype.label}"
        )
    cast = array.astype(wanted)
    if wanted.kind in "iu" and not np.array_equal(cast, array):
        raise InvalidInputError(
            f"warmup samples of input {info.name!r} have values that {info.dtype.label} cannot represent"
        )
    return cast
