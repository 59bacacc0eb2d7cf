"""SavedModels for TensorFlow Serving: good names, encoded images, warmup requests, published by one rename.

TensorFlow is imported inside the functions that need it.
"""

from tfserving.export.exporter import export_saved_model

__all__ = ["export_saved_model"]
