"""From a trained TensorFlow model to a served endpoint: export, repository, server and client."""

__version__ = "0.1.0"
