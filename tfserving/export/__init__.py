"""Export of SavedModels for TensorFlow Serving, with names for callers, encoded images and warmup records.

TensorFlow is imported in the functions that need it.
"""

from tfserving.export.exporter import export_saved_model

__all__ = ["export_saved_model"]
