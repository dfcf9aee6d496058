"""Prompts to pictures: a loaded bundle.

N pictures, H by W pixels, Z numbers of noise, D numbers in a sentence vector; the bundle fixes the last four.
"""

import platform
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import galip_runtime
from galip_runtime.arrays import Floats, batches, check_count, check_finite, check_rows, to_uint8
from galip_runtime.errors import UsageError
from galip_runtime.manifest import GRAPHS, Manifest
from galip_runtime.noise import MAX_SEED, check_seed
from galip_runtime.noise import noise as noise_of
from galip_runtime.session import Graph, Settings, import_onnxruntime
from galip_runtime.tokenizer import Tokenizer, as_prompts, trim

__all__ = ["DEFAULT_BATCH_SIZE", "Model", "seed_series"]

DEFAULT_BATCH_SIZE = 8
"""Pictures made at once. More is no faster on a CPU, and memory grows with it (0.1 GB each at 224 pixels)."""

_CACHED_SENTENCES = 1024
_CAPTIONS_AT_ONCE = 32
_FRESH_SEEDS = 2**32  # short enough to be typed again, and exact in any JSON reader


class Model:
    """A loaded bundle; `galip_runtime.load` makes one. May be shared by threads.

    On the CPU in fp32 a picture is the same bit for bit whatever it is batched with.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        tokenizer: Tokenizer,
        graphs: dict[str, Graph],
        settings: Settings,
        requested: dict[str, Any],
        passed_over: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.settings = settings
        self._graphs = graphs
        self._requested = requested
        self._passed_over = list(passed_over)
        self._sentences: OrderedDict[bytes, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def encode_text(self, prompts: str | Sequence[str]) -> npt.NDArray[np.float32]:
        """Sentence vectors, float32 (N, D), not normalised. Repeated captions come from a cache.

        Raises UsageError for no prompt, something other than text, and too long a prompt.
        """
        tokens = self.tokenizer.encode(_some(as_prompts(prompts), "prompt"))
        rows = {row.tobytes(): row for row in tokens}
        with self._lock:
            known = {key: self._sentences[key] for key in rows if key in self._sentences}
        missing = [key for key in rows if key not in known]
        for part in batches(len(missing), _CAPTIONS_AT_ONCE):
            batch = trim(np.stack([rows[key] for key in missing[part]]))
            sentences = check_finite(self._graphs["text_encoder"].run({"tokens": batch}), "text encoder")
            known |= {key: sentence.copy() for key, sentence in zip(missing[part], sentences, strict=True)}
        with self._lock:
            for key in rows:
                self._sentences[key] = known[key]
                self._sentences.move_to_end(key)
            while len(self._sentences) > _CACHED_SENTENCES:
                self._sentences.popitem(last=False)
        return np.stack([known[row.tobytes()] for row in tokens])

    def noise(self, seeds: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Noise for `decode`: float32 (N, Z), row i by seed i alone. Raises UsageError for an unfit seed."""
        return noise_of(seeds, self.manifest.dimensions.noise_dim)

    def decode(self, noise: Floats, sentence: Floats) -> npt.NDArray[np.float32]:
        """Pictures as the generator gives them: float32 (N, 3, H, W), RGB, nominally in [-1, 1], not clamped.

        `noise`: float (N, Z); `sentence`: float (N, D). float64 and float16 are rounded to float32. All N are
        made at once. Raises UsageError for another shape or dtype and for values that are not finite, and
        QualityGateFailed where the picture itself is not finite.
        """
        dimensions = self.manifest.dimensions
        inputs = {
            "noise": check_rows(noise, "noise", dimensions.noise_dim),
            "sentence": check_rows(sentence, "sentence", dimensions.sentence_dim),
        }
        if len(inputs["noise"]) != len(inputs["sentence"]):
            raise UsageError(
                f"noise has {len(inputs['noise'])} rows and sentence {len(inputs['sentence'])}; "
                "each picture takes one of both"
            )
        return check_finite(self._graphs["generator"].run(inputs), "generator")

    def generate(
        self,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] | None = None,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> npt.NDArray[np.uint8]:
        """Pictures, uint8 (N, H, W, 3), RGB.

        `seeds`: one for each picture, from 0 to 2^64 - 1. One prompt goes with any number of seeds and one
        seed with any number of prompts; otherwise there are as many of both. None draws fresh ones for each
        picture; where the picture is to be had again, draw them with `seed_series` and pass them.
        `batch_size`: pictures made at once. Raises UsageError for what cannot be used.
        """
        texts = _some(as_prompts(prompts), "prompt")
        numbers = seed_series(None, len(texts)) if seeds is None else _as_seeds(seeds)
        count = max(len(texts), len(numbers))
        if len(texts) not in (1, count) or len(numbers) not in (1, count):
            raise UsageError(
                f"{len(texts)} prompts and {len(numbers)} seeds do not go together: "
                "give one of either, or as many of both"
            )
        sentence = np.broadcast_to(self.encode_text(texts), (count, self.manifest.dimensions.sentence_dim))
        return self._pictures(numbers * (count // len(numbers)), sentence, batch_size)

    def interpolate(
        self,
        prompts: Sequence[str],
        steps: int = 8,
        seed: int | None = None,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> npt.NDArray[np.uint8]:
        """Pictures between prompts, all with one noise; sentence vectors are mixed linearly.

        Two prompts: uint8 (steps, H, W, 3), from the first to the second, both included. Four prompts: uint8
        (steps * steps, H, W, 3), a square row by row with the prompts in its corners: top left, top right,
        bottom left, bottom right. `steps`: at least 2; `seed`: from 0 to 2^64 - 1, None draws one. Raises
        UsageError for what cannot be used.
        """
        texts = as_prompts(prompts)
        if len(texts) not in (2, 4):
            raise UsageError(f"interpolation takes two or four prompts, not {len(texts)}")
        check_count(steps, "steps", least=2)
        seeds = seed_series(None, 1) if seed is None else [check_seed(seed)]
        corners = self.encode_text(texts).astype(np.float64)
        across = np.linspace(0.0, 1.0, steps)[:, None]
        sentence = corners[0] * (1 - across) + corners[1] * across  # (steps, D)
        if len(texts) == 4:
            bottom = corners[2] * (1 - across) + corners[3] * across
            down = across[:, None]
            sentence = (sentence * (1 - down) + bottom * down).reshape(steps * steps, -1)
        return self._pictures(seeds * len(sentence), sentence, batch_size)

    def _pictures(self, seeds: list[int], sentence: Floats, batch_size: int) -> npt.NDArray[np.uint8]:
        dimensions = self.manifest.dimensions
        pictures = np.empty((len(seeds), dimensions.image_height, dimensions.image_width, 3), np.uint8)
        for part in batches(len(seeds), check_count(batch_size, "batch_size")):
            pictures[part] = to_uint8(self.decode(self.noise(seeds[part]), sentence[part]))
        return pictures

    def info(self) -> dict[str, Any]:
        """What is loaded and how it runs, fit for JSON: asked for and used device, hashes, versions."""
        generator = self._graphs["generator"]
        return {
            "path": str(self.path),
            "format_version": self.manifest.format_version,
            "requested": self._requested,
            "device": self.settings.device,
            "passed_over": self._passed_over,
            "providers": {graph: self._graphs[graph].providers for graph in GRAPHS},
            "precision": {graph: self._graphs[graph].precision for graph in GRAPHS},
            "precisions": sorted(self.manifest.graphs["generator"]),
            "opset": generator.spec.opset,
            "threads": self.settings.threads,
            "dimensions": vars(self.manifest.dimensions),
            "model": self.manifest.model,
            "noise": self.manifest.noise["name"],
            "source": vars(self.manifest.source),
            "files": {name: vars(entry) for name, entry in self.manifest.files.items()},
            "made_with": dict(self.manifest.versions),
            "versions": {
                "galip-runtime": galip_runtime.__version__,
                "onnxruntime": import_onnxruntime().__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }


def seed_series(seed: int | None = None, count: int = 1) -> list[int]:
    """`count` seeds in a row, from `seed` on; None draws the first, below 2^32.

    Raises UsageError for a count below 1 and where the series would pass 2^64 - 1.
    """
    check_count(count, "count")
    first = secrets.randbelow(_FRESH_SEEDS) if seed is None else check_seed(seed)
    if first + count - 1 > MAX_SEED:
        raise UsageError(f"{count} seeds from {first} on pass the largest, {MAX_SEED} (2^64 - 1)")
    return list(range(first, first + count))


def _some(items: list[str], name: str) -> list[str]:
    if not items:
        raise UsageError(f"there is no {name}: give at least one")
    return items


def _as_seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int | np.integer):
        return [check_seed(seeds)]
    if isinstance(seeds, str | bytes) or not isinstance(seeds, Sequence | np.ndarray) or not len(seeds):
        raise UsageError(f"seeds are a whole number or a sequence of at least one, not {seeds!r:.80}")
    return [check_seed(seed) for seed in seeds]
