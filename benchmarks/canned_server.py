"""A gRPC server that always sends the same response: python -m benchmarks.canned_server grpcio|lean

"grpcio" is a grpcio server; "lean" has just enough HTTP/2 to receive a call and send prepared bytes, so that
benchmarks measure the client and not the server. Prints its port.

The response to a request with "signature_def" in it is the metadata of a model whose input "x" and output "y"
are float32 of any shape; the response to any other request is one (1, 10) output.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
from typing import Any

import grpc
import numpy as np

from tfserving.wire import messages
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import encode_response

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
ACK = END_STREAM = 1
END_HEADERS = 4
WIDE = 2**31 - 1

# HPACK: ":status: 200" from the static table, the others as literals
STATUS_200 = b"\x88"
CONTENT_TYPE = b"\x0f\x10\x10application/grpc"
TRAILERS = b"\x00\x0bgrpc-status\x010"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def metadata() -> bytes:
    """A GetModelMetadataResponse."""
    signatures = messages.SignatureDefMap()
    signature = signatures.signature_def["serving_default"]
    for infos, name in ((signature.inputs, "x"), (signature.outputs, "y")):
        infos[name].dtype = int(DType.DT_FLOAT)
        infos[name].tensor_shape.unknown_rank = True
    response = messages.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    return bytes(response.SerializeToString())


def respond_with(message: bytes) -> tuple[bytes, bytes, bytes]:
    """Headers, data and trailers of a response."""
    return STATUS_200 + CONTENT_TYPE, struct.pack(">BI", 0, len(message)) + message, TRAILERS


PREDICTION = respond_with(encode_response(ModelSpec("m", 1), {"y": np.zeros((1, 10), np.float32)}))
METADATA = respond_with(metadata())


class Connection(asyncio.Protocol):
    """A connection of a client."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = bytearray()
        self.begun = False
        self.unacknowledged = 0
        self.responses: dict[int, tuple[bytes, bytes, bytes]] = {}
        settings = struct.pack(">HIHI", 4, WIDE, 5, 2**24 - 1)  # wide windows, large frames
        transport.write(
            frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WIDE - 65535))
        )

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer
        buffer += data
        position = 0
        if not self.begun:
            if len(buffer) < len(PREFACE):
                return
            self.begun, position = True, len(PREFACE)
        out = []
        while len(buffer) - position >= 9:
            size = int.from_bytes(buffer[position : position + 3], "big")
            if len(buffer) - position - 9 < size:
                break
            kind, flags = buffer[position + 3], buffer[position + 4]
            stream = int.from_bytes(buffer[position + 5 : position + 9], "big")
            start = position + 9
            position = start + size
            if kind == DATA:
                self.unacknowledged += size
                if stream not in self.responses:
                    wants_metadata = buffer.find(b"signature_def", start, position) >= 0
                    self.responses[stream] = METADATA if wants_metadata else PREDICTION
                if flags & END_STREAM:
                    head, body, trailers = self.responses.pop(stream)
                    out.append(frame(HEADERS, END_HEADERS, stream, head))
                    out.append(frame(DATA, 0, stream, body))
                    out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers))
            elif kind == SETTINGS and not flags & ACK:
                out.append(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                out.append(frame(PING, ACK, 0, bytes(buffer[start:position])))
        del buffer[:position]
        if self.unacknowledged > 2**20:
            out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self.unacknowledged)))
            self.unacknowledged = 0
        if out:
            self.transport.write(b"".join(out))


class Handler(grpc.GenericRpcHandler):
    """The handler of the grpcio server."""

    def service(self, handler_call_details: Any) -> Any:
        wants_metadata = handler_call_details.method.endswith("GetModelMetadata")
        _, framed, _ = METADATA if wants_metadata else PREDICTION

        async def handle(request: bytes, context: Any) -> bytes:
            return framed[5:]

        return grpc.unary_unary_rpc_method_handler(handle)


async def lean() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def grpcio() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1:] == ["lean"]:
        with contextlib.suppress(ImportError):
            import uvloop

            uvloop.install()
        asyncio.run(lean())
    else:
        asyncio.run(grpcio())
