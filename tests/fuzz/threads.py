"""Many threads on one model generate the same bytes as one thread, and memory does not grow."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import galip_runtime
import numpy as np
import numpy.typing as npt
from fuzz.fixtures import DEVICES, small_bundle, stub_bundle
from fuzz.harness import Trial, resident_megabytes
from fuzz.mutation import pick

SECONDS, MEGABYTES = 120, None

_THREADS, _CALLS = 16, 5
_PROMPTS = ["a rose, twemoji style", "", "a car, flat style", "a star", "the 東京 🐦", "red " * 100]
_SETTLED = 4  # trials after which a model has allocated its working memory
_GROWTH = 150  # MB, over all trials of settled models: each batch size may allocate some once

Pictures = npt.NDArray[np.uint8]


def start(home: Path) -> Trial:
    models = {
        (device, bundle.name, threads): galip_runtime.load(bundle, device=device, threads=threads)
        for device in DEVICES
        for bundle in (stub_bundle(home), small_bundle(home), _shipped(home))
        for threads in (1, 2)
    }
    single_pictures: dict[tuple[Any, str, int], Pictures] = {}
    trials: Counter[Any] = Counter()
    growth: list[float] = []

    def expected(key: Any, prompt: str, seed: int) -> Pictures:
        """Return the picture, generated alone."""
        if (key, prompt, seed) not in single_pictures:
            single_pictures[key, prompt, seed] = models[key].generate(prompt, seed)[0]
        return single_pictures[key, prompt, seed]

    def trial(rng: np.random.Generator, folder: Path) -> str:
        key, before = pick(rng, models), resident_megabytes()
        calls = [_call(rng) for _ in range(_THREADS * _CALLS)]
        (folder / "calls.txt").write_text(f"{key}\n" + "\n".join(map(repr, calls)))

        def generate(call: tuple[list[str], list[int], int]) -> Pictures:
            prompts, seeds, size = call
            return models[key].generate(prompts, seeds, batch_size=size)

        with ThreadPoolExecutor(_THREADS) as pool:
            together = list(pool.map(generate, calls))
        for call, pictures in zip(calls, together, strict=True):
            single = np.stack([expected(key, *pair) for pair in zip(*call[:2], strict=True)])
            if key[0] == "cpu":  # only there are pictures the same in every batch
                assert np.array_equal(pictures, single), (
                    f"{key}: other bytes than alone: {_steps(pictures, single)}"
                )
            else:
                again = generate(call)
                assert np.array_equal(pictures, again), f"{key}: other bytes: {_steps(pictures, again)}"
        trials[key] += 1
        if trials[key] > _SETTLED:
            growth.append(resident_megabytes() - before)
        assert sum(growth) < _GROWTH, f"{sum(growth):.0f} MB more in {len(growth)} trials of settled models"
        return f"{key[0]}: equal bytes"

    return trial


def _call(rng: np.random.Generator) -> tuple[list[str], list[int], int]:
    """Return random prompts, seeds and a batch size."""
    count = int(rng.integers(1, 9))
    prompts = [str(pick(rng, _PROMPTS)) for _ in range(count)]
    return prompts, rng.integers(20, size=count).tolist(), int(rng.integers(1, 9))


def _steps(pictures: Pictures, expected: Pictures) -> str:
    steps = np.abs(pictures.astype(int) - expected).max(axis=(1, 2, 3))
    return f"{(steps > 0).sum()} of {len(pictures)} pictures by up to {steps.max()}"


def _shipped(home: Path) -> Path:
    """Return a bundle of the shipped model."""
    from galip_export import export_bundle

    from galip.assets import default_checkpoint

    folder = home / "shipped"
    if not folder.exists():
        export_bundle(default_checkpoint(), folder)
    return folder
