"""Limits of messages and tensors.

The flags in tfserving/server/server_options.py set the limits of the embedded server.
"""

from __future__ import annotations

from dataclasses import dataclass

# protobuf's limit for a message, and so for any tensor that can be received.
MAX_MESSAGE_BYTES = 2**31 - 1

# The maximum number of dimensions: the limit of numpy 1.26; TensorFlow's kernels have lower ones.
MAX_RANK = 32


@dataclass(frozen=True)
class FillLimit:
    """Limit of the tensors of a message that have fewer values than their shapes.

    A few bytes on the wire can be such a tensor of any size, so what they allocate together is limited.

    Attributes:
        bytes: of these tensors together as arrays.
        flag: the flag that sets the limit, for errors; "" if there is none.
    """

    bytes: int = 1 << 24
    flag: str = ""
