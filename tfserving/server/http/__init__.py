"""HTTP/1.1, on httptools: connections, requests and responses; the REST API is above it."""
