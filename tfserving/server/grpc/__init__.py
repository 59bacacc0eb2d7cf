"""The gRPC API, on the core of gRPC or on grpc.aio."""
