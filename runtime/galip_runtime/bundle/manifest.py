"""The manifest of a bundle: the list of its contents, and the check that the files match it.

`manifest.json` is parsed first, and no other file before its size and sha256 match the manifest.
`read_verified` returns the very bytes that were hashed.
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
from galip_runtime.bundle.specs import (
    CONDITION,
    GRAPHS,
    MANIFEST_NAME,
    Dimensions,
    FileEntry,
    GraphSpec,
    Source,
    TensorSpec,
    TokenizerSpec,
    check_name,
    graph_contract,
)
from galip_runtime.errors import FileRefused
from galip_runtime.files import open_regular, read_regular, sha256_file, sha256_rest
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
__getattr__ = renamed(__name__, {"stamp": "file_signature"})

_MAX_MANIFEST_BYTES = 2**20
_MAX_READ_BYTES = 2**24  # of a file that `read_verified` reads into memory
_PRECISION = re.compile(r"[a-z][a-z0-9_]*")
_REPAIR = "copy the bundle again from where it came, or export it again"


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`. Raises FileRefused, naming the field, if a field is wrong."""

    model: Mapping[str, Any]
    """the model's config, as in the checkpoint"""
    dimensions: Dimensions
    files: Mapping[str, FileEntry]
    """every file of the bundle except the manifest, by name: a plain relative path with forward slashes"""
    graphs: Mapping[str, Mapping[str, GraphSpec]]
    """graph -> precision -> spec, for both `GRAPHS`"""
    tokenizer: TokenizerSpec
    source: Source
    versions: Mapping[str, str]
    """distribution -> version, of everything that the bundle was made with"""
    noise: Mapping[str, str] = field(default_factory=lambda: dict(NOISE_DEFINITION))
    format_version: int = FORMAT_VERSION
    digest: str | None = field(default=None, compare=False)
    """the digest in the text that this was read from; None if that is from before the digest"""

    def __post_init__(self) -> None:
        _check_version(self.format_version)
        if dict(self.noise) != NOISE_DEFINITION:
            raise FileRefused(
                f"the bundle's noise is {self.noise.get('name')!r}, whose definition this galip-runtime does "
                "not implement: install the galip-runtime that belongs to the bundle, or export it again"
            )
        for name in self.files:
            check_name(name)
        if set(self.graphs) != set(GRAPHS):
            raise FileRefused(
                f"graphs are {sorted(self.graphs)!r:.200}; they must be exactly {sorted(GRAPHS)}"
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
                raise FileRefused(f"graphs.{graph}: {precision!r:.80} is not the name of a precision")
            self._check_listed(spec.file, f"{where}.file")
            if (spec.inputs, spec.outputs) != contract:
                raise FileRefused(
                    f"{where} has the inputs and outputs {(spec.inputs, spec.outputs)!r:.400}; they must be "
                    f"{contract}"
                )

    def _check_listed(self, name: str, where: str) -> None:
        if name not in self.files:
            raise FileRefused(f"{where} is {name!r:.200}, which is not among the listed files")

    def to_json(self) -> str:
        """Return the text of `manifest.json`, with a digest; equal manifests always give equal texts."""
        return manifest_text({"format": FORMAT, **REVISION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read a text from `to_json`, also of a later revision, whose additional fields are ignored.

        Raises FileRefused, also if any byte of the text was changed.
        """
        document = parse(text)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise FileRefused(f'it is not a bundle\'s manifest, which has "format": "{FORMAT}"')
        _check_version(document.get("format_version"))  # first: another version may have other fields
        check_text(document, text)
        manifest: Manifest = typed(cls, {DIGEST: None, **document})
        return manifest


def read_manifest(bundle: str | os.PathLike[str]) -> Manifest:
    """Read the manifest of the bundle in the folder `bundle`. Raises FileRefused; checks no other file."""
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
    """Return what to do if `bundle` has no readable manifest."""
    path = os.fspath(bundle)
    if os.path.basename(path) == MANIFEST_NAME and os.path.isfile(path):
        return f": name the bundle's folder, {os.path.dirname(path) or '.'}"
    if path.startswith("~"):
        return ": '~' is a home folder only to a shell; write the path in full"
    definition = ": a bundle is a folder that `galip export` wrote, with manifest.json in it"
    return definition if os.path.exists(path) else f": {path} does not exist{definition}"


def check_files(bundle: str | os.PathLike[str], manifest: Manifest) -> None:
    """Raise FileRefused unless every listed file exists, is regular and has its size.

    A link stands for the file that it points to, within the bundle or, in a folder of Hugging Face's cache,
    among that cache's blobs. Other links are refused.
    """
    folders = _link_targets(Path(bundle))
    for name, entry in manifest.files.items():
        path = Path(bundle) / check_name(name)
        status = _status(path)
        target = Path(os.path.realpath(path))
        if not any(target.is_relative_to(folder) for folder in folders):
            raise FileRefused(
                f"{path} is a link to {target}, which is outside the bundle: copy the file into the bundle"
            )
        if not stat.S_ISREG(status.st_mode):
            raise FileRefused(f"{path} is not a regular file: {_REPAIR}")
        _compare(path, "size", status.st_size, entry.size)


def _link_targets(bundle: Path) -> list[Path]:
    """Return the folders that links in `bundle` may lead to.

    Hugging Face's cache has models--OWNER--NAME/snapshots/COMMIT/…, whose files are links into
    models--OWNER--NAME/blobs.
    """
    folder = Path(os.path.realpath(bundle))
    caches = [parent.parent / "blobs" for parent in folder.parents if parent.name == "snapshots"]
    return [folder, *caches[:1]]


def verify_files(
    bundle: str | os.PathLike[str], manifest: Manifest, names: Iterable[str] | None = None
) -> None:
    """Raise FileRefused for the first of the listed files `names`, or of all, that is not as listed."""
    for name in manifest.files if names is None else names:
        path, entry = Path(bundle) / name, manifest.files[name]
        with _open_listed(Path(bundle), manifest, name) as file:
            try:
                sha256 = sha256_rest(file, entry.size)
            except OSError as error:  # from a disk or a network
                raise _unreadable(path, error) from error
        _compare(path, "sha256", sha256, entry.sha256)


def read_verified(bundle: str | os.PathLike[str], manifest: Manifest, name: str) -> bytes:
    """Return the bytes of the listed file `name`, at most 16 MiB. Raises FileRefused if it was altered."""
    if name not in manifest.files:
        raise FileRefused(f"the manifest of {bundle} does not list {name}: {_REPAIR}")
    expected = manifest.files[name]
    if expected.size > _MAX_READ_BYTES:
        raise FileRefused(
            f"{Path(bundle) / name} has {expected.size:,} bytes; at most {_MAX_READ_BYTES:,} are allowed, "
            "so it is another kind of file: export the bundle again"
        )
    with _open_listed(Path(bundle), manifest, name) as file:
        try:
            data = file.read(expected.size + 1)
        except OSError as error:
            raise _unreadable(Path(bundle) / name, error) from error
    _compare(Path(bundle) / name, "size", len(data), expected.size)
    _compare(Path(bundle) / name, "sha256", hashlib.sha256(data).hexdigest(), expected.sha256)
    return data


def file_signature(path: Path) -> tuple[int, ...]:
    """Return numbers that change whenever the file at `path` is written or replaced.

    For a link, they are those of the file that it points to. Raises FileRefused if the file is gone.
    """
    status = _status(path)
    # st_ctime is the time of creation on Windows; elsewhere it is that of any change, which nobody can set
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def describe_file(path: str | os.PathLike[str]) -> FileEntry:
    """Return the manifest's entry for a file."""
    return FileEntry(sha256=sha256_file(path), size=os.path.getsize(path))


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


def _unreadable(path: Path, error: OSError) -> FileRefused:
    return FileRefused(f"{path} cannot be read ({error.strerror}): {_REPAIR}")


def _compare(path: Path, quantity: str, actual: int | str, expected: int | str) -> None:
    if actual != expected:
        raise FileRefused(
            f"{path} is not the file that the manifest lists: its {quantity} is {actual} instead of "
            f"{expected}. It was cut short or altered; {_REPAIR}"
        )


def _check_version(version: object) -> None:
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise FileRefused(
            f"the bundle's format version is {version!r:.40}, and this galip-runtime reads version "
            f"{FORMAT_VERSION}: install the galip-runtime that belongs to the bundle, or export it again"
        )
