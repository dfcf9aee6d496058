"""How long pictures take: every subject once a round, so that a shared machine's drift hits all alike."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from galip_runtime.arrays import to_uint8
from galip_runtime.drawer import Drawer
from PIL import Image

__all__ = ["PHASES", "measure_latency", "phases_of_one"]

PHASES = ("tokenise", "text", "noise", "generator", "uint8", "png")
"""What happens from prompt to file, in order. `text` and `generator` take in the copies to and from a device:
both give arrays in main memory, which waits for it."""

Samples = dict[str, dict[int, dict[str, list[float]]]]
"""By subject, batch size and phase: seconds of every round. `total` is a phase too."""


def phases_of_one(drawer: Drawer, prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, float]:
    """Seconds of each phase, and their `total`, of one batch from prompts to PNG files in memory."""
    clock = time.perf_counter
    times = [clock()]
    tokens = drawer.tokenizer.encode(list(prompts))
    times.append(clock())
    sentence = drawer.encode_tokens(tokens)
    times.append(clock())
    noise = drawer.noise(seeds)
    times.append(clock())
    image = drawer.decode(noise, sentence)
    times.append(clock())
    pictures = to_uint8(image)
    times.append(clock())
    for picture in pictures:
        Image.fromarray(picture).save(io.BytesIO(), "PNG")
    times.append(clock())
    parts = {name: after - before for name, before, after in zip(PHASES, times, times[1:], strict=False)}
    return {**parts, "total": times[-1] - times[0]}


def measure_latency(
    drawers: Mapping[str, Drawer],
    prompts: Sequence[str],
    *,
    batches: Sequence[int],
    rounds: int,
    warmup: int,
    seed: int = 0,
    progress: Callable[[str, int, int], Any] = lambda *_: None,
) -> Samples:
    """Rounds of all `drawers` at all `batches` sizes: A B C A B C …, other prompts and noise each round."""
    samples: Samples = {
        name: {batch: {phase: [] for phase in (*PHASES, "total")} for batch in batches} for name in drawers
    }
    place = 0
    for number in range(warmup + rounds):
        for batch in batches:
            chosen = [prompts[(place + row) % len(prompts)] for row in range(batch)]
            seeds = [seed + place + row for row in range(batch)]
            place += batch
            for name, drawer in drawers.items():
                measured = phases_of_one(drawer, chosen, seeds)
                if number >= warmup:
                    for phase, seconds in measured.items():
                        samples[name][batch][phase].append(seconds)
        progress("measuring latency", number + 1, warmup + rounds)
    return samples
