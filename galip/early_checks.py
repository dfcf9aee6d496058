"""Mistakes in paths, tags and names that are found before PyTorch is imported, which takes seconds.

Each check raises what the command itself would raise later, or passes. Passing promises nothing: what the
files hold is checked where they are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from galip_runtime.backends.devices import parse_device
from galip_runtime.bundle.manifest import MANIFEST_NAME, read_manifest
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import check_writable, open_regular

from galip.assets import checkpoint_path
from galip.checkpoint_info import is_galip_checkpoint, read_galip_info, read_info
from galip.clip_tags import find_pretrained, is_clip_path
from galip.config import ClipConfig, GalipConfig
from galip.data.sources import recognise
from galip.differences import describe_differences
from galip.headers import is_weights, weights_in
from galip.presets import preset

if TYPE_CHECKING:
    from galip.metrics.config import EvaluationConfig
    from galip.train.config import ContrastiveConfig, GanConfig

__all__ = [
    "check_captions",
    "check_clip",
    "check_contrastive",
    "check_conversion",
    "check_eager",
    "check_eager_options",
    "check_evaluation",
    "check_reference",
    "check_run",
    "check_same_towers",
    "check_training",
]


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
    if out.parent.is_dir():  # otherwise it is made
        check_writable(out)


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


def check_eager(checkpoint: Path, device: str, precision: str) -> None:
    """Check the arguments of `load_eager`. Raises as that does."""
    check_eager_options(device, precision)
    read_galip_info(checkpoint, needs=("text", "generator"))


def check_eager_options(device: str, precision: str) -> None:
    """Raise `UsageError` for a device or precision that eager PyTorch does not have here."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"eager PyTorch runs on cpu or cuda, not on {device!r}; export a bundle for that device"
        )
    if precision not in ("auto", "fp32"):
        raise UsageError(
            f"eager PyTorch runs in fp32 here, not in {precision!r}; export a bundle for that precision"
        )


def check_training(config: GanConfig, resume: bool) -> None:
    """Check the paths and names in the options of `galip train`. Raises `FileRefused` and `UsageError`."""
    shape = preset(config.model)
    check_run(Path(config.out), resume)
    check_clip(config.clip, shape.clip)
    if config.init:
        read_galip_info(checkpoint_path(config.init), needs=("generator",))
    recognise(Path(config.data), config.layout)
    if config.evaluate_every and config.evaluate_against:
        check_reference(Path(config.evaluate_against))


def check_contrastive(config: ContrastiveConfig, resume: bool) -> None:
    """Check the paths and names in the options of `galip train-clip`. Raises `UsageError`."""
    preset(config.model)
    check_run(Path(config.out), resume)
    recognise(Path(config.data), config.layout)


def check_run(out: Path, resume: bool) -> None:
    """Raise `UsageError` if `out` holds no run to `resume`, or one that is not to be resumed."""
    has_state = any((out / "states").glob("*.pt"))
    if resume and not has_state:
        raise UsageError(
            f"{out} holds no run to continue (no state was saved); check --out, or start a new run "
            "without --resume"
        )
    if has_state and not resume:
        raise UsageError(f"{out} already holds a run; --resume continues it, or choose another --out")


def check_evaluation(config: EvaluationConfig) -> None:
    """Check the paths and tags in the options of `galip evaluate`. Raises `FileRefused` and `UsageError`."""
    subject = Path(config.subject)
    if (subject / MANIFEST_NAME).exists():
        read_manifest(subject)
        if config.device != "auto":
            parse_device(config.device)
    elif not subject.is_dir():
        check_eager(subject, config.device, config.precision)
    check_reference(Path(config.against), config.layout)
    if config.clip:
        check_clip(config.clip)
    if config.captions:
        check_captions(Path(config.captions))
    if config.inception:
        open_regular(config.inception).close()
    if config.save_statistics:
        check_writable(config.save_statistics)


def _check_weights(path: Path) -> None:
    """Raise `FileRefused` unless `path` is a file that begins as files of weights do."""
    if not is_weights(path):
        raise FileRefused(
            f"{path} is not an intact file of weights: neither of torch.save nor of safetensors; it may be "
            "truncated or of another kind"
        )


def check_reference(path: Path, layout: str = "auto") -> None:
    """Check what pictures are compared with: statistics in an .npz, a data set or a folder of pictures."""
    if path.suffix.lower() == ".npz":
        open_regular(path).close()
    elif layout != "auto" or not path.is_dir():
        recognise(path, layout)


def check_captions(path: Path) -> None:
    """Raise `UsageError` if the file of captions cannot be opened."""
    try:
        open_regular(path).close()
    except FileRefused as error:
        raise UsageError(f"cannot read {path}: {error}; give a text file, a caption a line") from error
