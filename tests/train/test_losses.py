"""Equation 1's terms against numbers worked out by hand."""

import math

import pytest
import torch

from galip import losses

pytestmark = pytest.mark.usefixtures("one_thread")


def test_hinge():
    logits = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])
    assert losses.hinge_real(logits).item() == pytest.approx((0 + 0 + 0.5 + 2 + 4) / 5)
    assert losses.hinge_fake(logits).item() == pytest.approx((3 + 2 + 1.5 + 0 + 0) / 5)
    assert losses.generator_adversarial(logits).item() == pytest.approx(0.5 / 5)


def test_similarity_is_the_mean_cosine_whatever_the_lengths():
    image = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    sentence = torch.tensor([[5.0, 0.0], [0.0, -1.0], [7.0, 0.0]])
    expected = (1 - 1 + math.sqrt(0.5)) / 3
    assert losses.clip_similarity(image, sentence).item() == pytest.approx(expected)
    halves = losses.clip_similarity(image.bfloat16(), sentence.bfloat16())
    assert halves.dtype is torch.float32
    assert halves.item() == pytest.approx(expected, rel=1e-2)


def linear(a, b, c):
    """A discriminator whose gradients are a on every number of map 0, b on map 1's, c on the sentence's."""

    def discriminate(maps, sentence):
        return a * maps[0].sum(dim=(1, 2, 3)) + b * maps[1].sum(dim=(1, 2, 3)) + c * sentence.sum(dim=1)

    return discriminate


def inputs(dtype=torch.float32):
    return [torch.randn(2, 2, 3, 3, dtype=dtype), torch.randn(2, 1, 3, 3, dtype=dtype)], torch.randn(
        2, 4, dtype=dtype
    )


def test_gradient_penalty_by_hand():
    a, b, c = (torch.tensor(value, requires_grad=True) for value in (0.3, -0.2, 0.5))
    maps, sentence = inputs()
    logits, norm = losses.magp_norm(linear(a, b, c), maps, sentence)
    torch.testing.assert_close(logits, linear(a, b, c)(maps, sentence))
    square = 18 * 0.3**2 + 9 * 0.2**2 + 4 * 0.5**2  # one norm of all gradients, not a sum of norms
    torch.testing.assert_close(norm, torch.full((2,), math.sqrt(square)))
    penalty = losses.magp(norm)
    assert penalty.item() == pytest.approx(2 * square**3, rel=1e-5)
    assert losses.magp(norm, k=3, p=2).item() == pytest.approx(3 * square, rel=1e-5)
    # The penalty's own gradient: d(2·s³)/da = 6·s²·ds/da.
    penalty.backward()
    for number, derivative in ((a, 2 * 18 * 0.3), (b, -2 * 9 * 0.2), (c, 2 * 4 * 0.5)):
        assert number.grad.item() == pytest.approx(6 * square**2 * derivative, rel=1e-4)


def test_norms_are_each_pictures_own():
    maps, sentence = inputs()

    def discriminate(maps, sentence):
        return maps[0].square().sum(dim=(1, 2, 3)) / 2 + maps[1].sum(dim=(1, 2, 3)) + sentence.sum(dim=1)

    _, norm = losses.magp_norm(discriminate, maps, sentence)
    expected = (maps[0].square().sum(dim=(1, 2, 3)) + 9 + 4).sqrt()
    torch.testing.assert_close(norm, expected)


def test_inputs_are_left_alone():
    maps, sentence = inputs()
    sentence.requires_grad_()
    losses.magp(
        losses.magp_norm(linear(*torch.tensor([0.1, 0.2, 0.3], requires_grad=True)), maps, sentence)[1]
    ).backward()
    assert sentence.grad is None
    assert not any(feature.requires_grad for feature in maps)


def test_the_norm_is_float32_where_the_sixth_power_overflows_half():
    maps, sentence = inputs(torch.float16)
    a, b, c = (torch.tensor(2.0, dtype=torch.float16, requires_grad=True) for _ in "abc")
    _, norm = losses.magp_norm(linear(a, b, c), maps, sentence)
    assert norm.dtype is torch.float32
    assert losses.magp(norm).item() == pytest.approx(
        2 * (31 * 4) ** 3, rel=1e-4
    )  # 3.8 million; half ends at 65504


def test_a_flat_discriminator_gets_no_nan():
    """Where logits don't depend on the pictures the norm is 0, and a square root's slope there infinite."""
    zero = [torch.tensor(0.0, requires_grad=True) for _ in "abc"]
    _, norm = losses.magp_norm(linear(*zero), *inputs())
    losses.magp(norm).backward()
    assert [number.grad.item() for number in zero] == [0, 0, 0]
