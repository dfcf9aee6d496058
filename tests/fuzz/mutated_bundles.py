"""Bundles with damaged files: whatever was changed is refused, unless nothing that was changed is used."""

import shutil
from pathlib import Path

import numpy as np
from fuzz.fixtures import DEVICES, draw, galip, small_bundle, stub_bundle
from fuzz.harness import Trial
from fuzz.mutation import change_file, pick
from galip_runtime import FileRefused
from galip_runtime.bundle.manifest import read_manifest

SECONDS, MEGABYTES = 20, 1000


def start(home: Path) -> Trial:
    bundles = [stub_bundle(home), small_bundle(home)]
    drawn = {(bundle, device): draw(bundle, device) for bundle in bundles for device in DEVICES}

    def trial(rng: np.random.Generator, folder: Path) -> str:
        bundle, device = pick(rng, drawn)
        copy = Path(shutil.copytree(bundle, folder / "bundle"))
        name = pick(rng, ["manifest.json", *(path.name for path in sorted(bundle.iterdir()))])
        how = change_file(copy / name, rng)
        if _same(bundle, copy):  # one file may have the other's content
            return "unchanged"
        code, _ = galip("info", copy)
        assert code == 4, f"galip info accepts another {name} ({how}): exit code {code}"
        try:
            pictures = draw(copy, device)
        except FileRefused:
            return "refused"
        assert not _used(copy, name), f"another {name} is accepted ({how})"
        assert np.array_equal(pictures, drawn[bundle, device]), f"other pictures by another {name} ({how})"
        return "not used"

    return trial


def _same(one: Path, other: Path) -> bool:
    return all(
        (other / path.name).is_file()
        and not (other / path.name).is_symlink()
        and (other / path.name).stat().st_size == path.stat().st_size
        and (other / path.name).read_bytes() == path.read_bytes()
        for path in one.iterdir()
    )


def _used(bundle: Path, name: str) -> bool:
    """All but a graph in a precision that is not loaded."""
    generator = read_manifest(bundle).graphs["generator"]
    return name not in {spec.file for precision, spec in generator.items() if precision != "fp32"}
