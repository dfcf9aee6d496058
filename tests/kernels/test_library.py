"""The library of galip-kernels, called as the runtime calls it, against PyTorch."""

import ctypes
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from galip_runtime.arrays import to_uint8
from galip_runtime.backends.kernels import BlockWeights, KernelBlocks, KernelsUnusable, load_library
from hypothesis import given, settings
from hypothesis import strategies as st

try:
    LIBRARY = load_library()
except KernelsUnusable as error:
    pytest.skip(f"galip-kernels is NOT TESTED here: {error}", allow_module_level=True)

TOLERANCE = 1e-5
"""of the largest magnitude; measured: 1.3e-6"""


@dataclass(frozen=True)
class Case:
    """Blocks with random weights, and what they take for some pictures."""

    blocks: tuple[BlockWeights, ...]
    to_rgb: tuple[np.ndarray, np.ndarray]
    features: np.ndarray
    affines: tuple[np.ndarray, ...]

    def open(self, threads=1):
        return KernelBlocks(LIBRARY, self.blocks, self.to_rgb, threads)

    def rows(self, rows):
        return self.features[rows], [affine[rows] for affine in self.affines]


def make_case(seed, channels, sizes, pictures, identity=()):
    """`channels`, `sizes`: before the first block and after each; `identity`: blocks without a shortcut."""
    random = np.random.default_rng(seed)

    def convolution(outs, ins, size):
        weight = random.standard_normal((outs, ins, size, size), np.float32) / np.float32(size * ins**0.5)
        return weight, random.standard_normal(outs, np.float32) / 4

    def fused(count):
        gamma_beta = [random.standard_normal((pictures, count, 1, 1), np.float32) / 4 for _ in range(4)]
        return [values + np.float32(index % 2 == 0) for index, values in enumerate(gamma_beta)]

    blocks, affines = [], []
    for index in range(len(channels) - 1):
        (ins, outs), (before, after) = channels[index : index + 2], sizes[index : index + 2]
        affines += [*fused(ins), *fused(outs)]
        has_shortcut = ins != outs or index not in identity
        shortcut = convolution(outs, ins, 1) if has_shortcut else None
        shapes = (ins, *before), (outs, *after)
        blocks.append(BlockWeights(*shapes, convolution(outs, ins, 3), convolution(outs, outs, 3), shortcut))
    features = random.standard_normal((pictures, channels[0], *sizes[0]), np.float32)
    return Case(tuple(blocks), convolution(3, channels[-1], 3), features, tuple(affines))


def expected_image(case):
    """The blocks by their definition, in float64."""

    def convolved(x, weights, padding):
        weight, bias = (torch.from_numpy(array).double() for array in weights)
        return F.conv2d(x, weight, bias, padding=padding)

    def fused(x, coefficients):
        for gamma, beta in (coefficients[:2], coefficients[2:]):
            x = F.leaky_relu(x * gamma + beta, 0.2)
        return x

    x, affines = (
        torch.from_numpy(case.features).double(),
        [torch.from_numpy(a).double() for a in case.affines],
    )
    for index, block in enumerate(case.blocks):
        own, size = affines[8 * index : 8 * index + 8], block.out_shape[1:]
        grown = F.interpolate(fused(x, own[:4]), size=size, mode="nearest")
        hidden = fused(convolved(grown, block.conv1, 1), own[4:])
        wide = F.interpolate(x, size=size, mode="nearest")
        shortcut = convolved(wide, block.shortcut, 0) if block.shortcut else wide
        x = shortcut + convolved(hidden, block.conv2, 1)
    return convolved(F.leaky_relu(x, 0.2), case.to_rgb, 1).numpy()


def check(case, threads=1):
    blocks = case.open(threads)
    image, expected = blocks.image(*case.rows(slice(None))), expected_image(case)
    assert image.shape == expected.shape
    assert np.abs(image - expected).max() <= TOLERANCE * np.abs(expected).max()
    np.testing.assert_array_equal(blocks.pixels(*case.rows(slice(None))), to_uint8(image))
    return image


channel_counts = st.integers(1, 67)
ratios = st.sampled_from([(1, 1), (8, 7), (2, 1), (7, 4), (5, 2), (3, 1)])


@st.composite
def cases(draw):
    channels, count = [draw(channel_counts)], draw(st.integers(1, 3))
    sizes = [(draw(st.integers(1, 9)), draw(st.integers(1, 9)))]
    for _ in range(count):
        channels.append(channels[-1] if draw(st.booleans()) else draw(channel_counts))
        # the same ratio in both directions, as the model has it, or two
        ratio = draw(ratios)
        both = ratio, ratio if draw(st.booleans()) else draw(ratios)
        sizes.append(tuple(-(-size * up // down) for size, (up, down) in zip(sizes[-1], both, strict=True)))
    pictures, seed = draw(st.integers(1, 5)), draw(st.integers(0, 2**32))
    return make_case(seed, channels, sizes, pictures, identity=draw(st.sets(st.integers(0, 2))))


@given(cases(), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_random_blocks(case, threads):
    image = check(case, threads)
    other = case.open(threads % 3 + 1)
    for row in range(len(image)):
        np.testing.assert_array_equal(other.image(*case.rows(slice(row, row + 1)))[0], image[row])


@pytest.mark.parametrize(
    "sizes",
    [[(7, 7), (8, 8)], [(8, 8), (16, 16)], [(16, 16), (28, 28)], [(32, 32), (64, 64)], [(5, 9), (23, 9)]],
)
@pytest.mark.parametrize("channels", [(16, 16), (40, 24)])
def test_the_ratios_of_the_model(sizes, channels):
    check(make_case(1, channels, sizes, 2, identity={0}), threads=2)


def test_a_block_with_many_channels():
    """Its weights are more than a CPU's cache holds."""
    check(make_case(2, (384, 384), [(6, 6), (12, 12)], 3, identity={0}), threads=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["features", "affines"])
def test_a_number_that_is_not_finite(value, place):
    case = make_case(3, (5, 4), [(6, 6), (12, 12)], 3)
    array = case.features if place == "features" else case.affines[5]
    array[1].flat[2] = value
    blocks = case.open(2)
    assert blocks.pixels(*case.rows(slice(None))) is None
    image = blocks.image(*case.rows(slice(None)))
    assert not np.isfinite(image[1]).all()
    assert np.isfinite(image[[0, 2]]).all()
    for row in (0, 2):
        np.testing.assert_array_equal(image[row], blocks.image(*case.rows(slice(row, row + 1)))[0])
        np.testing.assert_array_equal(
            blocks.pixels(*case.rows(slice(row, row + 1)))[0], to_uint8(image[row : row + 1])[0]
        )


@pytest.mark.parametrize(
    ("changes", "threads", "why"),
    [
        ({"in_shape": (0, 6, 6)}, 1, "channels must be from 1"),
        ({"out_shape": (0, 12, 12)}, 1, "channels must be from 1"),
        ({"in_shape": (5, 0, 6)}, 1, "sizes must be from 1"),
        ({"out_shape": (4, 5, 12)}, 1, "at least as large as the input"),
        ({"in_shape": (-1, 6, 6)}, 1, "channels must be from 1"),
        ({"shortcut": None}, 1, "a change of channels needs a shortcut"),
        ({"conv1": (None, None)}, 1, "both convolutions are needed"),
        ({}, 0, "threads must be from 1"),
        ({}, 100_000, "threads must be from 1"),
    ],
)
def test_what_cannot_be_computed(changes, threads, why):
    case = make_case(4, (5, 4), [(6, 6), (12, 12)], 1)
    broken = replace(case, blocks=(replace(case.blocks[0], **changes),))
    with pytest.raises(KernelsUnusable, match=why):
        broken.open(threads)


def test_blocks_that_do_not_follow_one_another():
    case = make_case(5, (5, 4, 3), [(6, 6), (12, 12), (12, 12)], 1)
    with pytest.raises(KernelsUnusable, match="block"):
        replace(case, blocks=case.blocks[::-1]).open()


@pytest.mark.parametrize("size", [0, 1, 10])
def test_the_error_fits_into_its_buffer(size):
    error = ctypes.create_string_buffer(b"x" * 20)
    assert not LIBRARY.functions.galip_blocks_open(None, 0, None, None, 1, error, size)
    assert error.raw[size:] == (b"x" * 20 + b"\0")[size:]
    assert size == 0 or 0 in error.raw[:size]


def test_closing_nothing():
    LIBRARY.functions.galip_blocks_close(None)


def test_what_it_says_of_itself():
    case = make_case(6, (5, 4), [(6, 6), (12, 12)], 1)
    blocks = case.open()
    weights = sum(array.nbytes for block in case.blocks for array in (*block.conv1, *block.conv2))
    assert blocks.memory >= weights
    names = [line.split(" ")[0] for line in blocks.algorithms]
    assert names[:2] == ["blocks.0.conv1", "blocks.0.conv2"]


TARGET = """
import sys
sys.path.insert(0, sys.argv[1])
import test_library
test_library.check(test_library.make_case(7, (21, 17, 17), [(7, 7), (8, 8), (16, 16)], 3, {1}), threads=2)
print(test_library.LIBRARY.target)
"""


X86 = ["AVX-512", "AVX2", "SSE4"]
"""best first: a CPU that has one has those after it"""


@pytest.mark.parametrize("target", [*X86, "NEON", "no such thing"])
def test_each_target(target, monkeypatch):
    """What this CPU has is used when it is asked for; what it lacks is ignored."""
    best = LIBRARY.target
    usable = X86[X86.index(best) :] if best in X86 else [best]
    monkeypatch.setenv("GALIP_KERNELS_TARGET", target)
    folder = __file__.rpartition("/")[0]
    process = subprocess.run(
        [sys.executable, "-c", TARGET, folder], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == (target if target in usable else best)
