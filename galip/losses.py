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
    """Mean of relu(1 - D): pictures that match their sentence. Scalar."""
    return F.relu(1 - logits).mean()


def hinge_fake(logits: Tensor) -> Tensor:
    """Mean of relu(1 + D): generated pictures, or real ones with another's sentence. Scalar, before its ½."""
    return F.relu(1 + logits).mean()


def generator_adversarial(logits: Tensor) -> Tensor:
    """-mean D(C(G(z, e)), e). Scalar."""
    return -logits.mean()


def clip_similarity(image_embedding: Tensor, sentence: Tensor) -> Tensor:
    """S of equation 1: mean cosine of image embeddings and sentences, both (N, D). Scalar in [-1, 1]."""
    return F.cosine_similarity(image_embedding.float(), sentence.float(), dim=1).mean()


def magp_norm(
    discriminate: Callable[[list[Tensor], Tensor], Tensor],
    maps: Sequence[Tensor],
    sentence: Tensor,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Logits (N) and the norm (N) of their gradient with respect to the CLIP maps and the sentence.

    `discriminate(maps, sentence)` gives logits. The paper sums two norms; the released code takes the
    norm of the concatenated gradients, and so do we. In float32: the sixth power overflows fp16.
    `scale` multiplies the logits before the gradient is taken and divides it after, lest fp16 lose it.
    """
    inputs = [feature.detach().requires_grad_() for feature in maps]
    sentence = sentence.detach().requires_grad_()
    logits = discriminate(inputs, sentence)
    gradients = torch.autograd.grad(logits.sum() * scale, [*inputs, sentence], create_graph=True)
    flat = (
        torch.cat([gradient.flatten(1).float() for gradient in gradients], dim=1) / scale
    )  # (N, 3·C·G² + D)
    return logits, torch.linalg.vector_norm(flat, dim=1)  # unlike a square root, no NaN slope at 0


def magp(norm: Tensor, k: float = 2.0, p: float = 6.0) -> Tensor:
    """Matching-aware gradient penalty k·mean(norm^p), of norms (N). Scalar."""
    return k * norm.pow(p).mean()
