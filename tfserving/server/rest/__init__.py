"""The REST API: HTTP and JSON over the service, on aiohttp."""
