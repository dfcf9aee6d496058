"""The options of the training commands: a frozen dataclass each, whose fields are the command's options.

Nothing heavy is imported here, so `galip train --help` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from galip_runtime.errors import UsageError

from galip.data.layouts import LAYOUTS

__all__ = ["ContrastiveConfig", "GanConfig"]

DIFF_AUGMENT = ("color", "translation", "cutout")
"""Names that `diff_augment` may have; `galip.train.augment` applies them."""

LEAST_PERCEPTUAL_SIZE = 16
"""Pixels, so that the third block's map still has 4."""


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


def _required(help: str) -> Any:
    return field(metadata={"help": help})


_EXCLUDE = "Leave out pictures whose JSON has KEY=VALUE, a number KEY>NUMBER (or none), or KEY set at all."


_MAX = {
    "steps": 10**9,
    "warmup_steps": 10**9,
    "paired_steps": 10**9,
    "log_every": 10**9,
    "save_every": 10**9,
    "evaluate_every": 10**9,
    "batch_size": 65_536,
    "accumulate": 65_536,
    "workers": 256,
    "keep": 100_000,
    "evaluate_count": 10_000_000,
    "clip_shift": 1024,
    "perceptual_size": 1024,
    "seed": 2**63,
}


def _check(
    config: ContrastiveConfig | GanConfig, positive: tuple[str, ...], not_negative: tuple[str, ...]
) -> None:
    for name in (*positive, *not_negative):
        value = getattr(config, name)
        least = 0 if name in not_negative else math.ulp(0.0)
        if (isinstance(value, float) and not math.isfinite(value)) or value < least:
            raise UsageError(f"{name} is {value}; it must be {'0 or more' if least == 0 else 'above 0'}")
    for name, most in _MAX.items():
        if getattr(config, name, 0) > most:
            raise UsageError(f"{name} is {getattr(config, name)!r:.40}; it must be at most {most:,}")
    if config.batch_size < 2:
        raise UsageError(f"batch_size is {config.batch_size}; mismatched pairs need at least 2")
    if config.device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device is {config.device!r}; choose auto, cpu or cuda")
    if config.precision not in ("auto", "bf16", "fp16", "fp32"):
        raise UsageError(f"precision is {config.precision!r}; choose auto, bf16, fp16 or fp32")


@dataclass(frozen=True)
class GanConfig:
    """A run of `galip train`. Departures from GALIP are off by default: pose, paired losses, range penalty,
    perceptual teacher.
    """

    data: str = _required("Folder of captioned pictures, in any layout of --layout.")
    clip: str = _required(
        "CLIP's towers: default (the shipped model's), a checkpoint of ours (of CLIP or GALIP), a file of "
        "OpenAI, transformers or open_clip or a folder with one, or an open_clip MODEL:TAG."
    )
    out: str = _required("Folder of the run; model.safetensors is written there.")
    init: str = _option(
        "",
        "GALIP checkpoint whose generator and discriminator to begin with, or default (the shipped model); "
        "one of smaller or larger pictures gives the blocks that both have.",
    )
    model: str = _option(
        "default", "Shape of generator and discriminator: default, default-64, released, tiny or table3-ROW."
    )
    layout: str = _option("auto", f"How the data is laid out: auto, {', '.join(LAYOUTS)}.")
    crop: str = _option(
        "exact",
        "exact: pictures of the model's size as they are, others centre-cropped; random: resized to 76/64, "
        "then a random crop, as released.",
    )
    flip: bool = _option(
        True,
        "Mirror real pictures half the time; off for text, maps and other things with a left and a right.",
    )
    caption_dropout: float = _option(0.0, "Share of captions replaced by the empty one.")
    diff_augment: tuple[str, ...] = _option(
        (), "DiffAugment of real and generated pictures, before CLIP: color, translation, cutout."
    )
    max_broken: float = _option(0.01, "Share of broken pictures above which the run stops.")
    workers: int = _option(0, "Processes that decode pictures, for each training process.")
    stream: str = _option("auto", "Read shards in a stream: auto (above 2 GiB), yes or no.")
    exclude: tuple[str, ...] = _option((), _EXCLUDE)
    steps: int = _option(10_000, "Optimizer steps.")
    batch_size: int = _option(32, "Pictures a step, over all processes.")
    accumulate: int = _option(1, "Parts in which a process works on its share of a batch, to save memory.")
    lr_g: float = _option(1e-4, "Generator's learning rate.")
    lr_d: float = _option(4e-4, "Discriminator's learning rate.")
    beta1: float = _option(0.0, "Adam's first decay, of both networks.")
    beta2: float = _option(0.9, "Adam's second decay, of both networks.")
    similarity_weight: float = _option(4.0, "λ of the paper's equation 1; a weak CLIP is fooled at 4, use 1.")
    penalty_weight: float = _option(2.0, "k of equation 1's gradient penalty.")
    penalty_power: float = _option(6.0, "p of equation 1's gradient penalty.")
    ema_decay: float = _option(0.999, "Decay of the moving average of the generator's weights.")
    warmup_steps: int = _option(
        0, "Steps at the start with the paired pixel loss alone: no CLIP, no discriminator."
    )
    warmup_lr: float = _option(
        1e-3,
        "Generator's learning rate as the warm-up begins; it falls to --lr-g. Adam's decays are 0.9, 0.99.",
    )
    paired_steps: int = _option(
        0, "Step at which the paired losses have faded out; 0: GALIP's losses from the start."
    )
    paired_pixel_weight: float = _option(
        30.0, "Before they fade, weight of the L1 distance to the real picture at 4 scales."
    )
    paired_feature_weight: float = _option(
        4.0, "Before they fade, weight of the squared distance of their CLIP maps."
    )
    range_weight: float = _option(0.0, "Weight of the mean square by which pixels leave [-1, 1].")
    pose: bool = _option(
        False,
        "Scale and shift real pictures by a function of the noise instead of mirroring them, so that paired "
        "losses teach the generator to use it.",
    )
    clip_shift: int = _option(0, "Shift pictures by up to so many pixels before the frozen CLIP tower.")
    perceptual: str = _option(
        "",
        "Perceptual teacher: file of VGG-16's first blocks and LPIPS's weights, as icons.perceptual_weights "
        "writes it.",
    )
    perceptual_weight: float = _option(
        0.0, "Weight of LPIPS beside the L1 distance: in the warm-up, and while the paired losses fade."
    )
    projected_weight: float = _option(
        0.0,
        "Weight of an additional adversarial loss, by heads on the perceptual teacher's maps as in Projected "
        "GAN.",
    )
    perceptual_size: int = _option(
        32, "Side in pixels of the square that the teacher sees, cut out at random; smaller is faster."
    )
    sample_prompts: tuple[str, ...] = _option(
        (), "Prompts of the sample grids; captions of the data if none."
    )
    evaluate_every: int = _option(0, "Steps between FID and CLIP score of the averaged generator; 0: never.")
    evaluate_against: str = _option(
        "", "What FID compares with: a data set, a folder of pictures or a statistics file; empty: the data."
    )
    evaluate_split: str = _option("train", "Its split.")
    evaluate_count: int = _option(2048, "Pictures to generate for it.")
    device: str = _option("auto", "auto (CUDA where there is one), cpu or cuda.")
    precision: str = _option("auto", "auto (bf16 where the hardware multiplies it), bf16, fp16 or fp32.")
    compile: bool = _option(False, "Compile the generator and CLIP's image tower with torch.compile.")
    seed: int = _option(0, "Seed of everything random.")
    log_every: int = _option(20, "Steps between log lines.")
    save_every: int = _option(500, "Steps between saved states, models and sample grids.")
    keep: int = _option(2, "Saved states kept, the newest ones.")

    def __post_init__(self) -> None:
        _check(
            self,
            (
                "steps",
                "lr_g",
                "lr_d",
                "warmup_lr",
                "penalty_power",
                "log_every",
                "save_every",
                "keep",
                "accumulate",
                "evaluate_count",
            ),
            (
                "similarity_weight",
                "penalty_weight",
                "ema_decay",
                "beta1",
                "beta2",
                "warmup_steps",
                "paired_steps",
                "paired_pixel_weight",
                "paired_feature_weight",
                "range_weight",
                "perceptual_weight",
                "projected_weight",
                "clip_shift",
                "seed",
                "caption_dropout",
                "max_broken",
                "workers",
                "evaluate_every",
            ),
        )
        for name in ("ema_decay", "beta1", "beta2", "caption_dropout"):
            if getattr(self, name) >= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be below 1")
        for name, choices in (("crop", ("exact", "random")), ("stream", ("auto", "yes", "no"))):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} is {getattr(self, name)!r}; choose {' or '.join(choices)}")
        for name in self.diff_augment:
            if name not in DIFF_AUGMENT:
                raise UsageError(f"diff_augment has {name!r}; choose of {', '.join(DIFF_AUGMENT)}")
        _check_perceptual(self)


def _check_perceptual(config: GanConfig) -> None:
    """Raise `UsageError` unless the teacher is given exactly where a weight wants it, and sees enough."""
    if (config.perceptual_weight or config.projected_weight) and not config.perceptual:
        raise UsageError("perceptual_weight and projected_weight need a teacher; give its file: --perceptual")
    is_paired = bool(config.warmup_steps or config.paired_steps)
    if config.perceptual and not (config.projected_weight or (config.perceptual_weight and is_paired)):
        raise UsageError(
            "perceptual is given but not used; set projected_weight above 0, or perceptual_weight together "
            "with warmup_steps or paired_steps, since it counts only while the pixel loss does"
        )
    if config.perceptual_size < LEAST_PERCEPTUAL_SIZE:
        raise UsageError(
            f"perceptual_size is {config.perceptual_size}; it must be at least {LEAST_PERCEPTUAL_SIZE}"
        )


def _as_in_gan(name: str) -> Any:
    """Return an option that `galip train` has, too: with the same default and help."""
    option = GanConfig.__dataclass_fields__[name]
    return _option(option.default, option.metadata["help"])


@dataclass(frozen=True)
class ContrastiveConfig:
    """A run of `galip train-clip`."""

    data: str = _required("Folder of captioned pictures, in any layout of --layout.")
    out: str = _required("Folder of the run; clip.safetensors is written there.")
    model: str = _option("default", "Whose CLIP towers to train: default, released or tiny.")
    init: str = _option(
        "", "Towers to begin with: default (the shipped model's), or what galip train takes as --clip."
    )
    lock_image: bool = _option(
        False,
        "Keep the image tower of --init as it is, except its head when whitening: a GALIP that was trained "
        "with it can then go on with the new text tower.",
    )
    layout: str = _as_in_gan("layout")
    crop: str = _as_in_gan("crop")
    max_broken: float = _as_in_gan("max_broken")
    steps: int = _option(600, "Optimizer steps.")
    batch_size: int = _option(256, "Pictures a step.")
    lr: float = _option(
        1e-3, "Peak learning rate of AdamW: warm-up over a twentieth of the steps, cosine to zero."
    )
    weight_decay: float = _option(0.1, "Weight decay, of matrices only.")
    patch_dropout: float = _option(
        0.5, "Share of patches dropped during the first three quarters of the steps; none with --lock-image."
    )
    whiten: bool = _option(
        False,
        "At the end whiten the sentence vectors, so that a generator can tell apart what towers trained on "
        "few pictures hardly do; with --init also turn them back as near as possible to those of --init.",
    )
    teacher: str = _option(
        "",
        "File of texts and of a sentence encoder's vectors for them, which the text tower learns beside the "
        "captions, so that it knows words that no caption has.",
    )
    teacher_weight: float = _option(
        1.0, "Weight of the teacher's loss; each step has as many texts as pictures."
    )
    exclude: tuple[str, ...] = _option((), _EXCLUDE)
    device: str = _option("auto", "auto (CUDA where there is one), cpu or cuda.")
    precision: str = _option("auto", "auto (bf16 where the hardware multiplies it), bf16 or fp32.")
    seed: int = _option(0, "Seed of everything random.")
    log_every: int = _option(20, "Steps between log lines.")
    save_every: int = _option(200, "Steps between saved states.")

    def __post_init__(self) -> None:
        _check(
            self,
            ("steps", "lr", "log_every", "save_every"),
            ("weight_decay", "patch_dropout", "teacher_weight", "seed", "max_broken"),
        )
        if self.crop not in ("exact", "random"):
            raise UsageError(f"crop is {self.crop!r}; choose exact or random")
        if self.lock_image and not self.init:
            raise UsageError("lock_image keeps the image tower of init; give its file: --init")
        if self.precision == "fp16":
            raise UsageError("precision is 'fp16'; CLIP's towers train in bf16 or fp32 (or auto)")
        if self.patch_dropout >= 1:
            raise UsageError(f"patch_dropout is {self.patch_dropout}; it must be below 1")
        if self.max_broken > 1:
            raise UsageError(f"max_broken is {self.max_broken}; it is a share, 0 to 1")
