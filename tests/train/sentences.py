"""Sentence vectors as `galip.train.whitening` samples them."""

import torch

from galip.train import whitening

__all__ = ["all_sentences"]


@torch.no_grad()
def all_sentences(text, data, seed):
    """Return the vectors of `data` of all samples (N · samples, D)."""
    return torch.cat([whitening._sentences(text, data, seed, sample) for sample in range(whitening.SAMPLES)])
