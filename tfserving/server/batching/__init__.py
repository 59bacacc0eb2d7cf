"""Batching: a queue in front of a servable that runs concurrent requests together."""
