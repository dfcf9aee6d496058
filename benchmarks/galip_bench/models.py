"""The checkpoint and the bundles that a run measures."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from galip_runtime.bundle.decoding import parse
from galip_runtime.bundle.manifest import MANIFEST_NAME, read_manifest, read_verified, sha256_file
from galip_runtime.errors import UsageError

if TYPE_CHECKING:
    from galip.progress import Progress
    from galip_bench.config import BenchConfig

__all__ = ["BundleFacts", "CheckpointFacts", "ModelFacts", "Models", "prepare_models"]


@dataclass(frozen=True)
class CheckpointFacts:
    """The checkpoint's file."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class BundleFacts:
    """The bundle's folder."""

    manifest_sha256: str
    bytes: int


@dataclass(frozen=True)
class ModelFacts:
    """The files that were measured."""

    checkpoint: CheckpointFacts
    bundle: BundleFacts


@dataclass(frozen=True)
class Models:
    """Paths of the files that are measured."""

    checkpoint: Path
    bundle: Path
    plain_bundle: Path | None = None
    """Exported without rewrites."""

    @property
    def is_pair(self) -> bool:
        """Whether the bundle was exported from the checkpoint."""
        return bool(read_manifest(self.bundle).source.sha256 == sha256_file(self.checkpoint))

    def facts(self) -> ModelFacts:
        """Return the files' hashes and sizes."""
        size = sum(file.stat().st_size for file in self.bundle.rglob("*") if file.is_file())
        return ModelFacts(
            CheckpointFacts(
                self.checkpoint.name, sha256_file(self.checkpoint), self.checkpoint.stat().st_size
            ),
            BundleFacts(sha256_file(self.bundle / MANIFEST_NAME), size),
        )


@contextlib.contextmanager
def prepare_models(config: BenchConfig, progress: Progress = lambda *_: None) -> Iterator[Models]:
    """Find the checkpoint and the bundles of `config`; what has to be exported is deleted in the end.

    Raises `UsageError` for a bundle whose checkpoint is neither given nor the shipped one, and as
    `read_manifest` and `export_bundle`.
    """
    with _checkpoint_and_bundle(config, progress) as models:
        if not config.plain_bundle:
            yield models
            return
        plain = Path(config.plain_bundle)
        _check_plain(plain, models)
        yield replace(models, plain_bundle=plain)


@contextlib.contextmanager
def _checkpoint_and_bundle(config: BenchConfig, progress: Progress) -> Iterator[Models]:
    from galip.assets import default_bundle, default_checkpoint

    if config.bundle:
        bundle = Path(config.bundle)
        source = read_manifest(bundle).source.sha256
        if config.model:
            yield Models(_existing(config.model), bundle)
        elif source == sha256_file(default_checkpoint()):
            yield Models(default_checkpoint(), bundle)
        else:
            raise UsageError(f"give --model, too: the checkpoint that {bundle} was exported from")
    elif not config.model:
        yield Models(default_checkpoint(), default_bundle())
    else:
        from galip_export import export_bundle

        checkpoint = _existing(config.model)
        with tempfile.TemporaryDirectory() as folder:
            export_bundle(checkpoint, Path(folder) / "bundle", progress=progress)
            yield Models(checkpoint, Path(folder) / "bundle")


def _check_plain(plain: Path, models: Models) -> None:
    """Raise `UsageError` unless `plain` was exported from the same checkpoint without rewrites."""
    manifest = read_manifest(plain)
    remedy = f"export {models.checkpoint} again with --rewrites none"
    if manifest.source.sha256 != read_manifest(models.bundle).source.sha256:
        raise UsageError(f"{plain} and {models.bundle} were exported from different checkpoints; {remedy}")
    parity = parse(read_verified(plain, manifest, "parity.json"))
    if not isinstance(parity, dict) or parity.get("rewrites") != "none":
        raise UsageError(f"{plain} has rewrites; {remedy}")


def _existing(model: str) -> Path:
    if not Path(model).is_file():
        raise UsageError(f"there is no file {model}; name a checkpoint of galip (galip convert makes one)")
    return Path(model)
