"""Cheaper ways to the same numbers, and the same losses in the released code's order."""

import copy

import pytest
import torch
from galip_bench.released_order import release_generator, released_step

from galip.config import DiscriminatorConfig, GalipConfig
from galip.data.sampler import generator_for
from galip.model import Galip, QualityAssessor
from galip.presets import preset
from galip.train.augment import to_float
from galip.train.config import GanConfig
from galip.train.fabric import make_fabric
from galip.train.fast_layers import choose_memory_format, fuse_upsampling, split_assessor, upsample_conv2d
from galip.train.gan import make_loader
from galip.train.initialization import create_model
from galip.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 4), (5, 8, 7, 2)])
def test_a_convolution_behind_a_doubling(shape):
    n, channels, side, out = shape
    conv = torch.nn.Conv2d(channels, out, 3, padding=1).double()
    x = torch.randn(n, channels, side, side, dtype=torch.float64, requires_grad=True)
    doubled = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    expected, output = conv(doubled), upsample_conv2d(conv, x)
    torch.testing.assert_close(output, expected)
    weight = torch.randn_like(expected)
    parameters = [x, conv.weight, conv.bias]
    torch.testing.assert_close(
        torch.autograd.grad((output * weight).sum(), parameters),
        torch.autograd.grad((expected * weight).sum(), parameters),
    )


def test_a_generator_with_merged_doublings_draws_the_same():
    torch.manual_seed(0)
    plain = Galip(preset("tiny")).generator.double()
    merged = copy.deepcopy(plain)
    fuse_upsampling(merged)
    assert ["grow" in vars(block) for block in merged.blocks] == [False, True, False]  # 7 to 8, 16, 28
    noise, sentence = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64)
    torch.testing.assert_close(merged(noise, sentence), plain(noise, sentence))
    assert list(merged.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("grid", [7, 8])
def test_an_assessor_that_splits_off_the_sentence(grid):
    """Also to second order, which MAGP takes."""
    torch.manual_seed(0)
    plain = QualityAssessor(DiscriminatorConfig(channels=6, assessor_channels=5), 3).double()
    split = copy.deepcopy(plain)
    split_assessor(split)
    feature = torch.randn(4, 6, grid, grid, dtype=torch.float64, requires_grad=True)
    sentence = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for assessor in (plain, split):
        logits = assessor(feature, sentence)
        first = torch.autograd.grad(logits.sum(), [feature, sentence], create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in first) + logits.square().sum()
        results.append([logits, *first, *torch.autograd.grad(penalty, list(assessor.parameters()))])
    torch.testing.assert_close(results[0], results[1])


def test_the_layout_that_is_faster():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_memory_format(cpu, 64) is choose_memory_format(cuda, 224) is torch.channels_last
    assert choose_memory_format(cpu, 224) is torch.contiguous_format


def test_the_released_order_has_the_same_losses(tiny_data, tiny_checkpoint, tmp_path):
    """Three steps, so that both networks' updates agree, too."""
    config = GanConfig(
        data=str(tiny_data), clip=str(tiny_checkpoint), init=str(tiny_checkpoint), out=str(tmp_path),
        model="tiny", batch_size=6, precision="fp32", device="cpu", flip=False,
    )  # fmt: skip
    fabric = make_fabric("cpu", "fp32")
    model = create_model(config)
    other = copy.deepcopy(model)
    release_generator(other.generator)
    trainer = Trainer(config, model, make_loader(config, model, fabric), fabric)
    batches = make_loader(config, model, fabric)
    learned = [p for p in other.generator.parameters() if p.requires_grad]
    adam_g = torch.optim.Adam(learned, lr=config.lr_g, betas=(0.0, 0.9))
    adam_d = torch.optim.Adam(other.discriminator.parameters(), lr=config.lr_d, betas=(0.0, 0.9))
    for step in range(3):
        batch = batches.batch(step)
        noise = torch.randn(6, 8, generator=generator_for(config.seed, "gan", step))
        ours = trainer.step(step)
        released = released_step(other, adam_g, adam_d, to_float(batch.pictures), batch.tokens, noise)
        assert ours.keys() == released.keys()
        for name, value in released.items():
            torch.testing.assert_close(ours[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("features", ["cnn", "ccm-csm"])
def test_table_3_s_other_discriminators(features):
    tiny = preset("tiny")
    layers = (0,) if features == "cnn" else (0, 1, 2)
    config = DiscriminatorConfig(layers, channels=16, assessor_channels=8, features=features)
    model = Galip(GalipConfig(tiny.clip, tiny.generator, config))
    image = torch.rand(2, 3, 28, 28) * 2 - 1
    maps, embedding = model.collect(image)
    assert embedding.shape == (2, 16)
    assert all(map(torch.equal, maps, model.collect_maps(image)))
    logits = model.discriminator(maps, torch.randn(2, 16))
    assert logits.shape == (2,)
    logits.sum().backward()
    parameters = dict(model.discriminator.named_parameters())
    fixed = {name for name, p in parameters.items() if not p.requires_grad}
    assert fixed == {name for name in parameters if "mixing" in name}
    assert bool(fixed) == (features == "ccm-csm")
    assert all(p.grad is not None for name, p in parameters.items() if name not in fixed)
