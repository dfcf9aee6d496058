"""A cache of computed rows: sentence vectors, and what the generator computes from them alone."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import batches
from galip_runtime.forks import Lock

__all__ = ["CAPTIONS_AT_ONCE", "SentenceCache"]

CAPTIONS_AT_ONCE = 32
"""captions that a text encoder takes in one run, at most"""

_Rows = npt.NDArray[Any]


class SentenceCache:
    """The `size` rows used last, and what was computed from each. Threads may share it."""

    def __init__(self, size: int, at_once: int) -> None:
        """`at_once`: how many rows to compute together, at most."""
        self._size, self._at_once = size, at_once
        self._known: OrderedDict[bytes, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._known)

    def __call__(
        self, rows: _Rows, compute: Callable[[_Rows], npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """Return `compute` of rows (N, ...), float32 (N, C), a new array; it gets only distinct, new rows."""
        distinct = {row.tobytes(): row for row in rows}
        with self._lock:
            values = {key: self._known[key] for key in distinct if key in self._known}
        missing = [key for key in distinct if key not in values]
        for part in batches(len(missing), self._at_once):
            computed = compute(np.stack([distinct[key] for key in missing[part]]))
            values |= {key: row.copy() for key, row in zip(missing[part], computed, strict=True)}
        with self._lock:
            for key in distinct:
                self._known[key] = values[key]
                self._known.move_to_end(key)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return np.stack([values[row.tobytes()] for row in rows])
