"""A checkpoint in eager PyTorch, with the methods of an exported bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from galip_runtime.backends.devices import thread_count
from galip_runtime.bundle.manifest import Dimensions
from galip_runtime.text_to_image import TextToImage
from numpy.typing import NDArray
from torch import Tensor

from galip.checkpoint import load_galip
from galip.clip import clip_tokenizer
from galip.early_checks import USE_CPU, check_eager_options
from galip.model import Galip
from galip.torch_build import no_cuda

__all__ = ["EagerModel", "load_eager"]


class EagerModel(TextToImage):
    """The counterpart of `galip_runtime.Model`: the same seeds give the same noise and the same pictures."""

    def __init__(self, model: Galip, device: str = "cpu", path: Path | None = None) -> None:
        """Move `model`, which needs its text tower and generator, to `device`, cpu or cuda."""
        config = model.config
        size = config.generator.image_size
        text = config.clip.text
        super().__init__(
            clip_tokenizer(text.merges, text.context_length),
            Dimensions(size, size, config.generator.noise_dim, config.clip.embed_dim, text.context_length),
        )
        self.path, self.device = path, device
        self.model = model.eval().to(device)

    def _run_text(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.to_host(self.model.text(*self.to_device(tokens)))

    def _run_generator(
        self, noise: NDArray[np.float32], sentence: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.to_host(self.model.generator(*self.to_device(noise, sentence)))

    @property
    def copies(self) -> bool:
        """Whether arrays are copied to a device's own memory and back."""
        return self.device != "cpu"

    def to_device(self, *arrays: NDArray[Any]) -> list[Tensor]:
        """Return the arrays as tensors on the device."""
        return [torch.tensor(array, device=self.device) for array in arrays]

    def to_host(self, result: Tensor) -> NDArray[np.float32]:
        """Return a result as an array, once it is computed."""
        return result.float().cpu().numpy()

    def synchronise(self) -> None:
        """Wait until the device has finished its work."""
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def info(self) -> dict[str, Any]:
        """Return what is loaded and where it runs, in JSON's types."""
        return {
            "path": str(self.path) if self.path else None,
            "device": self.device,
            "precision": {"text_encoder": "fp32", "generator": "fp32"},
            "dimensions": vars(self.dimensions),
            "versions": {"torch": torch.__version__},
        }


def load_eager(
    path: Path, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> EagerModel:
    """Load the checkpoint `path` in eager PyTorch, fp32, on `device`: auto (CUDA if available), cpu or cuda.

    `threads` applies to the whole process. Raises `FileRefused` if the checkpoint is unusable or lacks the
    text tower or generator, `ProviderUnavailable` without CUDA, `UsageError` for another device or precision.
    """
    check_eager_options(device, precision, threads)
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise no_cuda(USE_CPU)
    if threads is not None:
        torch.set_num_threads(thread_count(threads))
    model = load_galip(path, needs=("text", "generator"))
    return EagerModel(model, "cuda" if has_cuda and device != "cpu" else "cpu", path)
