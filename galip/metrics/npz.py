"""Read arrays of an untrusted .npz file: the sizes that it claims are checked before memory is allocated."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from galip_runtime.files import open_regular
from numpy.typing import NDArray

__all__ = ["read_npz"]

_MAX_FILE_BYTES = 2**30
_MAX_DIRECTORY_BYTES = 2**20
_END, _END_BYTES = b"PK\5\6", 22  # the record at the end of a zip archive
_KINDS = "fiu"  # numpy's letters of real numbers: no complex ones, no text, no objects


def read_npz(path: Path, names: Sequence[str], most: int) -> dict[str, NDArray[Any]]:
    """Read those of the arrays `names` that the file has, of real numbers, at most `most` numbers each.

    Nothing is unpickled. Raises FileRefused for anything but a regular file of up to a gigabyte, ValueError
    for one that is damaged or holds something else.
    """
    with open_regular(path, _MAX_FILE_BYTES) as file:
        try:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                members = {
                    name: [m for m in archive.infolist() if m.filename == f"{name}.npy"] for name in names
                }
                if doubled := [name for name, infos in members.items() if len(infos) > 1]:
                    raise ValueError(f"{doubled[0]} is there twice")
                return {name: _array(archive, infos[0], most) for name, infos in members.items() if infos}
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise ValueError(str(error) or type(error).__name__) from error  # RuntimeError: it is encrypted


def _check_directory(file: IO[bytes]) -> None:
    """Raise ValueError for an archive of so many members that listing them takes much memory."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_BYTES - 2**16))
    tail = file.read()
    # the places at which zipfile looks: with no comment after it, then the last one
    end = len(tail) - _END_BYTES
    if tail[end : end + 4] != _END or tail[-2:] != b"\0\0":
        end = tail.rfind(_END)
    if end >= 20 and tail[end - 20 : end - 16] == b"PK\6\7":
        raise ValueError("it is a Zip64 archive, which a few arrays do not need; save them with numpy")
    if end >= 0 and int.from_bytes(tail[end + 12 : end + 16], "little") > _MAX_DIRECTORY_BYTES:
        raise ValueError("it has thousands of members; a few arrays are expected")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> NDArray[Any]:
    with archive.open(member) as stream:
        shape, dtype = _header(stream)
    count = 1
    for size in shape:
        count *= size
    if dtype.kind not in _KINDS or dtype.itemsize > 8:
        raise ValueError(f"{member.filename} is of {dtype}; real numbers of at most 64 bits are read")
    if count > most or member.file_size > count * dtype.itemsize + 2**16:
        raise ValueError(f"{member.filename} of shape {shape} and {member.file_size:,} bytes is too large")
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"its .npy format {version} is unknown")
    try:
        shape, _, dtype = read[version](stream)
    except (SyntaxError, tokenize.TokenError) as error:  # numpy reads the header as Python's literals
        raise ValueError(f"its .npy header is damaged: {error}") from error
    if not all(type(size) is int and 0 <= size < _MAX_FILE_BYTES for size in shape):  # True is no size
        raise ValueError(f"its shape is {shape!r:.80}")
    return shape, dtype
