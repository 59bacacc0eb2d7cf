"""A bare gRPC transport, the upper limit for the server: python -m benchmarks.bare_server PORT [SECONDS]

A `grpc.aio` handler that sends the same bytes for every Predict and does not read the request. With SECONDS
it spins for that long before each response, in place of a model: after a pause the transport takes longer,
since its threads have to wake up.
"""

from __future__ import annotations

import sys
import time

import grpc
import grpc.aio
import numpy as np
import uvloop

from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec


async def serve(port: int, seconds: float = 0.0) -> None:
    """Serve until the process is killed."""
    spec = ModelSpec("trivial", 1, signature="serving_default")
    response = predict.encode_response(spec, {"y": np.zeros(3, np.float32)})

    async def handler(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        end = time.perf_counter() + seconds
        while seconds and time.perf_counter() < end:
            pass
        return response

    server = grpc.aio.server()
    handlers = {services.PREDICT.name: grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(services.PREDICT.service, handlers),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), *map(float, sys.argv[2:])))
