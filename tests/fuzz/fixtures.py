"""Inputs of the trials, made once per folder."""

import contextlib
import io
import os
from pathlib import Path

import galip_runtime
import numpy as np
import numpy.typing as npt

__all__ = [
    "DEVICES",
    "PROMPTS",
    "SEEDS",
    "galip",
    "generate",
    "small_bundle",
    "small_checkpoint",
    "stub_bundle",
]

DEVICES = ("cpu", "openvino")
PROMPTS = ["a red apple", "", "the pan"]
SEEDS = [7, 8, 2**64 - 1]


def stub_bundle(home: Path) -> Path:
    """Return a bundle of a few kilobytes, with fp16 graphs that nothing here loads."""
    from stub_bundle import make_stub_bundle

    folder = home / "stub"
    return folder if folder.exists() else make_stub_bundle(folder, precisions=("fp32", "fp16"))


def small_checkpoint(home: Path, seed: int = 0) -> Path:
    """Return a complete checkpoint whose generator has one block of each kind."""
    import torch
    from tiny import random_model, small_config

    from galip.checkpoint import save_galip

    path = home / f"small{seed}.safetensors"
    if not path.exists():
        model = random_model(small_config())
        with torch.no_grad():
            model.generator.to_rgb.weight *= 1 + seed
        save_galip(path, model)
    return path


def small_bundle(home: Path, seed: int = 0) -> Path:
    """Return the bundle that `galip export` makes of `small_checkpoint`."""
    from galip_export import export_bundle

    folder = home / f"exported{seed}"
    if not folder.exists():
        export_bundle(small_checkpoint(home, seed), folder)
    return folder


def generate(bundle: Path, device: str) -> npt.NDArray[np.uint8]:
    """Generate three pictures with the bundle, in two batches."""
    model = galip_runtime.load(bundle, device=device, threads=1)
    return model.generate(PROMPTS, SEEDS, batch_size=2)


def galip(*arguments: str | os.PathLike[str]) -> tuple[int, str]:
    """Run the command and return its exit code and output. Raises AssertionError for unexpected errors."""
    from galip.cli import main

    output, errors = io.StringIO(), io.StringIO()
    code: object = None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main(["--debug", *map(os.fspath, arguments)])
        except SystemExit as leave:
            code = leave.code
    assert code in (0, 2, 3, 4, 5), f"galip {arguments[0]} ends with exit code {code}:\n{errors.getvalue()}"
    assert isinstance(code, int)
    return code, output.getvalue()
