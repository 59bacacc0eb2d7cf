"""How large messages and tensors can be."""

from __future__ import annotations

# A protobuf message, and so any tensor that can be received, is smaller than this.
MAX_MESSAGE_BYTES = 2**31 - 1

# Dimensions that an array can have: numpy 1.26 stops here, TensorFlow's kernels do well before.
MAX_RANK = 32
