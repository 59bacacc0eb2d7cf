"""A models.config in both formats."""

from __future__ import annotations

from pathlib import Path

TEXT = 'model_config_list {\n config { name: "a" base_path: "/models/a" model_platform: "tensorflow" }\n}\n'
JSON = '[{"name": "a", "base_path": "/models/a", "modelPlatform": "tensorflow"}]'


def write(text: str) -> str:
    """Write m.config into the current directory; returns its name."""
    Path("m.config").write_text(text)
    return "m.config"
