"""Limits of messages and tensors."""

from __future__ import annotations

# protobuf's limit for a message, and so for any tensor that can be received.
MAX_MESSAGE_BYTES = 2**31 - 1

# The maximum number of dimensions: the limit of numpy 1.26; TensorFlow's kernels have lower ones.
MAX_RANK = 32
