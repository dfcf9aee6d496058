"""A perceptual teacher: VGG-16's first three blocks, trained on photographs and frozen, and LPIPS on them.

Shapes: N pictures, H by W pixels, C_b channels of block b (64, 128 and 256 in VGG-16).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from galip_runtime.errors import FileRefused
from torch import Tensor, nn

from galip.tensors import as_weights, check_dtypes, read_safetensors

__all__ = ["PerceptualFeatures", "load_perceptual", "perceptual_distance"]

_BLOCKS = (("conv1_1", "conv1_2"), ("conv2_1", "conv2_2"), ("conv3_1", "conv3_2", "conv3_3"))
_MEAN, _DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's, of pictures in [-1, 1]
_LEAST_NORM = 1e-10


class PerceptualFeatures(nn.Module):
    """The frozen blocks: pictures to the maps that LPIPS (Zhang et al. 2018) compares."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Build from the tensors that `load_perceptual` describes, which must fit one another."""
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "_"), tensor)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1))

    @property
    def widths(self) -> list[int]:
        """The maps' channels."""
        return [len(weight) for weight in self.linear_weights]

    @property
    def linear_weights(self) -> list[Tensor]:
        """LPIPS's weight of each channel, a tensor (C_b) a map; none is negative."""
        return [self.get_buffer(f"lpips{block}_weight") for block in range(1, len(_BLOCKS) + 1)]

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Pictures (N, 3, H, W) in [-1, 1] → maps after relu1_2, relu2_2 and relu3_3.

        The maps are (N, C_1, H, W), (N, C_2, H/2, W/2) and (N, C_3, H/4, W/4).
        """
        x = (pictures - self.get_buffer("mean")) / self.get_buffer("deviation")
        maps: list[Tensor] = []
        for block in _BLOCKS:
            x = F.max_pool2d(x, 2) if maps else x
            for name in block:
                weight, bias = self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            maps.append(x)
        return maps


def perceptual_distance(
    linear_weights: Sequence[Tensor], fake_maps: Sequence[Tensor], real_maps: Sequence[Tensor]
) -> Tensor:
    """Return the mean LPIPS of pictures by their maps, shallow to deep. Scalar, 0 for equal pictures.

    Equation 1 of Zhang et al.: channels are normalised to unit length at each place, and squared differences
    are weighted by channel, averaged over places and summed over maps.
    """
    distances = []
    for weight, fake, real in zip(linear_weights, fake_maps, real_maps, strict=True):
        squares = (_normalised(fake) - _normalised(real)).square()  # (N, C, H, W)
        distances.append(weight @ squares.mean(dim=(0, 2, 3)))
    return torch.stack(distances).sum()


def _normalised(feature: Tensor) -> Tensor:
    """Return feature (N, C, H, W) in float32 with channels of unit length at each place."""
    feature = feature.float()
    return feature / (torch.linalg.vector_norm(feature, dim=1, keepdim=True) + _LEAST_NORM)


def load_perceptual(path: Path) -> PerceptualFeatures:
    """Load the safetensors file that `icons.perceptual_weights` writes.

    Its tensors are `convB_I.weight` (Co, Ci, 3, 3) and `convB_I.bias` (Co), named as in VGG, and
    `lpipsB.weight` (C_B). Raises `FileRefused` if it is damaged or holds others.
    """
    tensors = read_safetensors(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != _expected_shapes(shapes):
        raise FileRefused(
            f"{path} does not hold the first three blocks of VGG-16 and LPIPS's weights; make the file with "
            "`python -m icons.perceptual_weights --out FILE` in the folder recipes of galip's repository"
        )
    check_dtypes(tensors, str(path))
    tensors = as_weights(tensors)
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise FileRefused(f"{path} has NaN or infinity in {broken[0]}; make the file again")
    if negative := [name for name in tensors if name.startswith("lpips") and (tensors[name] < 0).any()]:
        raise FileRefused(f"{path} has negative weights in {negative[0]}, as LPIPS has none; make it again")
    return PerceptualFeatures(tensors)


def _expected_shapes(found: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a file with these widths of its blocks must have."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = 3
    for number, block in enumerate(_BLOCKS, start=1):
        (out,) = found.get(f"lpips{number}.weight", ())[:1] or (0,)
        shapes[f"lpips{number}.weight"] = (out,)
        for name in block:
            shapes |= {f"{name}.weight": (out, width, 3, 3), f"{name}.bias": (out,)}
            width = out
    return shapes
