"""The settings to try: which values each has, which combinations come first, and what is close to one."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tfserving.bench.workload import Workload
from tfserving.tune.server_settings import Batching, ServerSettings
from tfserving.wire.graph_files import DEFAULT_SIGNATURE
from tfserving.wire.signatures import Signature, TensorInfo

_TIMEOUTS = (0, 500, 1000, 2000, 5000, 10_000, 20_000)
# Requests that the image of build.sh runs at the same time; tensorflow_model_server rejects further ones.
_IMAGE_THREADS = 64


def rows_of(workload: Workload, signatures: Mapping[str, Signature]) -> tuple[int, int] | None:
    """The smallest and the largest number of rows in a request; None if requests cannot be joined.

    They can if the first dimension of all inputs and outputs has any size.
    """
    rows: list[int] = []
    for request in workload.requests:
        signature = signatures[request.signature or DEFAULT_SIGNATURE]
        infos = [*signature.inputs.values(), *signature.outputs.values()]
        counts = {len(array) for array in request.inputs.values() if array.ndim}
        if not all(map(_has_free_rows, infos)) or len(counts) != 1 or 0 in counts:
            return None
        rows += counts
    return min(rows), max(rows)


def _has_free_rows(info: TensorInfo) -> bool:
    return info.shape is None or (len(info.shape) > 0 and info.shape[0] is None)


class SearchSpace:
    """The settings to try.

    Args:
        cpus: CPUs of the server.
        concurrency: callers of the load.
        rows: see `rows_of`.
        queues_requests: whether the server lets requests above grpc_max_threads wait, as the embedded server
            does, instead of rejecting them.
        has_gpu: whether the server uses a GPU, for which XLA can compile.
    """

    def __init__(
        self,
        *,
        cpus: int,
        concurrency: int,
        rows: tuple[int, int] | None,
        queues_requests: bool,
        has_gpu: bool = False,
    ) -> None:
        self.default = ServerSettings()
        self._cpus = cpus
        self._fewest, most = rows or (1, 1)
        sizes = list(_doubling(most, most * concurrency)) if rows is not None else []
        # A batch of one request joins nothing.
        self._sizes = sizes[1:]
        self._batch_threads = tuple(_doubling(1, 2 * cpus))
        # 0 is all CPUs.
        self._intra_op = (*(count for count in _doubling(1, cpus) if count < cpus), 0)
        self._inter_op = (0, 1, cpus) if cpus > 1 else (0, 1)
        self._auto_jit = (True, False) if has_gpu else (False,)
        if queues_requests:
            self._grpc_threads: tuple[int, ...] = tuple(dict.fromkeys((cpus, 2 * cpus, 0)))
        elif 2 * concurrency > _IMAGE_THREADS:
            self._grpc_threads = (2 * concurrency,)
        else:
            self._grpc_threads = (0,)

    def candidates(self) -> list[ServerSettings]:
        """Settings to try, those first that helped most often; without the default."""
        found = [*self._promising(), *self._shuffled_grid()]
        return [settings for settings in dict.fromkeys(found) if settings != self.default]

    def neighbors(self, settings: ServerSettings) -> list[ServerSettings]:
        """Settings that differ in one value, which is one step higher or lower."""
        found = [replace(settings, batching=batching) for batching in self._near(settings.batching)]
        for name, values in (
            ("intra_op_threads", self._intra_op),
            ("grpc_max_threads", self._grpc_threads),
            ("inter_op_threads", self._inter_op),
            ("auto_jit", self._auto_jit),
        ):
            for value in _adjacent(values, getattr(settings, name)):
                changes: dict[str, Any] = {name: value}
                found.append(replace(settings, **changes))
        return list(dict.fromkeys(found))

    def _promising(self) -> Iterator[ServerSettings]:
        threads = self._grpc_threads[-1]
        base = ServerSettings(grpc_max_threads=threads)
        one = replace(base, intra_op_threads=self._intra_op[0])
        yield one
        few = replace(one, grpc_max_threads=self._grpc_threads[0])
        if self._sizes:
            large, half = self._sizes[-1], self._sizes[-2 if len(self._sizes) > 1 else -1]
            for size, timeout, threads in (
                (large, 2000, self._cpus),
                (half, 2000, self._cpus),
                (half, 0, self._cpus),
                (large, 1000, 1),
            ):
                batching = self._make_batching(size, timeout, threads)
                for auto_jit in self._auto_jit:
                    yield replace(base, batching=batching, auto_jit=auto_jit)
                yield replace(one, batching=batching)
                if size == large and timeout == 2000:
                    yield few
        else:
            yield few
        yield base
        yield replace(base, grpc_max_threads=self._grpc_threads[0])

    def _shuffled_grid(self) -> list[ServerSettings]:
        batchings: list[Batching | None] = [None]
        batchings += [
            self._make_batching(size, timeout, threads)
            for size, timeout, threads in itertools.product(
                self._sizes[-3:], (0, 1000, 5000), self._batch_threads
            )
        ]
        found = [
            ServerSettings(batching, intra, 0, threads, auto_jit)
            for batching, intra, threads, auto_jit in itertools.product(
                batchings, self._intra_op, self._grpc_threads, self._auto_jit
            )
        ]
        random.Random(0).shuffle(found)
        return found

    def _near(self, batching: Batching | None) -> list[Batching | None]:
        if not self._sizes:
            return []
        if batching is None:
            return [self._make_batching(self._sizes[-1], 1000, self._cpus)]
        size, timeout, threads = (
            batching.max_batch_size,
            batching.batch_timeout_micros,
            batching.num_batch_threads,
        )
        is_fine = batching != self._make_batching(size, timeout, threads)
        near: list[Batching | None] = [
            self._make_batching(other, timeout, threads, is_fine) for other in _adjacent(self._sizes, size)
        ]
        near += [
            self._make_batching(size, timeout, other, is_fine)
            for other in _adjacent(self._batch_threads, threads)
        ]
        near += [
            self._make_batching(size, other, threads, is_fine) for other in _adjacent(_TIMEOUTS, timeout)
        ]
        near.append(self._make_batching(size, timeout, threads, not is_fine))
        return [*near, None]

    def _make_batching(self, size: int, timeout: int, threads: int, is_fine: bool = False) -> Batching:
        """Batching with sizes that double, or with `is_fine` also with the multiples of a quarter."""
        allowed = {size, self._fewest}
        half = size // 2
        while half > self._fewest:
            allowed.add(half)
            half //= 2
        if is_fine:
            step = size / 4
            allowed |= {round(step * count) for count in (1, 2, 3) if step * count > self._fewest}
        return Batching(size, timeout, threads, tuple(sorted(allowed)))


def _doubling(first: int, last: int) -> Iterator[int]:
    """`first` and its doubles, up to the first one that is at least `last`."""
    value = first
    while value < last:
        yield value
        value *= 2
    yield value


def _adjacent(values: Sequence[int], value: int) -> list[int]:
    """The values before and after a value; all values for one that is not among them."""
    if value not in values:
        return list(values)
    index = values.index(value)
    return [*values[index + 1 : index + 2], *values[max(0, index - 1) : index]]
