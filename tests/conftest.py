"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# Machines that are busy with other things are slow, and that is no failure.
settings.register_profile("tfserving", deadline=None)
settings.load_profile("tfserving")
