"""A sentence encoder as teacher of the text tower (`train-clip --teacher`).

Few pictures teach few words: "automobile" is no car to a tower that has read "car". The teacher's vectors,
made beforehand and read from a file, say which texts mean nearly the same. A linear map of our sentence
vectors has to point where they do. It leaves other directions to what pictures teach, such as the style.

Shapes: M texts in the file, N of a step, L tokens, D embedding width, T the teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import staged_file
from galip_runtime.tokenizer import Tokenizer, trim
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from galip.data.batches import encode_captions
from galip.tensors import read_header, read_safetensors

__all__ = ["SentenceTeacher", "read_teacher", "write_teacher"]

TEMPERATURE = 0.05
"""Of the cosines, as in SimCSE."""


def write_teacher(path: Path, texts: Sequence[str], vectors: NDArray[np.floating]) -> None:
    """Write a teacher file: `texts`, UTF-8 bytes uint8 of one text a line; `vectors` float16 (M, T).

    Raises `UsageError` if the numbers differ or a text has more than one line.
    """
    if len(texts) != len(vectors) or any(text.splitlines() != [text] for text in texts):
        raise UsageError(f"{len(texts)} texts of a line each and {len(vectors)} vectors don't fit together")
    lines = np.frombuffer("\n".join(texts).encode(), np.uint8)
    with staged_file(path) as temporary:
        save_file(
            {"texts": torch.from_numpy(lines.copy()), "vectors": torch.from_numpy(vectors).half()}, temporary
        )


def read_teacher(path: Path) -> tuple[list[str], Tensor]:
    """Return a teacher file's texts and their vectors float32 (M, T), of length one.

    Raises `FileRefused` for a file that `write_teacher` can't have written.
    """
    specs = read_header(path).tensors
    found = {name: (spec.dtype, len(spec.shape)) for name, spec in specs.items()}
    if found not in ({"texts": ("U8", 1), "vectors": (dtype, 2)} for dtype in ("F16", "F32")):
        raise FileRefused(
            f"{path} is no teacher file: it holds {', '.join(sorted(specs)[:5]) or 'nothing'}; it must hold "
            "texts (bytes, one text a line) and vectors (a row of numbers for each text, fp16 or fp32)"
        )
    tensors = read_safetensors(path)
    vectors = tensors["vectors"].float()
    try:
        texts = tensors["texts"].numpy().tobytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise FileRefused(f"{path}: its texts are not UTF-8 ({error})") from error
    if len(texts) != len(vectors):
        raise FileRefused(f"{path} has {len(texts)} texts and {len(vectors)} vectors; it needs one for each")
    lengths = vectors.norm(dim=1, keepdim=True)  # (M, 1)
    if not bool((lengths.isfinite() & (lengths > 0)).all()):
        raise FileRefused(f"{path} has vectors that are not finite or zero")
    return texts, vectors / lengths


class SentenceTeacher(nn.Module):
    """The texts and vectors of a teacher file, and the linear map from our sentence vectors to those."""

    vectors: Tensor

    def __init__(self, path: Path, tokenizer: Tokenizer, embed_dim: int) -> None:
        """Read the file at `path`. Raises as `read_teacher`."""
        super().__init__()
        texts, vectors = read_teacher(path)
        self._tokens = encode_captions(tokenizer, texts, str(path)).astype(np.int32)  # (M, context)
        self.register_buffer("vectors", vectors, persistent=False)  # (M, T)
        self.map = nn.Linear(embed_dim, vectors.shape[1])

    def __len__(self) -> int:
        return len(self._tokens)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return tokens int64 (N, L) and vectors (N, T) of `count` texts."""
        rows = torch.randint(len(self), (count,), generator=generator)
        tokens = torch.from_numpy(trim(self._tokens[rows.numpy()].astype(np.int64)))
        return tokens, self.vectors[rows.to(self.vectors.device)]

    def loss(self, sentences: Tensor, vectors: Tensor) -> Tensor:
        """Return how badly each of `sentences` (N, D) finds its own among the teacher's `vectors` (N, T):
        InfoNCE, the cross entropy of their cosines; log N for chance. Even at best it is above 0 where texts
        share a vector or mean nearly the same.
        """
        cosines = F.normalize(self.map(sentences.float()), dim=1) @ vectors.T  # (N, N)
        return F.cross_entropy(cosines / TEMPERATURE, torch.arange(len(vectors), device=vectors.device))
