"""The wire format of TensorFlow Serving: messages, dtypes and the numpy codec, without TensorFlow."""
