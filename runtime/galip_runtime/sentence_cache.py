"""What has been computed of a row is not computed again."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import batches
from galip_runtime.forks import Lock

__all__ = ["SentenceCache"]

_Rows = npt.NDArray[Any]


class SentenceCache:
    """The last `size` rows and what they gave. May be shared by threads."""

    def __init__(self, size: int, at_once: int) -> None:
        """`at_once`: rows computed together, at most."""
        self._size, self._at_once = size, at_once
        self._known: OrderedDict[bytes, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._known)

    def __call__(
        self, rows: _Rows, compute: Callable[[_Rows], npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """Rows (N, ...) → float32 (N, C), a new array. `compute` gets the rows that are distinct and new."""
        distinct = {row.tobytes(): row for row in rows}
        with self._lock:
            found = {key: self._known[key] for key in distinct if key in self._known}
        missing = [key for key in distinct if key not in found]
        for part in batches(len(missing), self._at_once):
            computed = compute(np.stack([distinct[key] for key in missing[part]]))
            found |= {key: row.copy() for key, row in zip(missing[part], computed, strict=True)}
        with self._lock:
            for key in distinct:
                self._known[key] = found[key]
                self._known.move_to_end(key)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return np.stack([found[row.tobytes()] for row in rows])
