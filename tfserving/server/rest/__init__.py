"""The REST API: HTTP requests with JSON bodies."""
