"""The page with a bundle: a folder that any file server can host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galip_runtime.bundle.decoding import parse
from galip_runtime.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest, verify_files
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import read_regular, staging_folder

from galip_export.signals import signals_raise, signals_wait
from galip_export.staging import list_files, replace_folder

__all__ = ["BROWSER_PRECISIONS", "check_site", "write_site"]

BROWSER_PRECISIONS = ("w16a32", "fp32")
"""What browsers compute in; w16a32 is half the download."""

PAGE = Path(__file__).parent / "page"
"""The built page: data of this package, made by `make web-page`."""
_BUNDLE = "bundle"
_KNOWN = "known.json"
"""What the model knows: things and styles, which users may write for a model of theirs."""
_MAX_KNOWN_BYTES = 2**24
_LIST = "galip-page.txt"
"""The files of the page and its bundle, a line each: others are somebody's."""


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
    files = list_files(out)
    if not files:
        return
    if not overwrite:
        raise UsageError(f"{out} exists already; choose another name, or allow overwriting (--overwrite)")
    if _LIST not in files:
        raise UsageError(f"{out} is no page with a bundle, so it is not overwritten; choose another name")
    foreign = sorted(files - {_LIST, *(out / _LIST).read_text("utf-8").splitlines()})
    if foreign:
        raise UsageError(
            f"{out} holds files that are not the page's, so it is not overwritten: {', '.join(foreign[:5])}"
            f"{' …' if len(foreign) > 5 else ''}; move them elsewhere first"
        )


def write_site(bundle: Path, out: Path, *, overwrite: bool = False) -> int:
    """Write the page and the bundle to the new folder `out`, and return the bytes.

    `out` appears whole at the end or not at all; with `overwrite` it replaces an earlier one, of which a
    `known.json` of the same model stays.

    Raises UsageError as `check_site`, where `out` cannot be written, and for a bundle without a precision
    that browsers compute in; FileRefused for a bundle that is not as it was exported.
    """
    check_site(out, overwrite=overwrite)
    manifest = read_manifest(bundle)
    _check_precisions(bundle, manifest)
    with _replacing(Path(os.path.abspath(out))) as folder:
        shutil.copytree(PAGE, folder, dirs_exist_ok=True)
        if _knows(out / _KNOWN, manifest):
            shutil.copyfile(out / _KNOWN, folder / _KNOWN)
        for name in (MANIFEST_NAME, *manifest.files):
            target = folder / _BUNDLE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, target)
        verify_files(folder / _BUNDLE, manifest)
        (folder / _LIST).write_text("".join(f"{name}\n" for name in sorted(list_files(folder))), "utf-8")
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _knows(known: Path, manifest: Manifest) -> bool:
    """Return whether the file `known` says what the manifest's model knows."""
    if not known.is_file():
        return False
    try:
        content = parse(read_regular(known, _MAX_KNOWN_BYTES))
    except FileRefused:
        return False
    return isinstance(content, dict) and content.get("source") == manifest.source.sha256


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
        with signals_raise(), staging_folder(out.parent) as staging:
            yield staging
            with signals_wait():
                if out.exists():
                    replace_folder(staging, out)
                else:
                    staging.rename(out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; choose a folder you may write to") from error
