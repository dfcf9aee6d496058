"""The page with a bundle: a folder that any file server can host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galip_runtime.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest, verify_files
from galip_runtime.errors import UsageError
from galip_runtime.files import staging_folder

__all__ = ["BROWSER_PRECISIONS", "check_site", "write_site"]

BROWSER_PRECISIONS = ("w16a32", "fp32")
"""What browsers compute in; w16a32 is half the download."""

PAGE = Path(__file__).parent / "page"
"""The built page: data of this package, made by `make web-page`."""
_BUNDLE = "bundle"


def check_site(out: Path, *, overwrite: bool) -> None:
    """Raise UsageError if `write_site` could not write `out`: no page is built, or something is there."""
    if not (PAGE / "index.html").is_file():
        raise UsageError(
            "this installation of galip has no page: it is built with Node 20 or newer. In a clone, run "
            "make web-page; for a wheel with the page, make wheels"
        )
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise UsageError(f"{out} is no folder; choose another name")
    if any(out.iterdir()):
        if not overwrite:
            raise UsageError(f"{out} exists already; choose another name, or allow overwriting (--overwrite)")
        if not (out / _BUNDLE / MANIFEST_NAME).is_file() or not (out / "index.html").is_file():
            raise UsageError(f"{out} is no page with a bundle, so it is not overwritten; choose another name")


def write_site(bundle: Path, out: Path, *, overwrite: bool = False) -> int:
    """Write the page and the bundle to the new folder `out`, and return the bytes.

    `out` appears whole at the end or not at all; with `overwrite` it replaces an earlier one.

    Raises UsageError as `check_site`, where `out` cannot be written, and for a bundle without a precision
    that browsers compute in; FileRefused for a bundle that is not as it was exported.
    """
    check_site(out, overwrite=overwrite)
    manifest = read_manifest(bundle)
    _check_precisions(bundle, manifest)
    with _replacing(Path(os.path.abspath(out))) as folder:
        shutil.copytree(PAGE, folder, dirs_exist_ok=True)
        for name in (MANIFEST_NAME, *manifest.files):
            target = folder / _BUNDLE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, target)
        verify_files(folder / _BUNDLE, manifest)
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_precisions(bundle: Path, manifest: Manifest) -> None:
    for graph, precisions in manifest.graphs.items():
        if not set(precisions) & set(BROWSER_PRECISIONS):
            raise UsageError(
                f"{bundle} has its {graph} in {', '.join(sorted(precisions))}, and browsers compute in "
                f"{' and '.join(BROWSER_PRECISIONS)}: export the checkpoint again with one of them"
            )


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Yield a new folder to fill, which takes the place of `out` when the block ends.

    Raises UsageError where that cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(out.parent) as staging:
            new, old = staging / "new", staging / "old"
            new.mkdir()
            yield new
            if out.exists():
                out.rename(old)
            new.rename(out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; choose a folder you may write to") from error
