"""The settings of a server that are tuned, as flags, as files and as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Batches that may wait. With the default of the server, 10, bursts of single requests are rejected.
_ENQUEUED_BATCHES = 100


@dataclass(frozen=True)
class Batching:
    """Parameters of batching; names are those of the batching parameters file.

    Attributes:
        max_batch_size: maximum rows of a batch.
        batch_timeout_micros: microseconds that a batch waits to be filled.
        num_batch_threads: batches that run at the same time.
        allowed_batch_sizes: sizes that batches are padded to.
    """

    max_batch_size: int
    batch_timeout_micros: int
    num_batch_threads: int
    allowed_batch_sizes: tuple[int, ...]

    @property
    def text(self) -> str:
        """A BatchingParameters message in protobuf text format."""
        lines = [
            f"max_batch_size {{ value: {self.max_batch_size} }}",
            f"batch_timeout_micros {{ value: {self.batch_timeout_micros} }}",
            f"num_batch_threads {{ value: {self.num_batch_threads} }}",
            f"max_enqueued_batches {{ value: {_ENQUEUED_BATCHES} }}",
            *(f"allowed_batch_sizes: {size}" for size in self.allowed_batch_sizes),
        ]
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class ServerSettings:
    """What is tuned. 0 and None stand for the defaults of the server: `ServerSettings()` is the default.

    Attributes:
        intra_op_threads: threads that one operation can use.
        inter_op_threads: operations of one request that run at the same time.
        grpc_max_threads: requests that run at the same time.
        auto_jit: whether XLA compiles all operations for the GPU: XLA=auto of run_tf_serving.sh.
    """

    batching: Batching | None = None
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    grpc_max_threads: int = 0
    auto_jit: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of the server, without those of batching, which needs a file."""
        values = {
            "tensorflow_intra_op_parallelism": self.intra_op_threads,
            "tensorflow_inter_op_parallelism": self.inter_op_threads,
            "grpc_max_threads": self.grpc_max_threads,
        }
        return tuple(f"--{name}={value}" for name, value in values.items() if value)

    @property
    def label(self) -> str:
        """For people, such as "batches of 16, 2000 µs, 2 threads (sizes 1, 4, 16); intra-op 1"."""
        return "; ".join(self._parts()) or "default"

    def _parts(self) -> Iterator[str]:
        if self.batching is not None:
            sizes = ", ".join(map(str, self.batching.allowed_batch_sizes))
            threads = self.batching.num_batch_threads
            yield (
                f"batches of {self.batching.max_batch_size}, {self.batching.batch_timeout_micros} µs, "
                f"{threads} thread{'s' * (threads != 1)} (sizes {sizes})"
            )
        for name, value in (
            ("intra-op", self.intra_op_threads),
            ("inter-op", self.inter_op_threads),
            ("grpc_max_threads", self.grpc_max_threads),
        ):
            if value:
                yield f"{name} {value}"
        if self.auto_jit:
            yield "XLA"

    def as_json(self) -> dict[str, Any]:
        """This as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ServerSettings:
        """The settings that `as_json` returned."""
        found = dict(values)
        if found["batching"] is not None:
            sizes = tuple(found["batching"]["allowed_batch_sizes"])
            found["batching"] = Batching(**{**found["batching"], "allowed_batch_sizes": sizes})
        return cls(**found)
