"""Pictures to files. A file is written whole or not at all."""

import io
import math
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from galip_runtime.errors import UsageError
from galip_runtime.files import check_writable, write_atomically

__all__ = ["check_size", "check_target", "grid", "grid_size", "save_animation", "save_picture"]

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}
MAX_PIXELS = 178_956_970
"""Of a file, all frames together: Pillow refuses to open larger pictures."""
_LONGEST_SIDE = {"PNG": 1_000_000, "JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535}
"""Pixels; that of PNG is what libpng reads."""
_GAP = 2

Pictures = npt.NDArray[np.uint8]


def grid(pictures: Pictures, columns: int | None = None, gap: int = _GAP) -> Pictures:
    """Pictures, uint8 (N, H, W, 3), beside one another row by row: one picture, uint8 (H', W', 3).

    `columns`: None for as square as it gets; `gap`: white pixels between them.
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
    """Height and width of the `grid` of `count` pictures of `height` by `width` pixels."""
    columns = columns or math.ceil(math.sqrt(count))
    return -(-count // columns) * (height + gap) - gap, columns * (width + gap) - gap


def check_size(
    path: str | os.PathLike[str],
    height: int,
    width: int,
    frames: int = 1,
    kinds: dict[str, str] = PICTURES,
) -> None:
    """Raise UsageError if a picture, or an animation of `frames`, of so many pixels makes no readable file.

    Ask before the pictures are drawn.
    """
    kind = _kind(Path(path), kinds)
    longest = _LONGEST_SIDE[kind]
    if max(height, width) > longest:
        raise UsageError(
            f"{path} would be {width:,}x{height:,} pixels, and {kind} has at most {longest:,} a side; ask "
            "for fewer pictures, or for another format"
        )
    if height * width * frames > MAX_PIXELS:
        pictures = f"{frames:,} pictures of " if frames > 1 else ""
        raise UsageError(
            f"{path} would hold {pictures}{width:,}x{height:,} pixels, and more than {MAX_PIXELS:,} in all "
            "are not opened by most programs; ask for fewer pictures"
        )


def save_picture(picture: Pictures, path: str | os.PathLike[str]) -> None:
    """Write one picture, uint8 (H, W, 3), as PNG, JPEG or WebP by the file's ending. Raises UsageError."""
    kind = check_target(path, PICTURES)
    height, width = picture.shape[:2]
    check_size(path, height, width)
    data = io.BytesIO()
    _pillow().fromarray(picture).save(data, kind, quality=95)
    write_atomically(path, data.getvalue())


def save_animation(pictures: Pictures, path: str | os.PathLike[str], seconds: float = 0.1) -> None:
    """Write pictures, uint8 (N, H, W, 3), as an endless GIF or WebP, `seconds` each. Raises UsageError."""
    kind = check_target(path, ANIMATIONS)
    count, height, width = pictures.shape[:3]
    check_size(path, height, width, count, ANIMATIONS)
    first, *others = [_pillow().fromarray(picture) for picture in pictures]
    data = io.BytesIO()
    first.save(data, kind, save_all=True, append_images=others, duration=round(seconds * 1000), loop=0)
    write_atomically(path, data.getvalue())


def check_target(path: str | os.PathLike[str], kinds: dict[str, str] = PICTURES) -> str:
    """What will be written to `path` by its ending; worth asking before an hour's work.

    Raises UsageError where the ending is not one of `kinds`, Pillow is missing, or no file can be put there.
    """
    kind = _kind(Path(path), kinds)
    _pillow()
    check_writable(path)
    return kind


def _kind(path: Path, kinds: dict[str, str]) -> str:
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: the ending {path.suffix!r} is unknown; use one of {', '.join(kinds)}")
    return kind


def _pillow() -> ModuleType:
    try:
        import PIL.Image
    except ImportError as error:
        raise UsageError(
            f"writing pictures needs Pillow ({error}): pip install 'galip-runtime[image]', "
            "or use the arrays that generate returns"
        ) from error
    return PIL.Image
