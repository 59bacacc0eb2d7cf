"""The text of a gRPC status."""

from __future__ import annotations

# Maximum bytes of an error message as gRPC sends it: clients accept at least 8 kB of metadata, and report
# RESOURCE_EXHAUSTED if there is more. Error messages quote names that callers choose.
_MAX_DETAILS = 6000


def shorten(text: str) -> str:
    """Cuts a text to _MAX_DETAILS; gRPC sends each byte outside printable ASCII as three."""
    size = 0
    for index, character in enumerate(text):
        size += 1 if " " <= character <= "~" else 3 * len(character.encode("utf-8", "replace"))
        if size > _MAX_DETAILS:
            return f"{text[:index]}..."
    return text
