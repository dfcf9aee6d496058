"""Mistakes in paths, tags and names that are found before PyTorch is imported, which takes seconds.

Each check raises what the command itself would raise later, or passes. Passing promises nothing: what the
files hold is checked where they are read.
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from galip_runtime.backends.devices import candidates, parse_device, thread_count
from galip_runtime.bundle.manifest import MANIFEST_NAME, read_manifest
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import check_writable, open_regular, staging_folder
from galip_runtime.loading import choose_precision
from galip_runtime.ray_cluster import check_address, no_ray
from galip_runtime.tokenizer import check_prompt

from galip.assets import checkpoint_path
from galip.checkpoint_info import is_galip_checkpoint, read_galip_info, read_info
from galip.clip_tags import find_pretrained, is_clip_path
from galip.config import ClipConfig, GalipConfig
from galip.data.conditions import check_conditions
from galip.data.layouts.folder import split_folders
from galip.data.layouts.shards import check_readers, is_streamed, shards_of_split
from galip.data.sources import find_split, readable, recognise
from galip.data.texts import read_captions
from galip.differences import describe_differences
from galip.headers import is_weights, read_header, weights_in
from galip.metrics.config import check_metrics
from galip.presets import preset
from galip.torch_build import check_cuda

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galip.metrics.config import EvaluationConfig
    from galip.train.config import ContrastiveConfig, GanConfig

__all__ = [
    "TRAIN_ON_CPU",
    "USE_CPU",
    "check_batch_size",
    "check_clip",
    "check_contrastive",
    "check_conversion",
    "check_eager",
    "check_eager_options",
    "check_evaluation",
    "check_folder",
    "check_initial",
    "check_prompts",
    "check_ray",
    "check_reference",
    "check_run",
    "check_same_towers",
    "check_training",
    "world_size",
]

USE_CPU = "use --device cpu"
TRAIN_ON_CPU = "check the driver and that this is a CUDA build of PyTorch, or train with --device cpu"
"""What to do without a CUDA device."""


def check_conversion(released: Path, clip: str | None, out: Path, allow_missing_text: bool) -> None:
    """Check the arguments of `galip convert`. Raises `FileRefused` and `UsageError`."""
    if clip is None and not allow_missing_text:
        raise UsageError(
            "released GALIP files have no text encoder: give --clip with CLIP ViT-B/32's weights "
            "(OpenAI's ViT-B-32.pt, transformers' or open_clip's file or folder, or the tag openai), or "
            "--allow-missing-text to do without"
        )
    _check_weights(released)
    if clip is not None:
        check_clip(clip)
    if out.parent.is_dir():
        check_writable(out)
    else:  # it is made
        check_folder(out.parent)


def check_clip(clip: str, required: ClipConfig | None = None) -> None:
    """Check what `--clip` names. `required`: the dimensions of the towers, as far as the file tells them.

    Raises `FileRefused` for a path that holds no weights and for a tag that is out of reach, `UsageError` for
    an unknown tag or other dimensions.
    """
    path = checkpoint_path(clip)
    if is_galip_checkpoint(path):
        info = read_info(path)
        if required is not None:
            config = info.config.clip if isinstance(info.config, GalipConfig) else info.config
            check_same_towers(clip, config, required)
    elif not is_clip_path(clip):
        find_pretrained(clip).check_reachable()
    elif path.is_dir():
        weights_in(path)
    else:
        _check_weights(path)


def check_same_towers(source: str, config: ClipConfig, required: ClipConfig) -> None:
    """Raise `UsageError` unless the towers of `source` have the dimensions `required`."""
    if config != required:
        raise UsageError(
            f"{source} has other towers than the preset: {describe_differences(config, required)}; give "
            "towers of the preset's shape"
        )


def check_eager(checkpoint: Path, device: str, precision: str, threads: int | None = None) -> GalipConfig:
    """Check the arguments of `load_eager`; return the checkpoint's config. Raises as that does."""
    check_eager_options(device, precision, threads)
    check_cuda(device, USE_CPU)
    config = read_galip_info(checkpoint, needs=("text", "generator")).config
    assert isinstance(config, GalipConfig)
    return config


def check_eager_options(device: str, precision: str, threads: int | None = None) -> None:
    """Raise `UsageError` for a device, precision or number of threads that eager PyTorch does not have."""
    thread_count(threads)
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"eager PyTorch runs on cpu or cuda, not on {device!r}; export a bundle for that device"
        )
    if precision not in ("auto", "fp32"):
        raise UsageError(
            f"eager PyTorch runs in fp32 here, not in {precision!r}; export a bundle for that precision"
        )


def check_training(config: GanConfig, resume: bool) -> None:
    """Check the paths and names in the options of `galip train`.

    Raises `FileRefused`, `UsageError` and `ProviderUnavailable`.
    """
    shape = preset(config.model)
    check_run(Path(config.out), resume)
    check_cuda(config.device, TRAIN_ON_CPU)
    check_clip(config.clip, shape.clip)
    if config.init:
        check_initial(checkpoint_path(config.init), shape)
    if config.perceptual:
        read_header(Path(config.perceptual))
    data = Path(config.data)
    layout = recognise(data, config.layout)
    split = find_split(data, "train", layout)
    if is_streamed(data, split, layout, config.stream):
        check_readers(shards_of_split(data, split), world_size() * max(config.workers, 1))
    check_conditions(config.exclude)
    check_batch_size(config.batch_size, config.accumulate)
    check_prompts(config.sample_prompts)
    if config.evaluate_every:
        against = Path(config.evaluate_against or config.data)
        layout = "auto" if config.evaluate_against else layout
        check_reference(against, layout, config.evaluate_split, captioned=True)


def check_initial(path: Path, required: GalipConfig) -> None:
    """Check the checkpoint of `--init`: it has the shape `required`, perhaps with fewer or more blocks.

    Raises `FileRefused` and `UsageError`.
    """
    config = read_galip_info(path, needs=("generator",)).config
    assert isinstance(config, GalipConfig)
    blocks = min(len(config.generator.sizes), len(required.generator.sizes))
    differences = describe_differences(_first_blocks(config, blocks), _first_blocks(required, blocks))
    if differences:
        raise UsageError(
            f"{path} has another shape than the preset: {differences}. It may differ only in having fewer or "
            "more blocks at its end, for smaller or larger pictures"
        )


def _first_blocks(config: GalipConfig, blocks: int) -> GalipConfig:
    """Return `config` with the first generation blocks only."""
    generator = config.generator
    channels, sizes = generator.channels[: blocks + 1], generator.sizes[:blocks]
    return replace(config, generator=replace(generator, channels=channels, sizes=sizes))


def check_contrastive(config: ContrastiveConfig, resume: bool) -> None:
    """Check the paths and names in the options of `galip train-clip`.

    Raises `FileRefused`, `UsageError` and `ProviderUnavailable`.
    """
    shape = preset(config.model)
    check_run(Path(config.out), resume)
    check_cuda(config.device, TRAIN_ON_CPU)
    if config.init:
        check_clip(config.init, shape.clip)
    if config.teacher:
        read_header(Path(config.teacher))
    find_split(Path(config.data), "train", recognise(Path(config.data), config.layout))
    check_conditions(config.exclude)


def world_size() -> int:
    """Return how many processes torchrun started for this run; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_ray(address: str) -> None:
    """Check what `--ray` names. Raises `UsageError` for another form of address and under torchrun,
    `ProviderUnavailable` without Ray.
    """
    check_address(address)
    if world_size() > 1:
        raise UsageError("torchrun and --ray both divide the work; use one of them")
    if find_spec("ray") is None:
        raise no_ray()


def check_batch_size(size: int, accumulate: int = 1) -> None:
    """Raise `UsageError` unless a batch of `size` divides evenly among all processes and their parts."""
    parts = world_size() * accumulate
    if size % parts:
        raise UsageError(
            f"batch_size is {size}, which {world_size()} processes can't share in {accumulate} parts each; "
            f"choose a multiple of {parts}"
        )


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise `UsageError` for a prompt that no tokenizer takes."""
    for prompt in prompts:
        check_prompt(prompt)


def check_run(out: Path, resume: bool) -> None:
    """Raise `UsageError` if `out` holds no run to `resume`, or one that is not to be resumed, or if it cannot
    be written.
    """
    has_state = any((out / "states").glob("*.pt"))
    if resume and not has_state:
        raise UsageError(
            f"{out} holds no run to continue (no state was saved); check --out, or start a new run "
            "without --resume"
        )
    if has_state and not resume:
        raise UsageError(f"{out} already holds a run; --resume continues it, or choose another --out")
    check_folder(out)


def check_folder(folder: Path) -> None:
    """Raise `UsageError` if nothing can be written to `folder`, or to the one above in which it is made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    try:
        with staging_folder(existing):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}; choose a folder you may write to"
        ) from error


def check_evaluation(config: EvaluationConfig) -> None:
    """Check the paths, tags and names in the options of `galip evaluate`.

    Raises `FileRefused`, `UsageError` and `ProviderUnavailable`.
    """
    if config.ray:
        check_ray(config.ray)
    subject = Path(config.subject)
    is_bundle = (subject / MANIFEST_NAME).exists()
    is_checkpoint = not is_bundle and not subject.is_dir()
    if is_bundle:
        _check_bundle(subject, config.device, config.precision)
    elif is_checkpoint:
        check_eager(subject, config.device, config.precision, config.threads)
    has_model = is_bundle or is_checkpoint
    captioned = has_model and not config.captions
    check_reference(Path(config.against), config.layout, config.split, captioned)
    check_metrics(config, has_model)
    check_conditions(config.exclude)
    if config.clip:
        check_clip(config.clip)
    if config.captions:
        read_captions(Path(config.captions))
    if config.inception:
        open_regular(config.inception).close()
    if config.save_statistics:
        check_writable(config.save_statistics)


def _check_bundle(path: Path, device: str, precision: str) -> None:
    """Check the arguments of `galip_runtime.load`. Raises as that does."""
    manifest = read_manifest(path)
    name, _ = parse_device(device)
    candidates(name, choose_precision(manifest, "generator", precision, name))


def _check_weights(path: Path) -> None:
    """Raise `FileRefused` unless `path` is a file that begins as files of weights do."""
    if not is_weights(path):
        raise FileRefused(
            f"{path} is not an intact file of weights: neither of torch.save nor of safetensors; it may be "
            "truncated or of another kind"
        )


def check_reference(path: Path, layout: str = "auto", split: str = "train", captioned: bool = False) -> None:
    """Check what pictures are compared with: statistics in an .npz, a data set or a folder of pictures.

    `captioned`: whether it has to be a data set. Raises `FileRefused` and `UsageError`.
    """
    if path.suffix.lower() == ".npz":
        open_regular(path).close()
        return
    layout = recognise(path, layout)
    with readable(path):
        has_splits = captioned or layout != "folder" or split_folders(path)
    if has_splits:  # plain pictures are taken as they are, whatever the split
        find_split(path, split, layout)
