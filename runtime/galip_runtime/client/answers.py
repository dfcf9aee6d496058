"""How the clients read the service's answers: plain functions, without a network."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from galip_runtime.client.requests import MAX_PER_REQUEST, Request
from galip_runtime.errors import GalipError

if TYPE_CHECKING:
    import httpx

__all__ = [
    "Pictures",
    "image_size_of",
    "joined",
    "model_of",
    "most_per_request",
    "pictures_of",
    "png_of",
    "sheet_of",
]

_PNG = b"\x89PNG\r\n\x1a\n"
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")
_MAX_QUOTED = 200  # characters

Pictures = npt.NDArray[np.uint8]


def model_of(response: httpx.Response) -> dict[str, Any]:
    """Return the entry of the service's model in the answer to `MODELS`. Raises GalipError."""
    entries = _json(response).get("data")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        raise _unusable("it lists no model")
    return entries[0]


def image_size_of(model: dict[str, Any]) -> tuple[int, int]:
    """Return height and width in pixels of a model's pictures. Raises GalipError."""
    match = _SIZE.fullmatch(str(model.get("size")))
    if match is None:
        raise _unusable(f"its model has the size {model.get('size')!r:.80}, which is none")
    return int(match[2]), int(match[1])


def most_per_request(model: dict[str, Any]) -> int:
    """Return how many pictures the service takes in one request: what it says of itself, or ours."""
    most = model.get("max_images", MAX_PER_REQUEST)
    return most if isinstance(most, int) and most >= 1 else MAX_PER_REQUEST


def pictures_of(response: httpx.Response, request: Request) -> Pictures:
    """Return the answer's pictures, uint8 (N, H, W, 3). Raises GalipError."""
    return joined([_read_png(data)[None] for data in _files(response, request)])


def png_of(response: httpx.Response, request: Request) -> bytes:
    """Return the answer's only picture as it is, a PNG file. Raises GalipError."""
    (data,) = _files(response, request)
    if not data.startswith(_PNG):
        raise _unusable("a picture is no PNG file")
    return data


def sheet_of(response: httpx.Response, request: Request) -> Pictures:
    """Return the pictures, uint8 (N, H, W, 3), of the sheet that the answer is. Raises GalipError."""
    sheet = _read_png(response.content)
    columns, rows = request.columns, request.count // request.columns
    height, width = sheet.shape[:2]
    if height % rows or width % columns:
        raise _unusable(f"a sheet of {width}x{height} pixels does not hold {columns}x{rows} equal pictures")
    cut = sheet.reshape(rows, height // rows, columns, width // columns, 3)
    return cut.transpose(0, 2, 1, 3, 4).reshape(request.count, height // rows, width // columns, 3)


def joined(parts: Sequence[Pictures]) -> Pictures:
    """Return pictures, uint8 (n, H, W, 3) each, as one array. Raises GalipError where their sizes differ."""
    sizes = {f"{part.shape[2]}x{part.shape[1]}" for part in parts}
    if len(sizes) > 1:
        raise _unusable(f"its pictures are of several sizes, {' and '.join(sorted(sizes))} pixels")
    return np.concatenate(parts)


def _files(response: httpx.Response, request: Request) -> list[bytes]:
    """Return the files in an answer of images. Raises GalipError unless there are as many as asked for."""
    entries = _json(response).get("data")
    if not isinstance(entries, list) or len(entries) != request.count:
        count = len(entries) if isinstance(entries, list) else 0
        raise _unusable(f"it has {count} pictures, not {request.count}")
    texts = [entry.get("b64_json") if isinstance(entry, dict) else None for entry in entries]
    try:
        return [base64.b64decode(text or "", validate=True) for text in texts]
    except (binascii.Error, TypeError, ValueError) as error:
        raise _unusable(f"a picture is not in base64: {error}") from error


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError) as error:
        start = response.text[:_MAX_QUOTED]
        raise _unusable(f"it is not JSON ({error}): {start!r}") from error
    if not isinstance(body, dict):
        raise _unusable(f"it is JSON of another kind: {body!r:.80}")
    return body


def _read_png(data: bytes) -> Pictures:
    """Return a PNG file's picture, uint8 (H, W, 3). Raises GalipError for any other file."""
    if not data.startswith(_PNG):
        raise _unusable("a picture is no PNG file")
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode != "RGB":
                raise _unusable(f"a picture has the mode {image.mode}, not RGB")
            return np.array(image)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise _unusable(f"a picture cannot be read: {error}") from error


def _unusable(why: str) -> GalipError:
    return GalipError(
        f"the service's answer cannot be used: {why}",
        "check that the URL is that of `galip serve`, and that both are of the same version",
    )
