"""Models on TensorFlow's own runtime."""
