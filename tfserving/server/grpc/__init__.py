"""The gRPC API: a codec over the service, on grpc.aio."""
