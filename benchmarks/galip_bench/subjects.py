"""What is compared: eager PyTorch, torch.compile, and a bundle on every device and precision there is."""

from __future__ import annotations

import functools
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
    from galip_bench.config import Models

    Tokens = NDArray[np.int64]

__all__ = ["REFERENCE", "RELEASED", "Subject", "choose", "is_bundle", "load", "subjects"]

REFERENCE = "eager-fp32"
"""What all others are compared with."""

RELEASED = "released-fp32"
"""Eager PyTorch that computes in the released code's order."""


@dataclass(frozen=True)
class Subject:
    """One way to make pictures."""

    name: str
    load: Callable[[], TextToImage]
    """Loads it. Raises `ProviderUnavailable` where it can't run after all."""
    unavailable: str = ""
    """Why it can't be had here; empty where it can."""
    on_request: bool = False
    """Whether it is measured only where it is named."""


def is_bundle(name: str) -> bool:
    """Whether the subject `name` runs a bundle, not PyTorch."""
    return name.startswith(("bundle-", "plain-"))


def load(name: str, models: Models, threads: int | None = None) -> TextToImage:
    """The subject `name`, loaded; one of a bundle without PyTorch being imported.

    Raises `UsageError` for a name there isn't, and as `Subject.load`.
    """
    found = _of_bundles(models, threads) if is_bundle(name) else _of_torch(models.checkpoint, threads)
    for subject in found:
        if subject.name == name:
            return subject.load()
    raise UsageError(f"no subject {name}; there are {', '.join(each.name for each in found)}")


def subjects(models: Models, threads: int | None = None) -> list[Subject]:
    """All there are, the reference first; those that this machine can't run say why."""
    return [*_of_torch(models.checkpoint, threads), *_of_bundles(models, threads)]


def choose(all_of_them: Sequence[Subject], names: Sequence[str]) -> list[Subject]:
    """Those `names`, or for none all that can be had and are not on request; always with the reference.

    Raises `UsageError` for a name there isn't, `ProviderUnavailable` for one that can't be had.
    """
    known = {subject.name: subject for subject in all_of_them}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no subject {', '.join(unknown)}; there are {', '.join(known)}")
    for name in names:
        if known[name].unavailable:
            raise ProviderUnavailable(f"{name} can't be measured here: {known[name].unavailable}")
    offered = {each.name for each in all_of_them if not each.unavailable and not each.on_request}
    wanted = {REFERENCE, *names} if names else offered
    return [subject for subject in all_of_them if subject.name in wanted]


def _of_torch(checkpoint: Path, threads: int | None) -> list[Subject]:
    import torch

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"

    def eager() -> EagerModel:
        from galip.eager import load_eager

        return load_eager(checkpoint, device, threads=threads)

    def autocast(dtype: torch.dtype) -> Callable[[], TextToImage]:
        return lambda: _autocast(eager(), dtype)

    needs_cuda = "" if cuda else "measured on CUDA alone; on a CPU, bf16 is the half precision"
    return [
        Subject(REFERENCE, eager),
        Subject("eager-bf16", autocast(torch.bfloat16)),
        Subject("eager-fp16", autocast(torch.float16), needs_cuda),
        Subject("compiled-fp32", lambda: _compiled(eager()), _why_not_compiled(cuda)),
        Subject(RELEASED, lambda: _released(eager()), on_request=True),
    ]


def _why_not_compiled(cuda: bool) -> str:
    if sys.platform == "win32" or cuda or any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return ""
    return "torch.compile needs a C++ compiler (g++ or clang++); none is on the PATH"


def _autocast(model: EagerModel, dtype: Any) -> EagerModel:
    """`model`, its networks run under autocast."""
    import torch

    for network in (model.model.text, model.model.generator):
        assert isinstance(network, torch.nn.Module)
        network.forward = torch.autocast(model.device, dtype)(network.forward)  # type: ignore[method-assign]
    return _saying(model, precision=f"autocast to {str(dtype).removeprefix('torch.')}")


def _compiled(model: EagerModel) -> EagerModel:
    """`model`, its networks compiled by torch.compile: at the first picture and at the first larger batch."""
    model.model.text.compile(dynamic=True)
    model.model.generator.compile()
    return _saying(model, compiled=True)


def _released(model: EagerModel) -> EagerModel:
    """`model`, in the released code's order: prompts padded to CLIP's context, blocks that grow first."""
    from galip_bench.released_order import release_generator

    release_generator(model.model.generator)
    model._run_text = functools.partial(_padded, model, model._run_text)  # type: ignore[method-assign]
    return _saying(model, order="released")


def _padded(
    model: EagerModel, run: Callable[[Tokens], NDArray[np.float32]], tokens: Tokens
) -> NDArray[np.float32]:
    return run(np.pad(tokens, ((0, 0), (0, model.dimensions.context_length - tokens.shape[1]))))


def _saying(model: EagerModel, **more: Any) -> EagerModel:
    """`model`, whose `info` says `more`."""
    told = model.info()
    model.info = lambda: {**told, **more}  # type: ignore[method-assign]
    return model


def _of_bundles(models: Models, threads: int | None) -> list[Subject]:
    plain = _of_bundle("plain", models.plain_bundle, threads) if models.plain_bundle else []
    return [*_of_bundle("bundle", models.bundle, threads), *plain]


def _of_bundle(kind: str, bundle: Path, threads: int | None) -> list[Subject]:
    import galip_runtime
    from galip_runtime.backends.devices import available_devices
    from galip_runtime.backends.tables import DEVICE_TABLE, supports
    from galip_runtime.bundle.manifest import read_manifest

    there = available_devices()
    precisions = sorted(read_manifest(bundle).graphs["generator"], key=lambda name: (name != "fp32", name))

    def loading(device: str, precision: str) -> Callable[[], TextToImage]:
        return lambda: galip_runtime.load(bundle, device=device, precision=precision, threads=threads)

    found = []
    for device in sorted(DEVICE_TABLE):
        missing = "" if device in there else "the installed packages were built without it"
        for precision in precisions:
            senseless = "" if supports(precision, device) else f"{device} does not compute in {precision}"
            found.append(
                Subject(f"{kind}-{device}-{precision}", loading(device, precision), missing or senseless)
            )
    return found
