"""The entrypoint of the embedded server's image, with a fake server on PATH."""

import os
import subprocess
from pathlib import Path

ENTRYPOINT = Path(__file__).parents[2] / "docker" / "embedded" / "tf_serving_entrypoint.sh"


def test_the_server_replaces_the_entrypoint(tmp_path):
    server = tmp_path / "tensorflow_model_server"
    server.write_text('#!/bin/sh\nprintf "%s\\n" "$$" "$@"\n')
    server.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "MODEL_NAME": "iris",
        "MODEL_BASE_PATH": "/models",
    }
    with subprocess.Popen(
        ["bash", ENTRYPOINT, "--enable_batching"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        out, _ = process.communicate(timeout=30)
    assert out.splitlines() == [
        f"{process.pid}",
        "--port=8500",
        "--rest_api_port=8501",
        "--model_name=iris",
        "--model_base_path=/models/iris",
        "--enable_batching",
    ]
