"""How long pictures take: every subject once a round, so that a shared machine's drift hits all alike."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from galip_runtime.arrays import to_uint8
from galip_runtime.text_to_image import TextToImage
from PIL import Image

__all__ = ["PHASES", "measure_latency", "phases_of_one", "watch_copies"]

PHASES = ("tokenise", "text", "noise", "generator", "copy", "uint8", "png")
"""What happens from prompt to file. `copy`, between main and device memory, is told apart for eager PyTorch
on a GPU; on a CPU there is none, and onnxruntime's is within `text` and `generator`, which end when the array
is in main memory. There is no `uint8` where the GPU rounds pictures within `generator`.
"""

Samples = dict[str, dict[int, dict[str, list[float]]]]
"""By subject, batch size and phase: seconds of every round. `total` is a phase too."""


class _Copies:
    """Seconds that a drawer's copies take, once all that was computed before is there."""

    def __init__(self, drawer: Any) -> None:
        self.seconds = 0.0
        self._wait = drawer.synchronise
        drawer.to_device, drawer.to_host = self._timed(drawer.to_device), self._timed(drawer.to_host)

    def _timed(self, copy: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._wait()
            began = time.perf_counter()
            result = copy(*arguments)
            self._wait()
            self.seconds += time.perf_counter() - began
            return result

        return call


def watch_copies(drawer: TextToImage) -> _Copies | None:
    """From now on the seconds of its copies are counted; None where there are none to be told apart."""
    return _Copies(drawer) if getattr(drawer, "copies", False) else None


def phases_of_one(
    drawer: TextToImage, prompts: Sequence[str], seeds: Sequence[int], copies: _Copies | None = None
) -> dict[str, float]:
    """Seconds of each phase, and their `total`, of one batch from prompts to PNG files in memory.

    `copies`: as `watch_copies` gave it for this drawer; without it there is no phase `copy`.
    """
    clock, parts = time.perf_counter, {}
    began = before = clock()

    def phase(name: str) -> None:
        nonlocal before
        now = clock()
        parts[name], before = now - before, now

    tokens = drawer.tokenizer.encode(list(prompts))
    phase("tokenise")
    sentence = drawer.encode_tokens(tokens)
    phase("text")
    noise = drawer.noise(seeds)
    if copies:
        copies.seconds = 0.0
    phase("noise")
    if drawer.rounds_on_device:
        pictures = drawer.draw(noise, sentence)
        phase("generator")
    else:
        image = drawer.decode(noise, sentence)
        phase("generator")
        pictures = to_uint8(image)
        phase("uint8")
    for picture in pictures:
        Image.fromarray(picture).save(io.BytesIO(), "PNG")
    phase("png")
    if copies:
        parts |= {"generator": parts["generator"] - copies.seconds, "copy": copies.seconds}
    return {**parts, "total": before - began}


def measure_latency(
    drawers: Mapping[str, TextToImage],
    prompts: Sequence[str],
    *,
    batches: Sequence[int],
    rounds: int,
    warmup: int,
    least_rounds: int = 1,
    max_seconds: float = math.inf,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda done: None,
) -> tuple[Samples, dict[str, str]]:
    """Rounds of all `drawers` at all `batches` sizes: A B C A B C …, other prompts and noise each round.

    Rounds end after `max_seconds`, but not before there are `least_rounds` of the `rounds`. `progress` is
    told how many are done, those of `warmup` too. Also returns what went wrong, by name: such a subject has
    no samples, and the others go on.
    """
    samples: Samples = {name: {batch: {} for batch in batches} for name in drawers}
    copies = {name: watch_copies(drawer) for name, drawer in drawers.items()}
    failed: dict[str, str] = {}
    place, began = 0, time.monotonic()
    for number in range(-warmup, rounds):
        if number == 0:
            began = time.monotonic()
        if number >= least_rounds and time.monotonic() - began > max_seconds:
            break
        for batch in batches:
            chosen = [prompts[(place + row) % len(prompts)] for row in range(batch)]
            seeds = [seed + place + row for row in range(batch)]
            place += batch
            for name in [name for name in drawers if name not in failed]:
                try:
                    measured = phases_of_one(drawers[name], chosen, seeds, copies[name])
                except Exception as error:  # of a subject's own kind, whatever it runs on
                    failed[name] = f"{type(error).__name__} at batch {batch}: {error}"
                    continue
                if number >= 0:
                    for phase, seconds in measured.items():
                        samples[name][batch].setdefault(phase, []).append(seconds)
        progress(warmup + number + 1)
    return {name: each for name, each in samples.items() if name not in failed}, failed
