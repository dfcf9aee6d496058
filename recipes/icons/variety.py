"""Whether seeds differ in more than pose: LPIPS of pairs of pictures once scale and place are undone.

Two seeds of one prompt are set beside real pictures of one thing in two styles, real pictures of two things,
and one real picture in two poses, which is what aligning leaves over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from galip_runtime.text_to_image import TextToImage
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from icons.colours import foreground

__all__ = ["PAIRS", "Distance", "centred", "measure_variety", "posed", "register"]

SIDE = 144
LONGEST = 112
"""Side of an aligned picture and the longer side of the thing in it, pixels."""
SCALES = tuple(np.geomspace(0.92, 1.087, 7))
MOST_SHIFT = 8
"""What `register` tries beyond the bounding boxes, which a shadow or a speck can widen."""

PAIRS = {
    "seeds": "two seeds of one prompt",
    "seeds_unaligned": "the same, not aligned",
    "styles": "one thing in two styles, one seed",
    "things": "two things in one style, one seed",
    "real_pose": "one real picture in two poses",
    "real_styles": "real pictures of one thing in two styles",
    "real_things": "real pictures of two things in one style",
}
"""Kinds of pairs that are measured, and their names in the card."""

Picture = NDArray[np.uint8]
Pair = tuple[Picture, Picture]
Distance = Callable[[Picture, Picture], float]
"""LPIPS of two pictures uint8 (S, S, 3)."""


def centred(picture: Picture) -> Picture:
    """Return a picture uint8 (S, S, 3) with its thing `LONGEST` pixels long, amid a white square of `SIDE`.

    The thing is what isn't background, without specks that a hair of three pixels would be.
    """
    thing = ndimage.binary_opening(foreground(picture), np.ones((3, 3)))
    if not thing.any():
        thing = np.ones_like(thing)
    (rows, columns), *_ = ndimage.find_objects(thing.astype(np.uint8))
    box = (columns.start, rows.start, columns.stop, rows.stop)
    return _placed(picture, box, LONGEST / max(columns.stop - columns.start, rows.stop - rows.start), SIDE)


def register(moving: Picture, fixed: Picture) -> Picture:
    """Return `moving`, scaled and shifted a little so that it correlates best with `fixed`, both (S, S, 3).

    Scales in `SCALES` and shifts up to `MOST_SHIFT` pixels each way are all tried, by Fourier transforms.
    White counts as nothing.
    """
    shape = (2 * MOST_SHIFT + 1,) * 2
    target = np.conj(np.fft.rfft2(_ink(fixed), axes=(0, 1)))
    best, aligned = -1.0, moving
    for scale in SCALES:
        scaled = _placed(moving, (0, 0, moving.shape[1], moving.shape[0]), scale, len(moving))
        ink = _ink(scaled)
        products = (np.fft.rfft2(ink, axes=(0, 1)) * target).sum(axis=2)
        correlation = np.fft.irfft2(products, s=ink.shape[:2]) / max(float(np.linalg.norm(ink)), 1e-9)
        # correlation at [d] is that of `scaled` moved back by d
        window = np.roll(correlation, (MOST_SHIFT, MOST_SHIFT), axis=(0, 1))[: shape[0], : shape[1]]
        y, x = np.unravel_index(window.argmax(), shape)
        if window[y, x] > best:
            best, aligned = float(window[y, x]), _shifted(scaled, MOST_SHIFT - int(y), MOST_SHIFT - int(x))
    return aligned


def posed(picture: Picture, scale: float, down: int, right: int) -> Picture:
    """Return a picture uint8 (S, S, 3) scaled about its middle, then shifted by pixels; white moves in."""
    whole = (0, 0, picture.shape[1], picture.shape[0])
    return _shifted(_placed(picture, whole, scale, len(picture)), down, right)


def _placed(picture: Picture, box: tuple[int, int, int, int], scale: float, side: int) -> Picture:
    """Return what is in `box` (left, top, right, bottom), scaled, in the middle of white (side, side, 3)."""
    width, height = (max(1, round((box[i + 2] - box[i]) * scale)) for i in (0, 1))
    part = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC, box=box)
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(part, ((side - width) // 2, (side - height) // 2))
    return np.asarray(canvas)


def _shifted(picture: Picture, down: int, right: int) -> Picture:
    return ndimage.shift(picture, (down, right, 0), order=0, cval=255)


def _ink(picture: Picture) -> NDArray[np.float64]:
    return 1 - picture / 255


def measure_variety(
    model: TextToImage,
    prompts: Mapping[str, str],
    real: Mapping[tuple[str, str], Picture],
    distance: Distance,
    styles: Sequence[str],
    count: int = 40,
) -> dict[str, Any]:
    """Measure the mean distance of up to `count` pairs of each kind in `PAIRS`; fit for JSON.

    `prompts`: without a style, by thing. `real`: pictures by thing and style. The n-th thing is taken in the
    n-th of the styles it is drawn in, counted round, if these are two or more. `share` is what the noise
    changes beyond pose, by what styles change in real pictures of one thing: the distance of seeds less that
    of poses, over the distance of styles less that of poses.
    """
    drawn = {thing: [style for style in styles if (thing, style) in real] for thing in prompts}
    chosen = [
        (thing, names[i % len(names)]) for i, (thing, names) in enumerate(drawn.items()) if len(names) > 1
    ]
    pairs = {
        **_made_pairs(model, prompts, chosen, drawn),
        "real_pose": _pose_pairs([real[key] for key in chosen]),
        "real_styles": (
            (real[thing, style], real[thing, _next(drawn[thing], style)]) for thing, style in chosen
        ),
        "real_things": (
            (real[thing, style], real[other, style])
            for (thing, style), (other, _) in zip(chosen, chosen[1:] + chosen[:1], strict=True)
            if (other, style) in real
        ),
    }
    result: dict[str, Any] = {"lpips": {}, "pairs": {}}
    for kind in PAIRS:
        align = kind != "seeds_unaligned"
        distances = [distance(*(_aligned(*pair) if align else pair)) for pair in islice(pairs[kind], count)]
        result["lpips"][kind] = float(np.mean(distances))
        result["pairs"][kind] = len(distances)
    means = result["lpips"]
    floor = means["real_pose"]
    return {"share": (means["seeds"] - floor) / (means["real_styles"] - floor), **result}


def _next(styles: Sequence[str], style: str) -> str:
    return styles[(styles.index(style) + 1) % len(styles)]


def _made_pairs(
    model: TextToImage,
    prompts: Mapping[str, str],
    chosen: Sequence[tuple[str, str]],
    drawn: Mapping[str, Sequence[str]],
) -> dict[str, Iterator[Pair]]:
    """Return the pairs of made pictures: the first seed is 0, the other, if there are two, 1."""

    def made(things_and_styles: Sequence[tuple[str, str]], seed: int) -> NDArray[np.uint8]:
        return model.generate(
            [f"{prompts[thing]}, {style}" for thing, style in things_and_styles], seeds=seed
        )

    first, other_seed = made(chosen, 0), made(chosen, 1)
    other_style = made([(thing, _next(drawn[thing], style)) for thing, style in chosen], 0)
    things = [thing for thing, _ in chosen]
    others = zip(things[1:] + things[:1], (style for _, style in chosen), strict=True)
    return {
        "seeds": zip(first, other_seed, strict=True),
        "seeds_unaligned": zip(first, other_seed, strict=True),
        "styles": zip(first, other_style, strict=True),
        "things": zip(first, made(list(others), 0), strict=True),
    }


def _pose_pairs(pictures: Sequence[Picture]) -> Iterator[Pair]:
    """Yield each picture with itself in another pose, as training draws poses, from a fixed seed."""
    random = np.random.default_rng(0)
    for picture in pictures:
        most = round(0.04 * len(picture))
        down, right = random.integers(-most, most, size=2, endpoint=True)
        yield picture, posed(picture, random.uniform(0.8, 1), int(down), int(right))


def _aligned(first: Picture, second: Picture) -> Pair:
    target = centred(first)
    return target, register(centred(second), target)
