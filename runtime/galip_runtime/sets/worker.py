"""What generates a shard: the same in a local process and on a Ray cluster."""

import importlib.metadata
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

import galip_runtime
from galip_runtime.bundle.manifest import read_verified
from galip_runtime.errors import FileRefused, QualityGateFailed
from galip_runtime.image import encode_picture
from galip_runtime.loading import load
from galip_runtime.model import Model
from galip_runtime.sets.options import FORMATS, SetOptions
from galip_runtime.sets.plan import Picture, Shard, read_shard
from galip_runtime.sets.prompts import open_prompts
from galip_runtime.sets.shards import Names, Sample, write_failures, write_shard
from galip_runtime.text_to_image import DEFAULT_BATCH_SIZE

__all__ = ["Job", "ModelFacts", "ShardDone", "ShardWorker", "describe_model"]

_PARITY = "parity.json"
_LIBRARIES = (
    "numpy",
    "pillow",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "openvino",
    "tensorrt",
)
"""Distributions that may decide over a byte."""


@dataclass(frozen=True)
class ModelFacts:
    """What a set's plan says of the model."""

    digest: str
    """of the bundle"""
    device: str
    """the one that runs it: never auto"""
    precision: str
    """of the generator"""
    size: tuple[int, int]
    """height and width of its pictures"""
    parity: dict[str, Any] = field(default_factory=dict)
    """the worst of what the export measured of this precision against eager PyTorch"""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What every worker of a set needs; fit for pickling."""

    options: SetOptions
    names: Names
    facts: ModelFacts
    threads: int


@dataclass(frozen=True)
class ShardDone:
    """What a worker reports of a shard."""

    number: int
    pictures: int
    """that the shard was planned with"""
    failures: int
    """pictures that are not finite"""
    cut: str | None = None
    """the warning of a prompt that was cut, if any was"""


def describe_model(options: SetOptions, threads: int = 1) -> ModelFacts:
    """Load the model as the workers will, and return what the plan says of it. Raises as `load`."""
    with load(options.bundle, device=options.device, precision=options.precision, threads=threads) as model:
        info = model.info()
        precision = info["precision"]["generator"]
        return ModelFacts(
            _digest(model),
            info["requested"]["device"] if options.device != "auto" else info["device"],
            precision,
            (model.dimensions.image_height, model.dimensions.image_width),
            _parity(model, precision),
            _versions(),
        )


def _versions() -> dict[str, str]:
    """Return the versions of what is installed, whether or not this process has imported it."""
    versions = {"galip-runtime": galip_runtime.__version__}
    for name in _LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _digest(model: Model) -> str:
    """Return the bundle's digest, or, of one from before manifests had one, the generator's sha256."""
    if model.digest is not None:
        return model.digest
    return str(model.manifest.files[model.manifest.graphs["generator"]["fp32"].file].sha256)


def _parity(model: Model, precision: str) -> dict[str, Any]:
    """Return the largest error and the lowest PSNR that the export measured of the generator."""
    if _PARITY not in model.manifest.files:
        return {}
    document = json.loads(read_verified(model.path, model.manifest, _PARITY))
    cases = [
        case
        for case in document.get("cases", ())
        if (case.get("graph"), case.get("precision")) == ("generator", precision)
    ]
    if not cases:
        return {}
    return {
        "against": document.get("reference"),
        "max_abs": max(case["max_abs"] for case in cases),
        "psnr_db": min(case["psnr_db"] for case in cases),
    }


class ShardWorker:
    """A loaded model that generates shards, one after another."""

    def __init__(self, job: Job) -> None:
        """Load the model. Raises as `load`, and FileRefused where the bundle is not the plan's."""
        self._job = job
        self._source = open_prompts(job.options.prompts)
        self._model = load(
            job.options.bundle, device=job.facts.device, precision=job.options.precision, threads=job.threads
        )
        if (digest := _digest(self._model)) != job.facts.digest:
            raise FileRefused(
                f"the bundle {self._model.path} is not the one that the set was planned with: its digest is "
                f"{digest}, not {job.facts.digest}"
            )

    def make(self, shard: Shard, progress: Callable[[int], object] | None = None) -> ShardDone:
        """Generate a shard, unless it is there. `progress(pictures)` is called after each batch.

        A picture that is not finite is left out and listed beside the shard. Raises UsageError if the shard
        cannot be written, FileRefused if the prompts are not those of the plan.
        """
        target = self._job.options.out / self._job.names.shard(shard.number)
        if target.exists():  # from a worker that died before it could say so
            return ShardDone(shard.number, shard.count, 0)
        failures: list[dict[str, Any]] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", galip_runtime.PromptCut)
            samples = self._samples(shard, failures, progress)
            write_shard(
                target,
                self._listed(samples, shard, failures),
                self._job.options.format,
                self._job.options.layout,
            )
        cut = str(caught[0].message) if caught else None
        return ShardDone(shard.number, shard.count, len(failures), cut)

    def _listed(
        self, samples: Iterator[Sample], shard: Shard, failures: list[dict[str, Any]]
    ) -> Iterator[Sample]:
        """Yield the samples, then write the list of failures, so that it is there when the shard is."""
        yield from samples
        if failures:
            write_failures(self._job.options.out / self._job.names.failures(shard.number), failures)

    def _samples(
        self, shard: Shard, failures: list[dict[str, Any]], progress: Callable[[int], object] | None
    ) -> Iterator[Sample]:
        pictures = read_shard(self._source, self._job.options, shard)
        while batch := list(islice(pictures, DEFAULT_BATCH_SIZE)):
            for picture, pixels in zip(batch, self._generate(batch), strict=True):
                if pixels is None:
                    failures.append({**self._meta(picture), "reason": "not finite"})
                else:
                    yield self._sample(picture, pixels)
            if progress is not None:
                progress(len(batch))

    def _generate(self, batch: list[Picture]) -> list[npt.NDArray[np.uint8] | None]:
        """Return the pictures, uint8 (H, W, 3) each; None for one that is not finite."""
        try:
            prompts, seeds = [picture.prompt for picture in batch], [picture.seed for picture in batch]
            return list(self._model.generate(prompts, seeds, truncation=self._job.options.truncation))
        except QualityGateFailed:
            if len(batch) == 1:
                return [None]
            return [pixels for picture in batch for pixels in self._generate([picture])]

    def _sample(self, picture: Picture, pixels: npt.NDArray[np.uint8]) -> Sample:
        options = self._job.options
        metadata = self._model.metadata([picture.prompt], [picture.seed], options.truncation)
        content = encode_picture(pixels, FORMATS[options.format], metadata)
        return Sample(self._job.names.key(picture.number), content, picture.prompt, self._meta(picture))

    def _meta(self, picture: Picture) -> dict[str, Any]:
        facts = self._job.facts
        meta = {
            "number": picture.number,
            "prompt_number": picture.prompt_number,
            "prompt": picture.prompt,
            "seed": picture.seed,
            "truncation": self._job.options.truncation,
            "bundle": facts.digest,
            "device": facts.device,
            "precision": facts.precision,
            "parity": facts.parity,
        }
        return meta if picture.id is None else {**meta, "id": picture.id}
