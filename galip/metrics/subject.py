"""The model that `galip evaluate` evaluates: a checkpoint or a bundle."""

from __future__ import annotations

from pathlib import Path

import galip_runtime
import torch
from galip_runtime.backends.devices import available_devices
from galip_runtime.text_to_image import TextToImage

from galip.eager import load_eager
from galip.metrics.config import EvaluationConfig

__all__ = ["open_model"]


def open_model(config: EvaluationConfig, process_device: torch.device | None) -> TextToImage | None:
    """Open `config.subject`, a checkpoint or a bundle; None for a folder of pictures.

    `process_device`: this process's device if there are several processes, None otherwise.
    """
    path = Path(config.subject)
    if (path / "manifest.json").exists():
        device = _gpu_of_process(config.device, process_device) or config.device
        return galip_runtime.load(path, device=device, precision=config.precision, threads=config.threads)
    if path.is_dir():
        return None
    return load_eager(path, config.device, config.precision, config.threads)


def _gpu_of_process(device: str, process_device: torch.device | None) -> str | None:
    """Return this process's GPU, chosen by PyTorch, as the runtime names it; None if it has none."""
    if process_device is None or process_device.type != "cuda":
        return None
    name = "cuda" if device == "auto" else device
    if name not in ("cuda", "tensorrt") or name not in available_devices():
        return None
    return f"{name}:{process_device.index}"
