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

__all__ = ["check_target", "grid", "save_animation", "save_picture"]

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}

Pictures = npt.NDArray[np.uint8]


def grid(pictures: Pictures, columns: int | None = None, gap: int = 2) -> Pictures:
    """Pictures, uint8 (N, H, W, 3), beside one another row by row: one picture, uint8 (H', W', 3).

    `columns`: None for as square as it gets; `gap`: white pixels between them.
    """
    count, height, width, channels = pictures.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def save_picture(picture: Pictures, path: str | os.PathLike[str]) -> None:
    """Write one picture, uint8 (H, W, 3), as PNG, JPEG or WebP by the file's ending. Raises UsageError."""
    kind = check_target(path, PICTURES)
    data = io.BytesIO()
    _pillow().fromarray(picture).save(data, kind, quality=95)
    write_atomically(path, data.getvalue())


def save_animation(pictures: Pictures, path: str | os.PathLike[str], seconds: float = 0.1) -> None:
    """Write pictures, uint8 (N, H, W, 3), as an endless GIF or WebP, `seconds` each. Raises UsageError."""
    kind = check_target(path, ANIMATIONS)
    first, *others = [_pillow().fromarray(picture) for picture in pictures]
    data = io.BytesIO()
    first.save(data, kind, save_all=True, append_images=others, duration=round(seconds * 1000), loop=0)
    write_atomically(path, data.getvalue())


def check_target(path: str | os.PathLike[str], kinds: dict[str, str] = PICTURES) -> str:
    """What will be written to `path` by its ending; worth asking before an hour's work.

    Raises UsageError where the ending is not one of `kinds`, Pillow is missing, or no file can be put there.
    """
    target = Path(path)
    kind = kinds.get(target.suffix.lower())
    if kind is None:
        raise UsageError(f"{target}: the ending {target.suffix!r} is unknown; use one of {', '.join(kinds)}")
    _pillow()
    check_writable(target)
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
