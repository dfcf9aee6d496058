"""Each rewrite against the module it stands for, on random weights."""

import pytest
import torch
import torch.nn.functional as F
from galip_export.rewrites import Conditioning, SubPixelConv, rewrite, sub_pixel_kernels
from torch import nn

from galip.model import AffineMlp

BATCHES = (1, 2, 5)


def close(a, b):
    """Equal up to rounding, as a share of the standard deviation."""
    assert a.shape == b.shape
    assert float((a - b).abs().max()) < 1e-5 * float(b.std())


def shaken(module):
    """`module` with every tensor random, so that each of them matters."""
    torch.manual_seed(0)
    for tensor in module.parameters():
        noise = torch.randn(tensor.shape)
        tensor.data = noise * tensor[0].numel() ** -0.5 if tensor.ndim > 1 else tensor.data + 0.3 * noise
    return module.eval()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("entering", "leaving", "size"), [(1, 1, 1), (3, 5, 2), (8, 4, 7), (16, 16, 12)])
def test_sub_pixel_conv(batch, entering, leaving, size):
    conv = shaken(nn.Conv2d(entering, leaving, 3, padding=1))
    x = torch.randn(batch, entering, size, size)
    with torch.no_grad():
        close(SubPixelConv(conv)(x), conv(F.interpolate(x, scale_factor=2, mode="nearest")))


def test_the_phases_have_the_kernel_s_sum():
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    for kernel in sub_pixel_kernels(weight):
        assert kernel.shape == (4, 3, 2, 2)
        torch.testing.assert_close(kernel.sum(dim=(2, 3)), weight.sum(dim=(2, 3)))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("with_prompt", [True, False])
def test_all_affine_networks_at_once(batch, with_prompt):
    widths = (8, 3, 8, 5, 3, 8)
    networks = [shaken(AffineMlp(10, width, 1.0)) for width in widths]
    prompt = shaken(nn.Linear(10, 12)) if with_prompt else None
    noise, sentence = torch.randn(batch, 4), torch.randn(batch, 6)
    cond = torch.cat([noise, sentence], dim=1)
    with torch.no_grad():
        conditioning = Conditioning(networks, prompt, noise_dim=4)
        outputs, prompts = conditioning(noise, sentence)
        for output, network in zip(outputs, networks, strict=True):
            close(output[:, :, 0, 0], network(cond))
        if prompt is None:
            assert prompts is None
        else:
            close(prompts, prompt(cond))
        once = conditioning.of_sentence(sentence[:1])  # the same sentence for all
        again, _ = conditioning.finish(noise, once)
        same = torch.cat([noise, sentence[:1].expand(batch, -1)], dim=1)
        close(again[2][:, :, 0, 0], networks[2](same))


GENERATORS = {
    "as released": {},
    "no CLIP": {"use_clip": False},
    "no prompts": {"prompt_layers": ()},
    "prompts in every block": {"clip_layers": 2, "prompt_layers": (0, 1)},
    "prompts in the first block": {"clip_layers": 2, "prompt_layers": (0,)},
    "no growing by two": {"channels": (16, 16, 8), "sizes": (7, 9)},
    "one fusion block more": {"fusion_blocks": 2},
}
"""What may be otherwise in a generator."""


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("changes", GENERATORS.values(), ids=GENERATORS)
def test_a_whole_generator(small_model, changes, batch):
    generator = small_model(**{"channels": (16, 8, 8, 4), "sizes": (8, 16, 28), **changes}).generator
    noise, sentence = torch.randn(batch, generator.config.noise_dim), torch.randn(batch, 16)
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    with torch.no_grad():
        close(rewrite(generator)(noise, sentence), generator(noise, sentence))
    assert all(torch.equal(before[key], value) for key, value in generator.state_dict().items())
    assert not any(module.training for module in rewrite(generator).modules())
