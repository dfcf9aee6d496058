"""Subjects of the benchmark: eager PyTorch, torch.compile, and a bundle on every device in every precision.

A subject is one way to generate pictures. `--subjects` and the report name them.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from galip_runtime.errors import ProviderUnavailable, UsageError
from galip_runtime.text_to_image import TextToImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from galip.eager import EagerModel
    from galip_bench.config import BenchConfig
    from galip_bench.models import Models

    Tokens = NDArray[np.int64]

__all__ = [
    "REFERENCE",
    "RELEASED",
    "Subject",
    "all_subjects",
    "check_subjects",
    "is_bundle",
    "load",
    "select",
]

REFERENCE = "eager-fp32"
"""The subject that all others are compared with."""

RELEASED = "released-fp32"
"""Eager PyTorch in the released code's order of operations."""

_EXPORTED = ("fp32",)
"""Precisions of a bundle that is exported for the run."""


@dataclass(frozen=True)
class Subject:
    """One way to generate pictures."""

    name: str
    load: Callable[[], TextToImage]
    """Loads it. Raises `ProviderUnavailable` if it can't run after all."""
    unavailable: str = ""
    """Why this machine can't run it; empty if it can."""
    on_request: bool = False
    """Whether it is measured only if it is named."""


def is_bundle(name: str) -> bool:
    """Return whether the subject `name` runs a bundle, not PyTorch."""
    return name.startswith(("bundle-", "plain-", "nokernels-"))


def load(name: str, models: Models, threads: int | None = None) -> TextToImage:
    """Load the subject `name`. For a bundle's, PyTorch is not imported.

    Raises `UsageError` for an unknown name, and as `Subject.load`.
    """
    known = _of_bundles(models, threads) if is_bundle(name) else _of_torch(models, threads, _has_cuda())
    for subject in known:
        if subject.name == name:
            return subject.load()
    raise UsageError(f"no subject {name}; there are {', '.join(subject.name for subject in known)}")


def all_subjects(models: Models, threads: int | None = None) -> list[Subject]:
    """Return all subjects, the reference first. Those that this machine can't run say why."""
    return [*_of_torch(models, threads, _has_cuda()), *_of_bundles(models, threads)]


def check_subjects(config: BenchConfig) -> None:
    """Raise as `select` will for the subjects of `config`, as far as that is known without PyTorch."""
    from galip.torch_build import may_have_cuda
    from galip_bench.models import Models

    known = _of_torch(Models(Path(config.model), Path(config.bundle)), None, may_have_cuda())
    for kind, bundle in (("bundle", config.bundle), ("plain", config.plain_bundle)):
        if bundle:
            known += _of_bundle(kind, Path(bundle), _precisions(Path(bundle)), None)
        elif kind == "bundle":
            known += _of_bundle(kind, Path(), _EXPORTED, None)
    select(known, config.subjects)


def select(subjects: Sequence[Subject], names: Sequence[str]) -> list[Subject]:
    """Return the subjects `names` and the reference; without names all that can run and are not on request.

    Raises `UsageError` for an unknown name, `ProviderUnavailable` for a subject that can't run here.
    """
    known = {subject.name: subject for subject in subjects}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"no subject {', '.join(unknown)}; there are {', '.join(known)}. A bundle is measured in the "
            "precisions that it has: galip export --precision fp32,w16a32 --out BUNDLE, then --bundle BUNDLE"
        )
    for name in names:
        if known[name].unavailable:
            raise ProviderUnavailable(f"{name} can't be measured here: {known[name].unavailable}")
    default = {subject.name for subject in subjects if not subject.unavailable and not subject.on_request}
    selection = {REFERENCE, *names} if names else default
    return [subject for subject in subjects if subject.name in selection]


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _of_torch(models: Models, threads: int | None, cuda: bool) -> list[Subject]:
    def eager() -> EagerModel:
        from galip.eager import load_eager

        return load_eager(models.checkpoint, "cuda" if cuda else "cpu", threads=threads)

    def autocast(dtype: str) -> Callable[[], TextToImage]:
        return lambda: _autocast(eager(), dtype)

    needs_cuda = "" if cuda else "measured only on CUDA; on a CPU, bf16 is the half precision"
    return [
        Subject(REFERENCE, eager),
        Subject("eager-bf16", autocast("bfloat16")),
        Subject("eager-fp16", autocast("float16"), needs_cuda),
        Subject("compiled-fp32", lambda: _compiled(eager()), _why_not_compiled(cuda)),
        Subject(RELEASED, lambda: _released(eager()), on_request=True),
    ]


def _why_not_compiled(cuda: bool) -> str:
    if sys.platform == "win32" or cuda or any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return ""
    return "torch.compile needs a C++ compiler (g++ or clang++); none is on the PATH"


def _autocast(model: EagerModel, dtype: str) -> EagerModel:
    """Return `model`, whose networks now run under autocast."""
    import torch

    for network in (model.model.text, model.model.generator):
        assert isinstance(network, torch.nn.Module)
        network.forward = torch.autocast(model.device, getattr(torch, dtype))(network.forward)  # type: ignore[method-assign]
    return _with_info(model, precision=f"autocast to {dtype}")


def _compiled(model: EagerModel) -> EagerModel:
    """Return `model`, which torch.compile compiles at the first picture and at the first larger batch."""
    model.model.text.compile(dynamic=True)
    model.model.generator.compile()
    return _with_info(model, compiled=True)


def _released(model: EagerModel) -> EagerModel:
    """Return `model` in the released code's order: padded prompts, blocks that double the size first."""
    from galip_bench.released_order import release_generator

    release_generator(model.model.generator)
    model._run_text = functools.partial(_padded, model, model._run_text)  # type: ignore[method-assign]
    return _with_info(model, order="released")


def _padded(
    model: EagerModel, run: Callable[[Tokens], NDArray[np.float32]], tokens: Tokens
) -> NDArray[np.float32]:
    return run(np.pad(tokens, ((0, 0), (0, model.dimensions.context_length - tokens.shape[1]))))


def _with_info(model: EagerModel, **more: Any) -> EagerModel:
    """Return `model`, whose `info` now has `more`."""
    info = model.info()
    model.info = lambda: {**info, **more}  # type: ignore[method-assign]
    return model


def _of_bundles(models: Models, threads: int | None) -> list[Subject]:
    bundles = [("bundle", models.bundle), ("plain", models.plain_bundle)]
    return [
        subject
        for kind, bundle in bundles
        if bundle is not None
        for subject in _of_bundle(kind, bundle, _precisions(bundle), threads)
    ]


def _precisions(bundle: Path) -> list[str]:
    from galip_runtime.bundle.manifest import read_manifest

    return sorted(read_manifest(bundle).graphs["generator"], key=lambda name: (name != "fp32", name))


def _of_bundle(kind: str, bundle: Path, precisions: Sequence[str], threads: int | None) -> list[Subject]:
    import galip_runtime
    from galip_runtime.backends.devices import available_devices
    from galip_runtime.backends.tables import DEVICE_TABLE, supports

    available = available_devices()

    def loader(device: str, precision: str) -> Callable[[], TextToImage]:
        return lambda: galip_runtime.load(bundle, device=device, precision=precision, threads=threads)

    subjects = []
    if kind == "bundle":
        subjects += _without_kernels(loader, precisions)
    for device in sorted(DEVICE_TABLE):
        missing = "" if device in available else "the installed packages were built without it"
        for precision in precisions:
            unsupported = "" if supports(precision, device) else f"{device} does not compute in {precision}"
            name = f"{kind}-{device}-{precision}"
            subjects.append(Subject(name, loader(device, precision), missing or unsupported))
    return subjects


def _without_kernels(
    loader: Callable[[str, str], Callable[[], TextToImage]], precisions: Sequence[str]
) -> list[Subject]:
    """Return the subjects in which onnxruntime alone computes on the CPU, despite galip-kernels."""
    from galip_runtime.backends.kernel_loading import KERNEL_PRECISIONS, kernels_off

    def without(load_bundle: Callable[[], TextToImage]) -> TextToImage:
        with kernels_off():
            return load_bundle()

    missing = ""
    if importlib.util.find_spec("galip_kernels") is None:
        missing = "galip-kernels is not installed: bundle-cpu is the same without it"
    return [
        Subject(
            f"nokernels-cpu-{precision}",
            functools.partial(without, loader("cpu", precision)),
            missing,
            on_request=True,
        )
        for precision in precisions
        if precision in KERNEL_PRECISIONS
    ]
