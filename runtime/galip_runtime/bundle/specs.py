"""The parts of a manifest: dimensions, files, graphs and their tensors, tokenizer and source."""

import re
from dataclasses import asdict, dataclass

from galip_runtime.errors import FileRefused

__all__ = [
    "CONDITION",
    "GRAPHS",
    "MANIFEST_NAME",
    "Dimensions",
    "FileEntry",
    "GraphSpec",
    "Source",
    "TensorSpec",
    "TokenizerSpec",
    "check_name",
    "graph_contract",
]

MANIFEST_NAME = "manifest.json"
GRAPHS = ("text_encoder", "generator")
CONDITION = "condition"
"""The generator's inner tensor that depends on the sentence alone; the sentence acts through it alone."""

_MAX_FILE_BYTES = 2**33  # an ONNX graph has at most 2**31, like any protobuf; an engine may have more
_MAX_DIMENSION = 2**16
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Dimensions:
    """The sizes that callers need, each at least 1."""

    image_height: int
    """H, pixels"""
    image_width: int
    """W, pixels"""
    noise_dim: int
    """Z, numbers in a row of noise"""
    sentence_dim: int
    """D, numbers in a sentence vector"""
    context_length: int
    """the most ids in a row of tokens"""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 1 <= value <= _MAX_DIMENSION:
                raise FileRefused(f"dimensions.{name} is {value}; it must be from 1 to {_MAX_DIMENSION}")


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle."""

    sha256: str
    """64 lower-case hexadecimal digits"""
    size: int
    """bytes"""

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise FileRefused(f"{self.sha256!r:.80} is not a sha256 of 64 lower-case hexadecimal digits")
        if not 0 <= self.size <= _MAX_FILE_BYTES:
            raise FileRefused(f"a file's size is {self.size}; it must be from 0 to {_MAX_FILE_BYTES}")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph."""

    name: str
    dtype: str
    """`float32` or `int64`"""
    shape: tuple[int | str, ...]
    """sizes, or names for dynamic sizes"""


@dataclass(frozen=True)
class GraphSpec:
    """A graph in one precision."""

    file: str
    """name in `Manifest.files`"""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    """of the default ONNX domain"""


@dataclass(frozen=True)
class TokenizerSpec:
    """The tokenizer's vocabulary and settings."""

    file: str
    """name in `Manifest.files`, of the bytes from `Tokenizer.to_bytes`"""
    merges: int
    """merges in the file; the vocabulary has 512 + merges + 2 ids"""
    context_length: int
    """the same as in `Dimensions`"""


@dataclass(frozen=True)
class Source:
    """The checkpoint that the bundle was made from."""

    name: str
    sha256: str


def graph_contract(
    dimensions: Dimensions, graph: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs that `graph` (one of `GRAPHS`) must have; N and L are dynamic."""
    sentence = TensorSpec("sentence", "float32", ("N", dimensions.sentence_dim))
    if graph == "text_encoder":
        return (TensorSpec("tokens", "int64", ("N", "L")),), (sentence,)
    assert graph == "generator", graph
    noise = TensorSpec("noise", "float32", ("N", dimensions.noise_dim))
    image = TensorSpec("image", "float32", ("N", 3, dimensions.image_height, dimensions.image_width))
    return (noise, sentence), (image,)


def check_name(name: str) -> str:
    """Return `name`. Raises FileRefused unless it is a plain relative path that cannot leave its folder."""
    if len(name) > 200 or not _NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise FileRefused(
            f"{name!r:.220} is not a valid name for a bundle's file: it must be a relative path of letters, "
            "digits, '.', '_', '-' and '+', with '/' between folders, without '..' or hidden parts"
        )
    return name
