"""Limits on a bundle's graph, so that a few bytes of a file cannot take hours or all memory."""

import math
from collections.abc import Sequence

__all__ = ["MAX_NODES", "MAX_TENSORS", "check_tensor"]

MAX_NODES = MAX_TENSORS = 20_000
"""The largest exported graphs have about 1,100 of either. OpenVINO takes hours for 200,000 nodes."""

_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""bytes of an element, by TensorProto.DataType"""


def check_tensor(sizes: Sequence[int], kind: int, length: int, *, raw: bool) -> None:
    """Raise ValueError unless a tensor has as many elements as its sizes and its DataType `kind` say.

    `length`: bytes of its data; elements that are not `raw` take at least a byte each.
    """
    if kind not in _BYTES:
        raise ValueError(f"a tensor has data type {kind}, which no exported graph has")
    count = math.prod(sizes)
    if (count * _BYTES[kind] != length) if raw else (count > length):
        raise ValueError(f"a tensor claims {count:,} elements and has {length:,} bytes")
