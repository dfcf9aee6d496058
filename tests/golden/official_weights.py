"""Stand-ins for the released GALIP checkpoint and for CLIP ViT-B/32, in the layout of the released files.

Every tensor is a fixed function of its name: numpy's frozen RandomState, seeded with a checksum of the name
and scaled by the rules in `weight`. Names and shapes are those of the released files, so whatever loads
these loads those. `reference.npz` holds what the released code computes from them.

    python tests/golden/official_weights.py FOLDER   # writes galip.pth (0.67 GB), clip_vit_b32.pt (0.61 GB)
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

SHAPES: dict[str, dict[str, list[int]]] = json.loads(
    Path(__file__).with_name("state_dict_shapes.json").read_text()
)
"""module ("clip", "netG", "netD" or "netC") -> released name -> shape"""

_IMAGE_TOWER = "mapping.CLIP_ViT."  # netG's copy of CLIP's


def weight(seed_name: str, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The tensor `name`, drawn by the seed `seed_name` and scaled by the rule that its name falls under."""
    random = np.random.RandomState(zlib.crc32(seed_name.encode()))
    x = np.asarray(random.standard_normal(shape), np.float32)
    last = name.rsplit(".", 1)[-1]
    if ".ln_" in "." + name and last == "weight":
        return 1 + 0.1 * x
    if last in ("gamma", "beta") and "fc_" not in name:
        return 0.5 + 0.1 * x
    if "fc_gamma.linear2.bias" in name:
        return 1 + 0.1 * x
    if "bias" in last:
        return 0.02 * x
    if "linear2.weight" in name:
        return np.float32(0.2 / np.sqrt(shape[1])) * x
    if "embedding" in name:
        return 0.02 * x
    if last in ("proj", "text_projection"):
        return x / np.float32(np.sqrt(shape[0]))
    if len(shape) >= 2:
        return x / np.float32(np.sqrt(np.prod(shape[1:])))
    return np.full(shape, 2.6592, np.float32)  # logit_scale


def tensors(module: str) -> dict[str, npt.NDArray[np.float32]]:
    """All tensors of `module` by their released names."""
    drawn = {}
    for name, shape in SHAPES[module].items():
        owner, own_name = module, name
        if name.startswith(_IMAGE_TOWER):
            owner, own_name = "clip", "visual." + name.removeprefix(_IMAGE_TOWER)
        drawn[name] = weight(f"{owner}.{own_name}", own_name, tuple(shape))
    return drawn


def write(folder: Path) -> tuple[Path, Path]:
    """Write both files in the released layout to `folder` and return their paths."""
    import torch

    def as_torch(module: str) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in tensors(module).items()}

    folder.mkdir(parents=True, exist_ok=True)
    galip, clip = folder / "galip.pth", folder / "clip_vit_b32.pt"
    torch.save({"model": {module: as_torch(module) for module in ("netG", "netD", "netC")}}, galip)
    torch.save(as_torch("clip"), clip)
    return galip, clip


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])))
