"""Rendering SVG to square RGB PNG, in processes: resvg holds the GIL, so threads don't help."""

import io
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType
from typing import cast

from galip_runtime.errors import GalipError, ProviderUnavailable
from galip_runtime.install import install_extra
from PIL import Image

__all__ = ["MARGIN", "load_renderer", "nested", "render_all", "render_svg", "view_box"]

MARGIN = 0.03
"""White border on each side, as a fraction of the picture: shapes at the view box keep their edge."""

CHUNK = 64


def load_renderer() -> ModuleType:
    """Return the resvg-py package. Raises ProviderUnavailable if it is not installed."""
    try:
        import resvg_py
    except ImportError as error:
        raise ProviderUnavailable(
            f"rendering icons needs resvg-py, which is not installed: {install_extra('train', 'galip')}"
        ) from error
    return cast(ModuleType, resvg_py)


def view_box(svg: str) -> tuple[float, float, float, float]:
    """Return left, top, width and height of an SVG's view box. Raises GalipError if it has none."""
    box = re.search(r'viewBox="(\S+) (\S+) (\S+) (\S+)"', svg)
    if box is None:
        raise GalipError("the SVG has no viewBox with four numbers")
    left, top, width, height = (float(number) for number in box.groups())
    return left, top, width, height


def nested(svg: str, left: float, top: float, width: float, height: float) -> str:
    """Return the SVG as a part of another, clipped to its own view box."""
    return svg.replace("<svg ", f'<svg x="{left}" y="{top}" width="{width}" height="{height}" ', 1)


def render_svg(svg: str, size: int, background: str = "white") -> bytes:
    """Render an `<svg … viewBox="l t w h">` to an RGB PNG (size, size), centred, with a small margin.

    `background` is a CSS colour. Raises GalipError if the SVG cannot be rendered, and as `load_renderer`.
    """
    _, _, width, height = view_box(svg)
    side = max(width, height)
    edge = side * MARGIN / (1 - 2 * MARGIN)
    inner = nested(svg, edge + (side - width) / 2, edge + (side - height) / 2, width, height)
    outer = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}"'
        f' viewBox="0 0 {side + 2 * edge} {side + 2 * edge}">{inner}</svg>'
    )
    try:
        png = load_renderer().svg_to_bytes(
            svg_string=outer, width=size, height=size, background=background, skip_system_fonts=True
        )
    except ValueError as error:
        raise GalipError(f"cannot render the SVG: {error}") from error
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    assert picture.size == (size, size), picture.size
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=False)
    return out.getvalue()


def _render_chunk(chunk: Sequence[tuple[str, str, str]], size: int) -> list[bytes]:
    pictures = []
    for key, svg, background in chunk:
        try:
            pictures.append(render_svg(svg, size, background))
        except GalipError as error:
            raise GalipError(f"icon {key}: {error}") from error
    return pictures


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, which ends its workers, and exit if the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def render_all(svgs: Sequence[tuple[str, str, str]], size: int, *, processes: int = 2) -> Iterator[bytes]:
    """Yield the PNGs of (key, svg, background) in order.

    Raises GalipError naming the key of an icon that fails.
    """
    chunks = [svgs[start : start + CHUNK] for start in range(0, len(svgs), CHUNK)]
    if processes < 2 or len(chunks) < 2:
        for chunk in chunks:
            yield from _render_chunk(chunk, size)
        return
    # "spawn": a forked child could inherit locks held by PyTorch's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker) as pool:
        futures = [pool.submit(_render_chunk, chunk, size) for chunk in chunks]
        try:
            for future in futures:
                yield from future.result()
        except BrokenProcessPool as error:
            raise GalipError("a rendering process died; is there enough memory? Run again.") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
