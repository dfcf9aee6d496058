"""Bundles with damaged files are refused, unless none of the damaged files is used."""

import shutil
from pathlib import Path

import numpy as np
from fuzz.fixtures import DEVICES, galip, generate, small_bundle, stub_bundle
from fuzz.harness import Trial
from fuzz.mutation import change_file, pick
from galip_runtime import FileRefused
from galip_runtime.bundle.manifest import read_manifest

SECONDS, MEGABYTES = 20, 1000


def start(home: Path) -> Trial:
    bundles = [stub_bundle(home), small_bundle(home)]
    expected = {(bundle, device): generate(bundle, device) for bundle in bundles for device in DEVICES}

    def trial(rng: np.random.Generator, folder: Path) -> str:
        bundle, device = pick(rng, expected)
        copy = Path(shutil.copytree(bundle, folder / "bundle"))
        name = pick(rng, ["manifest.json", *(path.name for path in sorted(bundle.iterdir()))])
        change = change_file(copy / name, rng)
        if _same(bundle, copy):  # it may have been replaced by its own content
            return "unchanged"
        code, _ = galip("info", copy)
        assert code == 4, f"galip info accepts another {name} ({change}): exit code {code}"
        try:
            pictures = generate(copy, device)
        except FileRefused:
            return "refused"
        assert not _used(copy, name), f"another {name} is accepted ({change})"
        assert np.array_equal(pictures, expected[bundle, device]), (
            f"other pictures by another {name} ({change})"
        )
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
    """Return whether loading uses the file: all but graphs in other precisions."""
    generator = read_manifest(bundle).graphs["generator"]
    return name not in {spec.file for precision, spec in generator.items() if precision != "fp32"}
