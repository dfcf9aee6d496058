"""Eager PyTorch generates the pictures that its exported bundle generates, by the same methods."""

import asyncio

import galip_runtime
import numpy as np
import pytest
import torch
from galip_runtime.errors import FileRefused, ProviderUnavailable, UsageError

from galip.eager import load_eager

PROMPTS = ["a red square", "", "a green square on white", "été 🍎"]


@pytest.fixture(scope="module")
def eager(tiny_checkpoint):
    return load_eager(tiny_checkpoint, "cpu")


@pytest.fixture(scope="module")
def bundle(tiny_export):
    return galip_runtime.load(tiny_export.bundle, device="cpu")


def test_the_same_pictures_as_the_bundle(eager, bundle):
    assert eager.dimensions == bundle.dimensions
    np.testing.assert_allclose(eager.encode_text(PROMPTS), bundle.encode_text(PROMPTS), atol=1e-5)
    assert np.array_equal(eager.noise([1, 2**64 - 1], 1.0), bundle.noise([1, 2**64 - 1], 1.0))
    for call in (
        lambda model: model.generate(PROMPTS, [0, 1, 2, 3], truncation=1.5),
        lambda model: model.interpolate(PROMPTS[:2], 3, seeds=[1, 2], square=True),
    ):
        ours, theirs = call(eager), call(bundle)
        assert ours.dtype == theirs.dtype == np.uint8
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_many_callers_at_once(eager):
    expected = eager.generate(PROMPTS, [0, 1, 2, 3])

    async def main():
        calls = [eager.generate_async(PROMPTS, [0, 1, 2, 3]) for _ in range(3)]
        return await asyncio.gather(*calls)

    for pictures in [*asyncio.run(main()), np.stack(list(eager.stream(PROMPTS, [0, 1, 2, 3], batch_size=3)))]:
        assert np.abs(pictures.astype(int) - expected).max() <= 1  # PyTorch may round by batch size


def test_what_it_says_of_itself(eager, tiny_checkpoint):
    info = eager.info()
    assert info["device"] == "cpu"
    assert info["path"] == str(tiny_checkpoint)


def test_mistakes(tiny_checkpoint, tmp_path):
    for option, value in (("device", "tensorrt"), ("precision", "fp16"), ("threads", 0)):
        with pytest.raises(UsageError, match=str(value)):
            load_eager(tiny_checkpoint, **{option: value})
    with pytest.raises(FileRefused, match="nothing"):
        load_eager(tmp_path / "nothing")


def test_cuda_where_there_is_none(tiny_checkpoint):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ProviderUnavailable, match="CUDA"):
        load_eager(tiny_checkpoint, "cuda")
