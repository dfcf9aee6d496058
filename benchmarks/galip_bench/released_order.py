"""The released code's training step, in its order of operations, as the baseline for `galip train`.

How the released code differs: a generator block doubles the size first and works at the larger one. Prompts
are padded to CLIP's context. Its `train` loop asks for gradients of the real pictures and sentences, so that
the discriminator's backward pass runs through CLIP down to the real pictures, and takes MAGP from these
gradients. Generated pictures go through CLIP once, but through Mate-D twice. The generator's backward pass
also fills the discriminator's gradients, which nobody uses. Tensors are contiguous. The losses are the same.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from galip import losses
from galip.model import Galip, GenerationBlock, Generator

__all__ = ["release_generator", "released_step"]


def release_generator(generator: Generator) -> None:
    """Let the blocks of `generator` double the size first, as in the released code, with equal results."""
    for block in generator.blocks:
        assert isinstance(block, GenerationBlock)
        block.forward = functools.partial(_upsample_first, block)  # type: ignore[method-assign]


def _upsample_first(block: GenerationBlock, x: Tensor, cond: Tensor) -> Tensor:
    x = block.upsample(x)  # (N, Ci, size, size)
    h = block.conv1(block.df1(x, cond))  # (N, Co, size, size)
    return block.shortcut(x) + block.conv2(block.df2(h, cond))


def released_step(
    model: Galip,
    optimizer_g: torch.optim.Optimizer,
    optimizer_d: torch.optim.Optimizer,
    real: Tensor,
    tokens: Tensor,
    noise: Tensor,
    similarity_weight: float = 4.0,
) -> dict[str, Tensor]:
    """Update both networks on real (N, 3, H, W), tokens (N, L), noise (N, Z); return the losses by name."""
    mate, assessor = model.discriminator.mate, model.discriminator.assessor
    optimizer_d.zero_grad()
    with torch.no_grad():
        sentence = model.text(tokens)  # (N, D)
    real, sentence = real.requires_grad_(), sentence.requires_grad_()
    real_maps, _ = model.collect(real)
    features = mate(real_maps)
    real_logits = assessor(features, sentence)
    mismatched = assessor(features, sentence.roll(-1, dims=0).detach())
    fake = model.generator(noise, sentence)
    fake_maps, embedding = model.collect(fake)
    fake_logits = assessor(mate([maps.detach() for maps in fake_maps]), sentence)
    gradients = torch.autograd.grad(real_logits.sum(), [*real_maps, sentence], create_graph=True)
    norm = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1).square().sum(dim=1).sqrt()
    terms = {
        "d_real": losses.hinge_real(real_logits),
        "d_mis": losses.hinge_fake(mismatched),
        "d_fake": losses.hinge_fake(fake_logits),
        "magp": losses.magp(norm),
    }
    (terms["d_real"] + (terms["d_fake"] + terms["d_mis"]) / 2 + terms["magp"]).backward(retain_graph=True)
    optimizer_d.step()
    optimizer_g.zero_grad()
    terms["g_adv"] = losses.generator_adversarial(assessor(mate(fake_maps), sentence))
    terms["clip_sim"] = losses.clip_similarity(embedding, sentence)
    (terms["g_adv"] - similarity_weight * terms["clip_sim"]).backward()
    optimizer_g.step()
    return {name: term.detach() for name, term in terms.items()}
