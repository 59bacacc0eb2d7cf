"""Export, serve and call TensorFlow models with TensorFlow Serving."""

__version__ = "0.1.0"
