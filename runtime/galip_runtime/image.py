"""Pictures as files, each written whole or not at all, and as Pillow's images."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.errors import UsageError
from galip_runtime.files import check_writable, write_atomically
from galip_runtime.install import install_extra

__all__ = [
    "as_pil_images",
    "check_duration",
    "check_size",
    "check_target",
    "encode_animation",
    "encode_picture",
    "encode_png",
    "grid",
    "grid_size",
    "picture_metadata",
    "save_animation",
    "save_picture",
]

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}
MAX_PIXELS = 178_956_970
"""The limit for a file, all frames together: Pillow refuses to open larger pictures."""
_LONGEST_SIDE = {"PNG": 1_000_000, "JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535}
"""Pixels, by format; PNG's is the most that libpng reads."""
_LONGEST_SECONDS = {"GIF": 655, "WEBP": 16_777}
"""Of one picture: 16 bits of hundredths, 24 bits of thousandths."""
_GAP = 2
_QUALITY = 95
_RUNS_ONLY = 3
"""zlib's Z_RLE: generated pictures become smaller PNGs than with its default, in a quarter of the time."""
_FAST_LOSSLESS = {"method": 1, "quality": 20}
"""A tenth larger than Pillow's default, in a quarter of the time."""

Pictures = npt.NDArray[np.uint8]


def grid(pictures: Pictures, columns: int | None = None, gap: int = _GAP) -> Pictures:
    """Arrange pictures, uint8 (N, H, W, 3), row by row in one picture, uint8 (H', W', 3).

    `columns`: None for a grid as square as possible; `gap`: white pixels between pictures.
    """
    count, height, width, channels = pictures.shape
    columns = columns or math.ceil(math.sqrt(count))
    sheet = np.full((*grid_size(count, height, width, columns, gap), channels), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def grid_size(
    count: int, height: int, width: int, columns: int | None = None, gap: int = _GAP
) -> tuple[int, int]:
    """Return height and width of the `grid` of `count` pictures of `height` by `width` pixels."""
    columns = columns or math.ceil(math.sqrt(count))
    return -(-count // columns) * (height + gap) - gap, columns * (width + gap) - gap


def check_size(
    path: str | os.PathLike[str],
    height: int,
    width: int,
    frames: int = 1,
    kinds: dict[str, str] = PICTURES,
) -> None:
    """Raise UsageError if a picture, or an animation of `frames`, of this size would be an unreadable file.

    Call it before generating the pictures.
    """
    kind = _kind(Path(path), kinds)
    longest = _LONGEST_SIDE[kind]
    if max(height, width) > longest:
        raise UsageError(
            f"{path} would be {width:,}x{height:,} pixels, and {kind} allows at most {longest:,} a side; ask "
            "for fewer pictures or for another format"
        )
    if height * width * frames > MAX_PIXELS:
        pictures = f"{frames:,} pictures of " if frames > 1 else ""
        raise UsageError(
            f"{path} would hold {pictures}{width:,}x{height:,} pixels, and most programs open at most "
            f"{MAX_PIXELS:,} in all; ask for fewer pictures"
        )


def save_picture(
    picture: Pictures, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a picture, uint8 (H, W, 3), as PNG, JPEG or WebP by the file's suffix. Raises UsageError.

    `metadata`: texts by keyword for a PNG's text chunks; the other formats go without.
    """
    kind = check_target(path, PICTURES)
    height, width = picture.shape[:2]
    check_size(path, height, width)
    write_atomically(path, encode_picture(picture, kind, metadata))


def encode_png(picture: Pictures, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a picture, uint8 (H, W, 3), as the bytes of a PNG file. Raises UsageError without Pillow."""
    return encode_picture(picture, "PNG", metadata)


def encode_picture(
    picture: Pictures, kind: str, metadata: Mapping[str, str] | None = None, quality: int = _QUALITY
) -> bytes:
    """Return a picture, uint8 (H, W, 3), as the bytes of a file of `kind`: PNG, JPEG or WEBP.

    `metadata`: texts by keyword for a PNG's text chunks; the other formats go without. `quality`: of a JPEG
    or WEBP, from 0 (smallest) to 100; a PNG is lossless. Raises UsageError without Pillow.
    """
    image, options = _pillow().fromarray(picture), dict[str, Any](quality=quality)
    if kind == "PNG":
        options = {"compress_type": _RUNS_ONLY, "pnginfo": _text_chunks(metadata or {})}
    return _saved(image, kind, **options)


def encode_animation(pictures: Pictures, kind: str, seconds: float = 0.1, *, lossless: bool = False) -> bytes:
    """Return pictures, uint8 (N, H, W, 3), as the bytes of an endless GIF or WEBP, `seconds` each.

    `lossless`: a WEBP with exactly these pixels. A GIF has at most 256 colours a picture either way. Raises
    UsageError as `check_duration`, and without Pillow.
    """
    check_duration(kind, len(pictures), seconds)
    first, *others = as_pil_images(pictures)
    options: dict[str, Any] = {"duration": round(seconds * 1000), "loop": 0}
    if kind == "WEBP" and lossless:
        options |= {"lossless": True, **_FAST_LOSSLESS}
    return _saved(first, kind, save_all=True, append_images=others, **options)


def check_duration(kind: str, count: int, seconds: float) -> None:
    """Raise UsageError if an animation of `kind`, `count` pictures of `seconds` each, would be too long.

    Equal pictures become one that is shown for all of their time, which the formats limit.
    """
    longest = _LONGEST_SECONDS[kind]
    if not 0 <= count * seconds <= longest:
        raise UsageError(
            f"{count:,} pictures of {seconds:g} seconds each do not fit into a {kind}, which shows a picture "
            f"for {longest:,} seconds at most; show each for a shorter time"
        )


def as_pil_images(pictures: Pictures) -> list[Any]:
    """Return pictures, uint8 (N, H, W, 3), as Pillow's images. Raises UsageError without Pillow."""
    return [_pillow().fromarray(picture) for picture in pictures]


def picture_metadata(
    prompts: Sequence[str], seeds: Sequence[int], truncation: float | None, digest: str | None
) -> dict[str, str]:
    """Return what a PNG should say of how its pictures were generated, texts by keyword.

    `prompts` and `seeds` are listed without repetitions, prompts a line each; `digest` is the bundle's.
    """
    metadata = {
        "prompt": "\n".join(dict.fromkeys(prompts)),
        "seed": ", ".join(dict.fromkeys(map(str, seeds))),
        "truncation": "" if truncation is None else str(truncation),
        "bundle": digest or "",
    }
    return {keyword: text for keyword, text in metadata.items() if text}


def save_animation(pictures: Pictures, path: str | os.PathLike[str], seconds: float = 0.1) -> None:
    """Write pictures, uint8 (N, H, W, 3), as an endless GIF or WebP, `seconds` each. Raises UsageError."""
    kind = check_target(path, ANIMATIONS)
    count, height, width = pictures.shape[:3]
    check_size(path, height, width, count, ANIMATIONS)
    write_atomically(path, encode_animation(pictures, kind, seconds))


def check_target(path: str | os.PathLike[str], kinds: dict[str, str] = PICTURES) -> str:
    """Return the format that will be written to `path`, by its suffix. Call it before an hour's work.

    Raises UsageError if the suffix is not one of `kinds`, Pillow is missing, or the file cannot be written.
    """
    kind = _kind(Path(path), kinds)
    _pillow()
    check_writable(path)
    return kind


def _text_chunks(metadata: Mapping[str, str]) -> Any:
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for keyword, text in metadata.items():
        # UTF-8 has no lone surrogates, which a prompt may have
        chunks.add_itxt(keyword, text.encode(errors="replace").decode())
    return chunks


def _saved(image: Any, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def _kind(path: Path, kinds: dict[str, str]) -> str:
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: the suffix {path.suffix!r} is unknown; use one of {', '.join(kinds)}")
    return kind


def _pillow() -> ModuleType:
    try:
        import PIL.Image
    except ImportError as error:
        raise UsageError(
            f"writing pictures needs Pillow ({error}): {install_extra('image')}, or use the arrays that "
            "generate returns"
        ) from error
    return PIL.Image
