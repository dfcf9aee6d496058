"""The shipped model's bundle, in the data package `galip_default_bundle` that comes with the runtime."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from galip_runtime.bundle.manifest import Manifest, read_manifest
from galip_runtime.errors import FileRefused, GalipError

__all__ = ["EXPORT", "REPAIR", "advice", "default_bundle", "read_default_manifest"]

_PACKAGE = "galip_default_bundle"

REPAIR = (
    "This is the shipped model's bundle: install galip-runtime again, with pip's --force-reinstall, or name "
    "another bundle"
)
EXPORT = (
    "The shipped model in another precision: galip export --precision fp32 --out BUNDLE (that takes the "
    "package galip), then name that BUNDLE"
)


def default_bundle() -> Path:
    """Return the folder of the shipped model's bundle.

    Raises FileRefused if the data package is not installed, as in an app that leaves it out.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileRefused(
            f"the shipped model is not installed: there is no package {_PACKAGE} beside galip_runtime. Name "
            "a bundle, or install all of galip-runtime again"
        )
    return Path(spec.origin).parent / "bundle"


def read_default_manifest() -> Manifest:
    """Return the manifest of the shipped model's bundle. Raises FileRefused if it is damaged or not there."""
    bundle = default_bundle()
    with advice(FileRefused, REPAIR):
        return read_manifest(bundle)


@contextmanager
def advice(kind: type[GalipError], text: str) -> Iterator[None]:
    """Add `text`, what to do, to an error of this `kind`."""
    try:
        yield
    except kind as error:
        error.args = (*error.args, text)
        raise
