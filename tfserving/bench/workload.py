"""The requests of a benchmark: from arrays, from warmup records, or generated from a signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfserving.client.inputs import choose_signature
from tfserving.client.rest_codec import RestCodec
from tfserving.client.rpc_codec import RpcCodec
from tfserving.errors import InvalidInputError, NotFoundError
from tfserving.repository.warmup_records import read_warmup_file, unpack_requests
from tfserving.wire.dtypes import Array, Arrays, DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import Signature, TensorInfo

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class WorkloadRequest:
    """A request.

    Attributes:
        path: a gRPC method, or the path of a URL.
        signature: its name, "" for the default one.
        inputs: arrays by name.
    """

    path: str
    body: bytes
    signature: str
    inputs: Arrays


@dataclass(frozen=True)
class Workload:
    """Requests that are sent in turn, and what they are, for reports."""

    requests: tuple[WorkloadRequest, ...]
    description: str


class WorkloadFactory:
    """Makes workloads for a model.

    Args:
        spec: the model; requests name its signature.
        signatures: of the model.
        is_grpc: make requests for gRPC instead of REST.
    """

    def __init__(self, spec: ModelSpec, signatures: Mapping[str, Signature], *, is_grpc: bool) -> None:
        self._spec = spec
        self._signatures = signatures
        self._codec = RpcCodec() if is_grpc else RestCodec()

    def from_arrays(self, arrays: Arrays, batch_size: int | None, source: str) -> Workload:
        """One request with all rows, or requests with `batch_size` rows each.

        Rows at the end that do not fill a batch are left out.

        Raises:
            InvalidInputError: the arrays do not fit the signature, or have fewer rows than a batch.
        """
        if batch_size is None:
            batches = [arrays]
        else:
            rows = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
            if len(set(rows.values())) != 1 or min(rows.values()) < batch_size:
                listed = ", ".join(f"{name} {count}" for name, count in rows.items())
                raise InvalidInputError(
                    f"{source} has arrays with so many rows: {listed}; expected as many for each, and at "
                    f"least --batch-size {batch_size}"
                )
            last = min(rows.values()) - batch_size + 1
            batches = [
                {name: array[start : start + batch_size] for name, array in arrays.items()}
                for start in range(0, last, batch_size)
            ]
        signature = self._choose(self._spec.signature)
        return self._workload([(self._spec.signature, batch, ()) for batch in batches], signature, source)

    def from_records(self, path: Path) -> Workload:
        """The requests of a file with warmup records; each names its signature.

        Raises:
            InvalidInputError: the file does not exist or has no records.
            ProtocolError, UnsupportedError: the file is damaged, or has records of another kind.
        """
        if not path.exists():
            raise InvalidInputError(f"--warmup-records: {path} does not exist")
        requests = [request for record in read_warmup_file(path) for request in unpack_requests(record)]
        if not requests:
            raise InvalidInputError(f"--warmup-records: {path} has no records; expected at least one")
        return self._workload(requests, None, str(path))

    def from_signature(self, shapes: Shapes, batch_size: int | None, seed: int = 0) -> Workload:
        """A request with generated values: floats from 0 to 1, and zeros for all other numbers.

        Args:
            shapes: by name of the input, for inputs with dimensions of any size.
            batch_size: for a first dimension of any size without an entry in `shapes`; None for 1.

        Raises:
            InvalidInputError: a dimension has no size, or an input has strings; the message names the option.
        """
        signature = self._choose(self._spec.signature)
        unknown = [name for name in shapes if name not in signature.inputs]
        if unknown:
            known = ", ".join(map(repr, signature.inputs)) or "none"
            raise InvalidInputError(
                f"--shape {unknown[0]}: signature {signature.name!r} has no such input; it has: {known}"
            )
        rng = np.random.default_rng(seed)
        arrays = {
            name: _generate(info, _shape_for(info, shapes.get(name), batch_size), rng)
            for name, info in signature.inputs.items()
        }
        return self._workload([(self._spec.signature, arrays, ())], signature, "values from the signature")

    def _choose(self, name: str) -> Signature:
        try:
            return choose_signature(self._signatures, name)
        except NotFoundError as error:
            available = ", ".join(self._signatures) or "none"
            missing = f"--signature {name}: model {self._spec.name!r} has no such signature"
            if not name:
                missing = f"model {self._spec.name!r} has no default signature; pass --signature NAME"
            raise InvalidInputError(f"{missing} (it has: {available})") from error

    def _workload(
        self,
        requests: Sequence[tuple[str, Arrays, Sequence[str]]],
        signature: Signature | None,
        source: str,
    ) -> Workload:
        made = []
        for name, inputs, outputs in requests:
            found = signature or self._choose(name)
            spec = ModelSpec(self._spec.name, self._spec.version, self._spec.label, name)
            request = self._codec.prepare_predict(spec, found, outputs)(inputs)
            made.append(WorkloadRequest(request.path, request.body or b"", name, dict(inputs)))
        return Workload(tuple(made), f"{_describe(made)}, {source}")


def _describe(requests: Sequence[WorkloadRequest]) -> str:
    sizes = sorted(len(request.body) for request in requests)
    size = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"
    first = ", ".join(
        f"{name} {DType.of(array.dtype).label} {'x'.join(map(str, array.shape)) or 'scalar'}"
        for name, array in requests[0].inputs.items()
    )
    if len(requests) == 1:
        return f"1 request of {size} bytes ({first})"
    return f"{len(requests)} requests of {size} bytes (the first: {first})"


def _shape_for(info: TensorInfo, given: tuple[int, ...] | None, batch_size: int | None) -> tuple[int, ...]:
    option = f"--shape {info.name}="
    if given is not None:
        if not info.is_valid_shape(given):
            text = "x".join(map(str, given))
            raise InvalidInputError(f"{option}{text} does not fit the signature, which has {info.shape_text}")
        return given
    if info.shape is None:
        raise InvalidInputError(f"input {info.name!r} has an unknown rank; pass {option}SIZES, such as 1x128")
    shape = list(info.shape)
    if shape and shape[0] is None:
        shape[0] = batch_size or 1
    elif batch_size is not None and (not shape or shape[0] != batch_size):
        raise InvalidInputError(
            f"--batch-size {batch_size} does not fit input {info.name!r}, which has the shape "
            f"{info.shape_text}; omit --batch-size"
        )
    if None in shape:
        example = "x".join("128" if size is None else str(size) for size in shape)
        raise InvalidInputError(
            f"input {info.name!r} has dimensions of any size: {info.shape_text}; pass their sizes: "
            f"{option}{example}"
        )
    return tuple(size for size in shape if size is not None)


def _generate(info: TensorInfo, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if info.dtype is DType.DT_STRING:
        raise InvalidInputError(
            f"input {info.name!r} has strings, which cannot be generated; pass --data or --warmup-records"
        )
    dtype = info.dtype.numpy
    if info.dtype in (DType.DT_FLOAT, DType.DT_DOUBLE, DType.DT_HALF, DType.DT_BFLOAT16):
        return rng.random(shape, np.float32).astype(dtype)
    return np.zeros(shape, dtype)
