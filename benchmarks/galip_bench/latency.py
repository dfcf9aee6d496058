"""Latency: every subject generates once a round, so that a shared machine's drift affects all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from galip_runtime.arrays import to_uint8
from galip_runtime.image import encode_png
from galip_runtime.text_to_image import TextToImage

__all__ = ["PHASES", "CopyTimer", "Round", "copy_timer", "measure_latency", "time_phases"]

PHASES = ("tokenise", "text", "noise", "generator", "copy", "uint8", "png")
"""Steps from prompts to files.

`copy` is between main memory and the device's. It is measured for eager PyTorch on a GPU; on a CPU there is
none, and onnxruntime's copies are part of `text` and `generator`, which end when the array is in main memory.
There is no `uint8` where the GPU, or galip-kernels, round pictures within `generator`.
"""

Round = dict[str, dict[int, dict[str, float]]]
"""Seconds of a round by subject, batch size and phase. `total` is a phase, too."""
Samples = dict[str, dict[int, dict[str, list[float]]]]
"""Those of all rounds."""


class CopyTimer:
    """Seconds that a model's copies take, once everything computed before them is finished."""

    def __init__(self, model: Any) -> None:
        """Time the copies of `model` from now on."""
        self.seconds = 0.0
        self._wait = model.synchronise
        model.to_device, model.to_host = self._timed(model.to_device), self._timed(model.to_host)

    def _timed(self, copy: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._wait()
            start = time.perf_counter()
            result = copy(*arguments)
            self._wait()
            self.seconds += time.perf_counter() - start
            return result

        return call


def copy_timer(model: TextToImage) -> CopyTimer | None:
    """Return a timer of the model's copies from now on; None where they can't be separated from the rest."""
    return CopyTimer(model) if getattr(model, "copies", False) else None


def time_phases(
    model: TextToImage, prompts: Sequence[str], seeds: Sequence[int], copies: CopyTimer | None = None
) -> dict[str, float]:
    """Return the seconds of each phase, and their `total`, of one batch from prompts to PNG files in memory.

    `copies`: the `copy_timer` of this model. Without it there is no phase `copy`.
    """
    clock, phases = time.perf_counter, {}
    start = last = clock()

    def end_phase(name: str) -> None:
        nonlocal last
        now = clock()
        phases[name], last = now - last, now

    tokens = model.tokenizer.encode(list(prompts))
    end_phase("tokenise")
    sentence = model.encode_tokens(tokens)
    end_phase("text")
    noise = model.noise(seeds)
    if copies:
        copies.seconds = 0.0
    end_phase("noise")
    if model.rounds_on_device:
        pictures = model.decode_pictures(noise, sentence)
        end_phase("generator")
    else:
        image = model.decode(noise, sentence)
        end_phase("generator")
        pictures = to_uint8(image)
        end_phase("uint8")
    for picture in pictures:
        encode_png(picture)
    end_phase("png")
    if copies:
        phases |= {"generator": phases["generator"] - copies.seconds, "copy": copies.seconds}
    return {**phases, "total": last - start}


def measure_latency(
    models: Mapping[str, TextToImage],
    prompts: Sequence[str],
    *,
    batches: Sequence[int],
    rounds: int,
    warmup: int,
    min_rounds: int = 1,
    max_seconds: float = math.inf,
    seed: int = 0,
    is_over: Callable[[], bool] = lambda: False,
    progress: Callable[[int], object] = lambda done: None,
    on_round: Callable[[Round, Mapping[str, str]], object] = lambda seconds, failed: None,
) -> tuple[Samples, dict[str, str]]:
    """Measure rounds of all `models` at all sizes of `batches`: A B C A B C …

    Each round has prompts and noise of its own. Rounds end after `max_seconds`, but not before there are
    `min_rounds` of the `rounds`. Once `is_over()` says so, they end as soon as there is one, even without
    those of `warmup`; what is measured of a further one is dropped. `progress` gets the number of finished
    rounds, with those of `warmup`, and `on_round` each round that counts and what has gone wrong by then.

    Returns the samples, and by name what went wrong: such a model has no samples, and the others go on.
    """
    samples: Samples = {name: {batch: {} for batch in batches} for name in models}
    copies = {name: copy_timer(model) for name, model in models.items()}
    failed: dict[str, str] = {}
    first, start = 0, time.monotonic()
    for number in range(-warmup, rounds):
        if number == 0:
            start = time.monotonic()
        if number >= min_rounds and time.monotonic() - start > max_seconds:
            break
        if number != 0 and is_over():
            if number > 0:
                break
            continue
        seconds: Round = {}
        for batch in batches:
            batch_prompts = [prompts[(first + row) % len(prompts)] for row in range(batch)]
            seeds = [seed + first + row for row in range(batch)]
            first += batch
            for name in [name for name in models if name not in failed]:
                if number > 0 and is_over():
                    return _without(samples, failed), failed
                try:
                    phases = time_phases(models[name], batch_prompts, seeds, copies[name])
                except Exception as error:  # any kind: each backend has its own
                    failed[name] = f"{type(error).__name__} at batch {batch}: {error}"
                    continue
                seconds.setdefault(name, {})[batch] = phases
        if number >= 0:
            _add(samples, seconds)
            on_round(seconds, failed)
        progress(warmup + number + 1)
    return _without(samples, failed), failed


def _add(samples: Samples, seconds: Round) -> None:
    for name, sizes in seconds.items():
        for batch, phases in sizes.items():
            for phase, value in phases.items():
                samples[name][batch].setdefault(phase, []).append(value)


def _without(samples: Samples, failed: Mapping[str, str]) -> Samples:
    return {name: sizes for name, sizes in samples.items() if name not in failed}
