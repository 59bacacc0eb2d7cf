"""Warmup requests: made from a signature or from samples, and tried before a server has to.

What makes the first request slow (up to 48 times the median) happens once for each signature, and some of it
again for each new size: graph optimisation, kernels, memory. So the requests cover every signature and two
sizes of a batch.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfserving.errors import ExportError, InvalidInputError
from tfserving.export import images, sources
from tfserving.repository.warmup_records import MAX_RECORDS, asked, read_warmup
from tfserving.wire import predict
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo

Array = np.ndarray[Any, Any]

# Batches of the requests made from a signature, in turn.
BATCHES = (1, 8)

# 1x1, grey: what the signature for encoded images gets, since an empty string is no image.
_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


def guess_requests(name: str, signatures: Mapping[str, Signature], count: int) -> list[bytes]:
    """`count` PredictRequests for each signature whose inputs can be guessed; serialized.

    Numbers are zeros, unknown sizes 1, except that the first dimension, where it is open, is 1 and 8 in turn.
    Strings cannot be guessed, but for the signature of encoded images.

    Raises:
        InvalidInputError: `count` is out of range.
        ExportError: no signature can be guessed.
    """
    guessable = [signature for signature in signatures.values() if _is_guessable(signature)]
    if not guessable:
        raise ExportError(
            "no warmup request can be made from the signatures, whose inputs are strings or of unknown rank: "
            "give samples with --warmup-data"
        )
    if not 0 < count <= MAX_RECORDS // len(guessable):
        raise InvalidInputError(
            f"{count} warmup requests for each of {len(guessable)} signatures: choose from 1 to "
            f"{MAX_RECORDS // len(guessable)}, since a server takes at most {MAX_RECORDS} in all"
        )
    return [
        predict.encode_request(
            ModelSpec(name, signature=signature.name),
            {alias: _guess(info, BATCHES[index % len(BATCHES)]) for alias, info in signature.inputs.items()},
        )
        for signature in guessable
        for index in range(count)
    ]


def unguessable(signatures: Mapping[str, Signature]) -> list[str]:
    """Names of the signatures for which `guess_requests` makes no request."""
    return [signature.name for signature in signatures.values() if not _is_guessable(signature)]


def sample_requests(
    name: str, signatures: Mapping[str, Signature], samples: Mapping[str, Array]
) -> list[bytes]:
    """One serialized PredictRequest for each sample.

    Args:
        name: of the model.
        signatures: of the model. The requests are for the one whose inputs are called as `samples` are, the
            default signature first.
        samples: arrays by input name; their first dimension counts the samples. A sample is sent as a batch
            of one where the signature has a batch dimension.

    Raises:
        InvalidInputError: no such signature, arrays of different lengths, of a shape or dtype that does not
            fit, or more than 1000 samples, which is what a server takes.
    """
    signature = _signature_for(samples, signatures)
    counts = {alias: len(array) if array.ndim else 0 for alias, array in samples.items()}
    count = next(iter(counts.values()))
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{alias} {number}" for alias, number in counts.items())
        raise InvalidInputError(
            f"the warmup samples are not equally many ({listed}): give one of each a request"
        )
    if not 0 < count <= MAX_RECORDS:
        raise InvalidInputError(
            f"{count} warmup samples: a server takes 1 to {MAX_RECORDS}, and a few are enough: save fewer"
        )
    batches = {alias: _batches(signature.inputs[alias], array) for alias, array in samples.items()}
    return [
        predict.encode_request(
            ModelSpec(name, signature=signature.name),
            {alias: parts[index] for alias, parts in batches.items()},
        )
        for index in range(count)
    ]


def load_samples(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Array]:
    """Samples by input name, from an .npz file or from a mapping that is handed through.

    Raises:
        InvalidInputError: the file cannot be read, is no .npz, is empty or holds pickled objects.
    """
    if isinstance(source, Mapping):
        samples = {alias: np.asarray(values) for alias, values in source.items()}
        where = "the warmup samples"
    else:
        samples = _read_npz(source)
        where = os.fspath(source)
    if not samples:
        raise InvalidInputError(f"{where}: no samples: give an array for each input of the model")
    return samples


def replay(version_dir: Path) -> int:
    """Answers the warmup requests of a version as a server does on loading it; returns how many there were.

    In a session over the `serve` graph, by the tensors that the signature names (as in
    tensorflow_serving/servables/tensorflow/predict_util.cc). Records of other methods are left out.

    Raises:
        ExportError: the model cannot be loaded, or a request fails; a server would not load the version.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    done = 0
    with v1.Session(graph=tf.Graph()) as session:
        try:
            graph = v1.saved_model.loader.load(session, ["serve"], str(version_dir))
        except Exception as error:
            raise ExportError(f"the exported model cannot be loaded: {sources.reason(error)}") from error
        for number, log in enumerate(read_warmup(version_dir), start=1):
            name = "?"
            try:
                for name, inputs, _ in asked(log):
                    _run(session, graph.signature_def, name, inputs)
            except Exception as error:
                raise ExportError(
                    f"warmup request {number} (signature {name!r}) fails, so no server would load this: "
                    f"{sources.reason(error)}: give samples that the model takes with --warmup-data"
                ) from error
            done += 1
    return done


def _run(session: Any, signatures: Any, name: str, inputs: Mapping[str, Array]) -> None:
    if name not in signatures:
        raise ExportError(f"the model has no signature {name!r}")
    signature = signatures[name]
    missing, unknown = set(signature.inputs) - set(inputs), set(inputs) - set(signature.inputs)
    missing -= set(signature.defaults)
    if missing or unknown:
        raise ExportError(
            f"it has the inputs {', '.join(sorted(inputs))}, "
            f"the signature {', '.join(sorted(signature.inputs))}"
        )
    feeds = {signature.inputs[alias].name: array for alias, array in inputs.items()}
    session.run([info.name for info in signature.outputs.values()], feeds)


def _is_guessable(signature: Signature) -> bool:
    return bool(signature.inputs) and (
        _takes_images(signature)
        or all(
            info.shape is not None and info.dtype not in _WITHOUT_A_GUESS
            for info in signature.inputs.values()
        )
    )


_WITHOUT_A_GUESS = {DType.DT_STRING, DType.DT_RESOURCE, DType.DT_VARIANT, DType.DT_INVALID}


def _takes_images(signature: Signature) -> bool:
    return signature.name == images.SIGNATURE and list(signature.inputs) == [images.INPUT]


def _guess(info: TensorInfo, batch: int) -> Array:
    assert info.shape is not None
    shape = [1 if size is None else size for size in info.shape]
    if info.shape and info.shape[0] is None:
        shape[0] = batch
    if info.dtype is DType.DT_STRING:
        return np.full(shape, _PNG, dtype=object)
    return np.zeros(shape, info.dtype.numpy)


def _read_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    try:
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.lib.npyio.NpzFile):
                return {alias: file[alias] for alias in file.files}
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(
            f"{path} is no .npz of plain arrays ({error}): "
            "write it with np.savez, strings as dtype 'S' or 'U'"
        ) from error
    raise InvalidInputError(f"{path} holds one array without a name: write it with np.savez")


def _signature_for(samples: Mapping[str, Array], signatures: Mapping[str, Signature]) -> Signature:
    in_order = sorted(signatures.values(), key=lambda signature: signature.name != DEFAULT_SIGNATURE)
    for signature in in_order:
        if set(signature.inputs) == set(samples):
            return signature
    listed = "; ".join(f"{signature.name}: {', '.join(signature.inputs)}" for signature in in_order)
    raise InvalidInputError(
        f"the warmup samples are called {', '.join(sorted(samples))}, "
        f"and no signature has these inputs ({listed}): name the arrays after the inputs"
    )


def _batches(info: TensorInfo, array: Array) -> list[Array]:
    """The samples of one input as the requests carry them."""
    array = _cast(info, array)
    rank = array.ndim if info.shape is None else len(info.shape)
    parts = (
        list(array) if array.ndim == rank + 1 else [array[index : index + 1] for index in range(len(array))]
    )
    parts = [np.asarray(part, dtype=info.dtype.numpy) for part in parts]
    if not info.accepts(parts[0].shape):
        raise InvalidInputError(
            f"warmup samples of input {info.name!r} have shape {array.shape[1:]}, "
            f"and the signature takes {info.shape_text}"
        )
    return parts


def _cast(info: TensorInfo, array: Array) -> Array:
    wanted = info.dtype.numpy
    if info.dtype is DType.DT_STRING:
        if array.dtype.kind not in "SUO":
            raise InvalidInputError(
                f"warmup samples of input {info.name!r} are {array.dtype}, and it takes strings"
            )
        return array
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise InvalidInputError(
            f"warmup samples of input {info.name!r} are {array.dtype}, and it takes {info.dtype.label}: "
            "convert them"
        )
    cast = array.astype(wanted)
    if wanted.kind in "iu" and not np.array_equal(cast, array):
        raise InvalidInputError(
            f"warmup samples of input {info.name!r} have values out of the range of {info.dtype.label}"
        )
    return cast
