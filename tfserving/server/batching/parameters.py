"""The batching parameters file of tensorflow_model_server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfserving.errors import ConfigError
from tfserving.repository.config_text import read_text_file
from tfserving.wire import messages


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are batched. Names and defaults are those of the batching parameters file.

    Attributes:
        max_batch_size: maximum rows of a request, and of a batch.
        batch_timeout_micros: microseconds that a batch waits to be filled while a thread is idle.
        max_enqueued_batches: maximum batches of a version that wait; more requests are rejected.
        num_batch_threads: batches of a version that run at the same time.
        allowed_batch_sizes: sizes that batches are padded to; empty for any size.
        pad_variable_length_inputs: whether inputs of different shapes are padded to join one batch.
        split_large: whether a request of more than max_execution_batch_size rows is split
            (enable_large_batch_splitting in the file).
        max_execution_batch_size: with split_large, the maximum rows of a batch; 0 means max_batch_size.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    split_large: bool = False
    max_execution_batch_size: int = 0

    @property
    def max_rows(self) -> int:
        """Maximum rows of one run of the model."""
        return (self.split_large and self.max_execution_batch_size) or self.max_batch_size

    def padded_size(self, rows: int) -> int:
        """The smallest allowed batch size for the given number of rows."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


def read_parameters(path: str | Path) -> BatchingParameters:
    """Reads a file in protobuf text format (`BatchingParameters`).

    Raises:
        ConfigError: the file cannot be read, does not parse, or contradicts itself.
    """

    def fail(reason: object) -> ConfigError:
        return ConfigError(f"batching parameters {path}: {reason}")

    message = read_text_file(path, messages.BatchingParameters(), f"batching parameters {path}")
    numbers: dict[str, Any] = {}
    for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"):
        if message.HasField(name):
            number = numbers[name] = getattr(message, name).value
            minimum = 0 if name == "batch_timeout_micros" else 1
            if number < minimum:
                raise fail(f"{name} is {number}, expected {minimum} or more")
    parameters = BatchingParameters(
        **numbers,
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        split_large=message.enable_large_batch_splitting.value,
        max_execution_batch_size=message.max_execution_batch_size.value,
    )
    if not 0 <= parameters.max_execution_batch_size <= parameters.max_batch_size:
        raise fail(
            f"max_execution_batch_size is {parameters.max_execution_batch_size}, expected 0 to "
            f"{parameters.max_batch_size} (max_batch_size)"
        )
    sizes = parameters.allowed_batch_sizes
    if sizes and (sorted(set(sizes)) != list(sizes) or sizes[0] < 1 or sizes[-1] != parameters.max_rows):
        raise fail(
            f"allowed_batch_sizes is {list(sizes)}, expected ascending sizes of which the last is "
            f"{parameters.max_rows}, the largest batch"
        )
    return parameters
