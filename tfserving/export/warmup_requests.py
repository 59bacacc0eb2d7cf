"""Warmup records, generated from signatures or samples.

The first request to a signature is slow (up to 48 times the median), since TensorFlow optimizes the graph,
selects kernels and allocates memory; new batch sizes repeat part of that. So the requests cover every
signature and, by default, two batch sizes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tfserving.errors import ExportError, InvalidInputError
from tfserving.export.samples import Shapes, can_generate, check_shapes, generate_zeros, match_samples
from tfserving.repository.warmup_records import MAX_RECORDS
from tfserving.wire import predict
from tfserving.wire.dtypes import Array
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import Signature

log = logging.getLogger(__name__)

# Batch sizes of the generated requests, in turn.
BATCH_SIZES = (1, 8)


def generate_requests(
    name: str,
    signatures: Mapping[str, Signature],
    count: int,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    shapes: Shapes | None = None,
) -> list[bytes]:
    """`count` serialized PredictRequests for each signature whose inputs can be generated.

    Numbers are zeros. Strings cannot be generated, except for the signature that takes encoded images.
    Signatures without requests are logged.

    Args:
        name: name of the model.
        signatures: signatures of the model.
        count: requests for each signature.
        batch_sizes: sizes of the first dimension, if that is a free one, in turn.
        shapes: shapes by input name, see `samples.resolve_shape`.

    Raises:
        InvalidInputError: `count` is out of range, or a shape does not fit.
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
            "rank; give samples (export: --warmup-data, warmup: --data)"
        )
    check_shapes(chosen, shapes or {})
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
                alias: generate_zeros(info, batch_sizes[index % len(batch_sizes)], shapes)
                for alias, info in signature.inputs.items()
            },
        )
        for signature in chosen
        for index in range(count)
    ]


def encode_samples(
    name: str,
    signatures: Mapping[str, Signature],
    samples: Mapping[str, Array],
    *,
    batch_sizes: Sequence[int] = (),
) -> list[bytes]:
    """A serialized PredictRequest for each sample, or for each batch size; expected outputs are ignored.

    Args:
        name: name of the model.
        signatures: signatures of the model.
        samples: see `samples.match_samples`.
        batch_sizes: sizes of batches to make of the samples instead of single ones, see `Samples.batched`.

    Raises:
        InvalidInputError: see `samples.match_samples` and `Samples.batched`; or there are more requests than
            servers accept.
    """
    matched = match_samples(signatures, samples)
    if batch_sizes:
        matched = matched.batched(signatures[matched.signature], batch_sizes)
    requests = matched.encode_requests(name)
    if len(requests) > MAX_RECORDS:
        raise InvalidInputError(
            f"{len(requests)} samples are out of range (1-{MAX_RECORDS}) for warmup records; a few are enough"
        )
    return requests
