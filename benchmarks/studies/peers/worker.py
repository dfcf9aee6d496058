"""A peer in a process of its own: `python -m studies.peers.worker TASK`, a `Task` as JSON.

It says what it has loaded, then answers each line of stdin, a batch size and a first row, with a turn's
seconds. All lines are JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np

from studies.peers.loaders import PEERS, Floats, Run, Task

__all__ = ["Turns", "main"]

_LEAST = 0.05
"""Seconds that a turn's timed calls take at least, all together."""


class Turns:
    """Turns of a peer: a call whose image is kept and whose time does not count, then timed calls.

    Each call has sentences that none of the last hundred had, as galip keeps what depends on them alone.
    """

    def __init__(self, run: Run, noise: Floats, sentence: Floats, checked: int) -> None:
        """Noise (N, Z) and sentence (N, D); rows from `checked` on are for timed calls."""
        self._run, self._noise, self._sentence = run, noise, sentence
        self._rows: Iterator[int] = itertools.cycle(range(checked, len(noise)))

    def take(self, batch: int, first: int) -> tuple[Floats, float]:
        """Return the images (batch, 3, H, W) of the rows from `first` on, and a call's median seconds."""
        image = self._run(self._noise[first : first + batch], self._sentence[first : first + batch])
        seconds: list[float] = []
        while sum(seconds) < _LEAST:
            rows = list(itertools.islice(self._rows, batch))
            noise, sentence = self._noise[rows], self._sentence[rows]
            start = time.perf_counter()
            self._run(noise, sentence)
            seconds.append(time.perf_counter() - start)
        return image, statistics.median(seconds)


def main() -> None:
    """The process."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the answers

    def say(**answer: object) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    task = Task(**json.loads(sys.argv[1]))
    try:
        loaded = PEERS[task.peer].load(task)
        with np.load(task.inputs) as inputs:
            turns = Turns(loaded.run, inputs["noise"], inputs["sentence"], task.checked)
        say(library=loaded.library, kernels=loaded.kernels)
        for line in sys.stdin:
            image, seconds = turns.take(*json.loads(line))
            np.save(task.image, image)
            say(seconds=seconds)
    except ModuleNotFoundError as error:
        say(failed=f"{error.name} is not installed: pip install {error.name}")
    except Exception as error:  # any kind: each library has its own
        say(failed=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
