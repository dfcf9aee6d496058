"""The cache of computed rows: sentence vectors, and what the generator computes from them alone."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import batches
from galip_runtime.forks import Lock

__all__ = ["CAPTIONS_AT_ONCE", "SentenceCache"]

CAPTIONS_AT_ONCE = 32
"""the most captions that a text encoder takes in one run"""

_Rows = npt.NDArray[Any]


class SentenceCache:
    """The results for the `size` most recently used rows. Threads may share it."""

    def __init__(self, size: int, at_once: int) -> None:
        """`at_once`: the most rows to compute together."""
        self._size, self._at_once = size, at_once
        self._results: OrderedDict[bytes, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._results)

    def __call__(
        self, rows: _Rows, compute: Callable[[_Rows], npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """Return `compute(rows)` for rows (N, ...): a new float32 array (N, C).

        `compute` gets only the distinct rows that the cache does not have.
        """
        distinct = {row.tobytes(): row for row in rows}
        with self._lock:
            results = {key: self._results[key] for key in distinct if key in self._results}
        missing = [key for key in distinct if key not in results]
        for part in batches(len(missing), self._at_once):
            outputs = compute(np.stack([distinct[key] for key in missing[part]]))
            results |= {key: row.copy() for key, row in zip(missing[part], outputs, strict=True)}
        with self._lock:
            for key in distinct:
                self._results[key] = results[key]
                self._results.move_to_end(key)
            while len(self._results) > self._size:
                self._results.popitem(last=False)
        return np.stack([results[row.tobytes()] for row in rows])
