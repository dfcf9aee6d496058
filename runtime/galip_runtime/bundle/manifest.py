"""The bundle's manifest: what a bundle holds, and the check that it holds exactly that.

`manifest.json` is parsed first, and nothing else before its size and sha256 are those that the manifest
lists. `read_verified` hands out the very bytes that were hashed.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from galip_runtime._renamed import renamed
from galip_runtime.bundle.canonical import DIGEST, REVISION, check_text, manifest_text
from galip_runtime.bundle.decoding import parse, typed
from galip_runtime.errors import FileRefused
from galip_runtime.files import open_regular, read_regular
from galip_runtime.noise import NOISE_DEFINITION

__all__ = [
    "CONDITION",
    "FORMAT",
    "FORMAT_VERSION",
    "GRAPHS",
    "MANIFEST_NAME",
    "Dimensions",
    "FileEntry",
    "GraphSpec",
    "Manifest",
    "Source",
    "TensorSpec",
    "TokenizerSpec",
    "check_files",
    "check_name",
    "describe_file",
    "file_signature",
    "graph_contract",
    "read_manifest",
    "read_verified",
    "sha256_file",
    "verify_files",
]

FORMAT = "galip-bundle"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
__getattr__ = renamed(__name__, {"stamp": "file_signature"})

GRAPHS = ("text_encoder", "generator")
CONDITION = "condition"
"""The tensor within the generator that the sentence alone decides, and through which alone it matters."""

_MAX_MANIFEST_BYTES = 2**20
_MAX_FILE_BYTES = 2**33  # an ONNX graph has at most 2**31, as any protobuf; an engine may have more
_MAX_READ_BYTES = 2**24  # of a file that is read as a whole
_MAX_DIMENSION = 2**16
_BLOCK = 2**20  # bytes hashed at a time
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
_PRECISION = re.compile(r"[a-z][a-z0-9_]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPAIR = "copy the bundle again from where it came, or export it again"


@dataclass(frozen=True)
class Dimensions:
    """Sizes that callers need, each at least 1."""

    image_height: int
    """H, pixels"""
    image_width: int
    """W, pixels"""
    noise_dim: int
    """Z, numbers in a row of noise"""
    sentence_dim: int
    """D, numbers in a sentence vector"""
    context_length: int
    """ids in a row of tokens, at most"""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 1 <= value <= _MAX_DIMENSION:
                raise FileRefused(f"dimensions.{name} is {value}; from 1 to {_MAX_DIMENSION} would be right")


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle."""

    sha256: str
    """64 lower-case hexadecimal digits"""
    size: int
    """bytes"""

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise FileRefused(f"{self.sha256!r:.80} is no sha256 of 64 lower-case hexadecimal digits")
        if not 0 <= self.size <= _MAX_FILE_BYTES:
            raise FileRefused(f"a file's size is {self.size}; from 0 to {_MAX_FILE_BYTES} would be right")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph."""

    name: str
    dtype: str
    """`float32` or `int64`"""
    shape: tuple[int | str, ...]
    """sizes; a name where the size is dynamic"""


@dataclass(frozen=True)
class GraphSpec:
    """One graph in one precision."""

    file: str
    """name in `Manifest.files`"""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    """of the default ONNX domain"""


@dataclass(frozen=True)
class TokenizerSpec:
    """The vocabulary and how it is used."""

    file: str
    """name in `Manifest.files`; what `Tokenizer.to_bytes` wrote"""
    merges: int
    """merges in the file; the vocabulary has 512 + merges + 2 ids"""
    context_length: int
    """the same as in the dimensions"""


@dataclass(frozen=True)
class Source:
    """The checkpoint that the bundle was made from."""

    name: str
    sha256: str


def graph_contract(
    dimensions: Dimensions, graph: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs that `graph` (`text_encoder` or `generator`) has to have; N and L are dynamic."""
    sentence = TensorSpec("sentence", "float32", ("N", dimensions.sentence_dim))
    if graph == "text_encoder":
        return (TensorSpec("tokens", "int64", ("N", "L")),), (sentence,)
    assert graph == "generator", graph
    noise = TensorSpec("noise", "float32", ("N", dimensions.noise_dim))
    image = TensorSpec("image", "float32", ("N", 3, dimensions.image_height, dimensions.image_width))
    return (noise, sentence), (image,)


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`. Building one checks it: FileRefused names the field that is wrong."""

    model: Mapping[str, Any]
    """the model's config, as the checkpoint has it"""
    dimensions: Dimensions
    files: Mapping[str, FileEntry]
    """every file of the bundle but the manifest, by its name: a plain relative path with forward slashes"""
    graphs: Mapping[str, Mapping[str, GraphSpec]]
    """graph -> precision -> spec, for both of `GRAPHS`"""
    tokenizer: TokenizerSpec
    source: Source
    versions: Mapping[str, str]
    """distribution -> version, of everything that made the bundle"""
    noise: Mapping[str, str] = field(default_factory=lambda: dict(NOISE_DEFINITION))
    format_version: int = FORMAT_VERSION
    digest: str | None = field(default=None, compare=False)
    """the one in the text that this was read from; None where that was written before there was one"""

    def __post_init__(self) -> None:
        _check_version(self.format_version)
        if dict(self.noise) != NOISE_DEFINITION:
            raise FileRefused(
                f"the bundle's noise is {self.noise.get('name')!r} by a definition that this galip-runtime "
                "does not compute: install the galip-runtime that belongs to the bundle, or export it again"
            )
        for name in self.files:
            check_name(name)
        if set(self.graphs) != set(GRAPHS):
            raise FileRefused(
                f"graphs are {sorted(self.graphs)!r:.200}; exactly {sorted(GRAPHS)} would be right"
            )
        for graph in GRAPHS:
            self._check_graph(graph)
        self._check_listed(self.tokenizer.file, "tokenizer.file")
        if self.tokenizer.context_length != self.dimensions.context_length:
            raise FileRefused("tokenizer.context_length and dimensions.context_length differ")

    def _check_graph(self, graph: str) -> None:
        contract = graph_contract(self.dimensions, graph)
        if not self.graphs[graph]:
            raise FileRefused(f"graphs.{graph} has no precision")
        for precision, spec in self.graphs[graph].items():
            where = f"graphs.{graph}.{precision}"
            if not _PRECISION.fullmatch(precision):
                raise FileRefused(f"graphs.{graph}: {precision!r:.80} is no precision, such as fp32")
            self._check_listed(spec.file, f"{where}.file")
            if (spec.inputs, spec.outputs) != contract:
                raise FileRefused(
                    f"{where} has the inputs and outputs {(spec.inputs, spec.outputs)!r:.400}; needed are "
                    f"{contract}"
                )

    def _check_listed(self, name: str, where: str) -> None:
        if name not in self.files:
            raise FileRefused(f"{where} is {name!r:.200}, which is not among the files listed")

    def to_json(self) -> str:
        """The text of `manifest.json`, with a digest; the same manifest always gives the same text."""
        return manifest_text({"format": FORMAT, **REVISION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read `to_json`'s text, or that of a later revision, whose further fields are ignored.

        Raises FileRefused, also where a byte of the text was changed.
        """
        document = parse(text)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise FileRefused(f'it is not a bundle\'s manifest, which says "format": "{FORMAT}"')
        _check_version(document.get("format_version"))  # first: another version's fields may differ
        check_text(document, text)
        manifest: Manifest = typed(cls, {DIGEST: None, **document})
        return manifest


def read_manifest(bundle: str | os.PathLike[str]) -> Manifest:
    """The manifest of the bundle in the folder `bundle`. Raises FileRefused; checks no other file."""
    path = os.path.join(bundle, MANIFEST_NAME)
    try:
        text = read_regular(path, _MAX_MANIFEST_BYTES)
    except FileRefused as error:
        raise FileRefused(f"{error}{_hint(bundle)}") from error
    try:
        return Manifest.from_json(text)
    except FileRefused as error:
        raise FileRefused(f"{path} is refused: {error}") from error


def _hint(bundle: str | os.PathLike[str]) -> str:
    """What to do where `bundle` has no manifest that can be read."""
    path = os.fspath(bundle)
    if os.path.basename(path) == MANIFEST_NAME and os.path.isfile(path):
        return f": name the bundle's folder, {os.path.dirname(path) or '.'}"
    if path.startswith("~"):
        return ": '~' is a home folder only to a shell; write the path in full"
    what = ": a bundle is a folder that `galip export` wrote, with manifest.json in it"
    return what if os.path.exists(path) else f": {path} does not exist{what}"


def check_files(bundle: str | os.PathLike[str], manifest: Manifest) -> None:
    """Check that every listed file is there, regular, and of its size. Raises FileRefused.

    A link, as in Hugging Face's cache, stands for the file that it leads to.
    """
    for name, entry in manifest.files.items():
        path = Path(bundle) / check_name(name)
        status = _status(path)
        if not stat.S_ISREG(status.st_mode):
            raise FileRefused(f"{path} is not a regular file: {_REPAIR}")
        _compare(path, "size", status.st_size, entry.size)


def verify_files(
    bundle: str | os.PathLike[str], manifest: Manifest, names: Iterable[str] | None = None
) -> None:
    """Check the listed files `names`, or all. Raises FileRefused for the first that is not as listed."""
    for name in manifest.files if names is None else names:
        with _open_listed(Path(bundle), manifest, name) as file:
            sha256 = _sha256(file, manifest.files[name].size)
        _compare(Path(bundle) / name, "sha256", sha256, manifest.files[name].sha256)


def read_verified(bundle: str | os.PathLike[str], manifest: Manifest, name: str) -> bytes:
    """The bytes of the listed file `name`, at most 16 MiB. Raises FileRefused if they are not as listed."""
    if name not in manifest.files:
        raise FileRefused(f"the manifest of {bundle} does not list {name}: {_REPAIR}")
    expected = manifest.files[name]
    if expected.size > _MAX_READ_BYTES:
        raise FileRefused(
            f"{Path(bundle) / name} has {expected.size:,} bytes; at most {_MAX_READ_BYTES:,} are read of it, "
            "so this is another kind of file: export the bundle again"
        )
    with _open_listed(Path(bundle), manifest, name) as file:
        try:
            data = file.read(expected.size + 1)
        except OSError as error:
            raise _unreadable(Path(file.name), error) from error
    _compare(Path(bundle) / name, "size", len(data), expected.size)
    _compare(Path(bundle) / name, "sha256", hashlib.sha256(data).hexdigest(), expected.sha256)
    return data


def file_signature(path: Path) -> tuple[int, ...]:
    """What changes whenever the file at `path` is written or replaced. Raises FileRefused if it is gone.

    Of a link, it is the signature of the file that it leads to.
    """
    status = _status(path)
    # Windows has the time of creation in st_ctime, elsewhere it is that of any change, which nobody can set
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The file's sha256 as 64 hexadecimal digits, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_file(path: str | os.PathLike[str]) -> FileEntry:
    """What a manifest lists of a file."""
    return FileEntry(sha256=sha256_file(path), size=os.path.getsize(path))


def check_name(name: str) -> str:
    """`name`, if it is a plain relative path that cannot leave its folder. Raises FileRefused otherwise."""
    if len(name) > 200 or not _NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise FileRefused(
            f"{name!r:.220} is no name for a file of a bundle: a relative path of letters, digits, "
            "'.', '_', '-' and '+' with '/' between folders would be right, without '..' or hidden parts"
        )
    return name


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error


def _open_listed(bundle: Path, manifest: Manifest, name: str) -> BufferedReader:
    path = bundle / check_name(name)
    try:
        file = open_regular(path)
    except FileRefused as error:
        raise FileRefused(f"{error}: {_REPAIR}") from error
    try:
        _compare(path, "size", os.fstat(file.fileno()).st_size, manifest.files[name].size)
    except FileRefused:
        file.close()
        raise
    return file


def _sha256(file: BufferedReader, size: int) -> str:
    """Of the file's first `size` bytes: it ends even where somebody goes on writing."""
    digest = hashlib.sha256()
    try:
        while size > 0 and (block := file.read(min(size, _BLOCK))):
            digest.update(block)
            size -= len(block)
    except OSError as error:  # of a disk or a network
        raise _unreadable(Path(file.name), error) from error
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError) -> FileRefused:
    return FileRefused(f"{path} cannot be read ({error.strerror}): {_REPAIR}")


def _compare(path: Path, what: str, found: int | str, expected: int | str) -> None:
    if found != expected:
        raise FileRefused(
            f"{path} is not the file that the manifest lists: its {what} is {found} instead of {expected}. "
            f"It was cut short or altered; {_REPAIR}"
        )


def _check_version(version: object) -> None:
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise FileRefused(
            f"the bundle's format version is {version!r:.40} and this galip-runtime reads version "
            f"{FORMAT_VERSION}: install the galip-runtime that belongs to the bundle, or export it again"
        )
