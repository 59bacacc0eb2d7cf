"""tfserving serve: run the embedded server."""

from __future__ import annotations

from collections.abc import Sequence

from tfserving.cli.command import report_missing_module


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server with `argv`, the flags of tensorflow_model_server, and return its exit status."""
    try:
        from tfserving.server.main import main as serve
    except ModuleNotFoundError as error:
        return report_missing_module("tfserving serve", error, "server")
    return serve(None if argv is None else list(argv))
