"""GALIP's losses (paper, equation 1).

Shapes: N batch, D sentence, C CLIP token width, G CLIP grid. Logits are (N).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["clip_similarity", "generator_adversarial", "hinge_fake", "hinge_real", "magp", "magp_norm"]


def hinge_real(logits: Tensor) -> Tensor:
    """Return the mean of relu(1 - D), for real pictures with their own sentence. Scalar."""
    return F.relu(1 - logits).mean()


def hinge_fake(logits: Tensor) -> Tensor:
    """Return the mean of relu(1 + D), for generated or mismatched pictures. Scalar, before equation 1's ½."""
    return F.relu(1 + logits).mean()


def generator_adversarial(logits: Tensor) -> Tensor:
    """Return -mean D(C(G(z, e)), e). Scalar."""
    return -logits.mean()


def clip_similarity(image_embedding: Tensor, sentence: Tensor) -> Tensor:
    """Return S of equation 1: mean cosine of image embeddings and sentences, both (N, D). In [-1, 1]."""
    return F.cosine_similarity(image_embedding.float(), sentence.float(), dim=1).mean()


def magp_norm(
    discriminate: Callable[[list[Tensor], Tensor], Tensor],
    maps: Sequence[Tensor],
    sentence: Tensor,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return logits (N) and the norm (N) of their gradient with respect to the CLIP maps and the sentence.

    `discriminate(maps, sentence)` returns logits. The paper sums two norms; the released code takes the
    norm of the concatenated gradients, and so do we. Computed in float32, since the sixth power overflows
    fp16. `scale` multiplies the logits before the gradient and divides it afterwards, so that it does not
    underflow in fp16.
    """
    inputs = [feature.detach().requires_grad_() for feature in maps]
    sentence = sentence.detach().requires_grad_()
    logits = discriminate(inputs, sentence)
    gradients = torch.autograd.grad(logits.sum() * scale, [*inputs, sentence], create_graph=True)
    flat = torch.cat([gradient.flatten(1).float() for gradient in gradients], dim=1)  # (N, 3·C·G² + D)
    flat = flat / scale
    return logits, torch.linalg.vector_norm(flat, dim=1)  # unlike sqrt, its gradient at 0 is not NaN


def magp(norm: Tensor, k: float = 2.0, p: float = 6.0) -> Tensor:
    """Return the matching-aware gradient penalty k·mean(norm^p) of norms (N). Scalar."""
    return k * norm.pow(p).mean()
