"""The layouts of captioned pictures that people have, a module each. This file registers them.

Importing it is cheap, so that the commands' help can list the layouts: their modules come in when needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from galip.data.layouts.layout import Layout

__all__ = ["LAYOUTS", "find_layout"]

LAYOUTS = ("dfgan", "coco", "cub", "shards", "folder")
"""Names of the layouts and of their modules here, in the order in which `auto` tries them: the ones that are
easiest to tell come first. `folder` stays last, since it matches any folder of pictures.
"""


def find_layout(name: str) -> Layout:
    """Return the `LAYOUT` of the module `name`, one of `LAYOUTS`."""
    layout: Layout = import_module(f"{__name__}.{name}").LAYOUT
    return layout
