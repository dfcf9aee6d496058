"""Whitening of sentence vectors once the towers are trained (`train-clip --whiten`).

Towers trained on few pictures put most of their variance into a handful of directions: most captions differ
by colour. GALIP's generator reads every sentence through linear layers, which learn along wide directions
first and hardly along narrow ones, so a bear and an American football come out alike. Whitening is an affine
map of the sentence vector, so it goes into the text tower's own weights and loses nothing. The head of the
image tower is then trained again to match.

Training and whitening rotate the vectors arbitrarily. Turning them back as near as possible to those that a
generator was trained with (orthogonal Procrustes), if these were whitened, too, lets it go on with what it
can draw.

Shapes: N captions or pictures, C token width, D embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galip.clip import ImageTower, TextTower
from galip.data.sampler import generator_for
from galip.train.augment import POSE_DIMS, pose, to_float
from galip.train.in_memory import InMemoryPictures

__all__ = ["MAX_LOGIT_SCALE", "refit_image_head", "turn_sentences", "whiten_sentences"]

MAX_LOGIT_SCALE = math.log(100)
"""CLIP's bound on the logarithm of the factor that similarities are multiplied by."""

SHRINKAGE = 0.01
"""Added to each direction's variance, as a share of their mean, so that the narrowest ones, which hold little
more than wording, are not amplified."""

UNTURNED = 1e-10
"""Weight of the identity in the choice of a rotation, so that directions without captions stay."""

SAMPLES = 4
"""Captions and poses sampled for each picture, for the statistics and the head."""

HEAD_STEPS, HEAD_BATCH, HEAD_LR = 600, 512, 3e-3

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@torch.no_grad()
def whiten_sentences(text: TextTower, data: InMemoryPictures, seed: int) -> None:
    """Change `text` so that its sentence vectors of `data` have mean 0 and nearly the identity as covariance.

    The mean goes into the bias of the last norm, the whitening matrix (ZCA: the symmetric one, which turns
    vectors least) into the projection.
    """
    sentences = torch.cat([_sentences(text, data, seed, sample) for sample in range(SAMPLES)])  # (N, D)
    mean = sentences.mean(dim=0)  # (D)
    variance, directions = torch.linalg.eigh(torch.cov((sentences - mean).T))  # (D), (D, D)
    widths = (variance.clamp_min(0) + SHRINKAGE * variance.mean()).rsqrt()  # (D)
    whitening = (directions * widths) @ directions.T  # (D, D)
    projection = text.text_projection.double()  # (C, D)
    # the bias that projects to the mean; it exists, as the mean is a combination of the projection's rows
    text.ln_final.bias -= (mean.double() @ torch.linalg.pinv(projection)).float()
    text.text_projection.copy_(projection @ whitening.double())


@torch.no_grad()
def turn_sentences(text: TextTower, towards: TextTower, data: InMemoryPictures, seed: int) -> None:
    """Change `text` so that its sentence vectors of `data` are turned as near as possible to those of
    `towards`. Their lengths and the angles between them stay.
    """
    pairs = [
        [_sentences(tower, data, seed, sample).double() for sample in range(SAMPLES)]
        for tower in (text, towards)
    ]
    products = torch.cat(pairs[0]).T @ torch.cat(pairs[1])  # (D, D)
    products += UNTURNED * products.norm() * torch.eye(len(products)).to(products)
    left, _, right = torch.linalg.svd(products)
    text.text_projection.copy_(text.text_projection.double() @ left @ right)


def refit_image_head(
    image: ImageTower, text: TextTower, logit_scale: Tensor, data: InMemoryPictures, seed: int, loss: Loss
) -> None:
    """Train the image tower's projection, the bias before it and `logit_scale` to match `text` again."""
    views = [_features(image, data, seed, sample) for sample in range(SAMPLES)]  # each (N, C)
    sentences = [_sentences(text, data, seed, sample) for sample in range(SAMPLES)]  # each (N, D)
    offset = torch.zeros_like(image.ln_post.bias, requires_grad=True)  # (C)
    head = nn.Parameter(image.proj.detach().clone())  # (C, D)
    scale = nn.Parameter(logit_scale.detach().clone())
    optimizer = torch.optim.AdamW([offset, head, scale], lr=HEAD_LR, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, HEAD_STEPS)
    for step in range(HEAD_STEPS):
        rng = generator_for(seed, "image head", step)
        rows = torch.randperm(len(data), generator=rng)[:HEAD_BATCH].to(head.device)
        view, sample = torch.randint(SAMPLES, (2,), generator=rng).tolist()
        embedding = (views[view][rows] + offset) @ head  # (N, D)
        sentence = sentences[sample][rows]  # (N, D)
        optimizer.zero_grad()
        loss(F.normalize(embedding, dim=1), F.normalize(sentence, dim=1), scale.exp()).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            scale.clamp_(0, MAX_LOGIT_SCALE)
    with torch.no_grad():
        image.ln_post.bias += offset
        image.proj.copy_(head)
        logit_scale.copy_(scale)


@torch.no_grad()
def _sentences(text: TextTower, data: InMemoryPictures, seed: int, sample: int) -> Tensor:
    """Return sentence vectors (N, D) of a caption of each picture."""
    rng, device = generator_for(seed, "whitening captions", sample), text.text_projection.device
    return torch.cat([text(data.tokens(part, rng).to(device)) for part in torch.arange(len(data)).split(256)])


@torch.no_grad()
def _features(image: ImageTower, data: InMemoryPictures, seed: int, sample: int) -> Tensor:
    """Return the image tower's features before its projection (N, C), of each picture in a random pose."""
    rng, device = generator_for(seed, "whitening poses", sample), image.proj.device
    features: list[Tensor] = []  # the last norm's outputs, which the projection reads
    hook = image.ln_post.register_forward_hook(lambda module, inputs, output: features.append(output))
    for part in torch.arange(len(data)).split(256):
        uniform = torch.rand(len(part), POSE_DIMS, generator=rng).to(device)
        pictures = pose(to_float(data.pictures[part].to(device)), uniform)  # (N, 3, S, S)
        image(pictures, ())
    hook.remove()
    return torch.cat(features)  # (N, C)
