"""Read the members of a tar from its headers.

Python's `tarfile` follows a header wherever it leads: it recurses, reads as many bytes into memory as the
header says, and raises errors of a dozen types. This reader goes through the file once, in constant memory,
and raises only ValueError.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Member", "has_end", "members"]

BLOCK = 512
MAX_EXTENSION = 2**20
"""Bytes of a long name, or of the attributes that pax stores before a member."""
MAX_NAME = 2**15
"""Characters of a member's path."""
MAX_PADDING = 2**24
"""Zero bytes at the end of a tar; most writers fill up to 10 KiB."""

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_WITHOUT_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
)
_RECORD = re.compile(rb"(\d{1,10}) ([^=]+)=")


@dataclass(frozen=True)
class Member:
    """One entry of a tar."""

    name: str
    offset: int
    """Where its content begins, bytes from the beginning of the tar."""
    size: int
    """Of its content, bytes."""
    kind: str
    """file, folder, or other: a link, a device, a sparse file."""


def has_end(file: BinaryIO) -> bool:
    """Return whether the file ends in two blocks of zeros, as a tar does unless it is cut off."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 2 * BLOCK))
    return file.read() == bytes(2 * BLOCK)


def members(file: BinaryIO) -> Iterator[Member]:
    """Yield all members, in order. The caller may read elsewhere in the file between two of them.

    Raises ValueError for a tar that is compressed, cut off, damaged, or followed by another one.
    """
    size = file.seek(0, 2)
    _check_kind(file)
    position, attributes, long_name = 0, dict[bytes, bytes](), b""
    while any(header := _at(file, position, BLOCK)):
        entry = _entry(header, position)
        position += BLOCK
        if entry.type == tarfile.GNUTYPE_SPARSE:
            position = _after_sparse_map(file, header, position)
        length = _length(entry, attributes)
        if not 0 <= length <= size - position:
            raise ValueError(f"a member of {length:,} bytes begins where {size - position:,} are left")
        if entry.type in _PAX:
            attributes = _attributes(_extension(file, position, length))
        elif entry.type == tarfile.XGLTYPE:
            if _attributes(_extension(file, position, length)).keys() & {b"path", b"size"}:
                raise ValueError("all its members are given one name or size")
        elif entry.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _extension(file, position, length).rstrip(b"\0")
        elif entry.type == tarfile.GNUTYPE_LONGLINK:
            _extension(file, position, length)  # where a link leads does not matter
        else:
            yield _member(entry, position, length, attributes, long_name)
            attributes, long_name = {}, b""
        position += -(-length // BLOCK) * BLOCK
    file.seek(position)
    if file.read(MAX_PADDING + 1).strip(b"\0") or file.read(1):
        raise ValueError(_more_follows(position, "a block of zeros"))


def _check_kind(file: BinaryIO) -> None:
    file.seek(0)
    start = file.read(8)
    for magic, packer in _PACKED.items():
        if start.startswith(magic):
            raise ValueError(f"it is packed with {packer}; unpack it to a plain tar")
    if not has_end(file):
        raise ValueError("its end is missing")


def _entry(header: bytes, position: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise ValueError(_more_follows(position, str(error))) from error


def _more_follows(position: int, reason: str) -> str:
    return f"no member can be read at byte {position:,} ({reason}), and more follows"


def _at(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    content = file.read(length)
    if len(content) < length:
        raise ValueError("it ends within a member")
    return content


def _length(entry: tarfile.TarInfo, attributes: dict[bytes, bytes]) -> int:
    """Return the bytes after the header of `entry`; a link, folder or device has none, whatever it says."""
    if entry.type in _WITHOUT_CONTENT:
        return 0
    size = attributes.get(b"size")
    if size is None or entry.type in (*_PAX, tarfile.XGLTYPE):
        return entry.size
    if not re.fullmatch(rb"\d{1,20}", size):
        raise ValueError(f"a member's size is {size[:40]!r}")
    return int(size)


def _extension(file: BinaryIO, position: int, length: int) -> bytes:
    if length > MAX_EXTENSION:
        raise ValueError(f"the name or the attributes of a member have {length:,} bytes")
    return _at(file, position, length)


def _attributes(content: bytes) -> dict[bytes, bytes]:
    """Parse the records of a pax header: LENGTH KEY=VALUE and a newline."""
    records, position = dict[bytes, bytes](), 0
    while position < len(content) and content[position]:
        record = _RECORD.match(content, position)
        end = position + int(record[1]) if record else 0
        if not record or not record.end() < end <= len(content) or content[end - 1] != ord("\n"):
            raise ValueError("the attributes of a member (pax) are damaged")
        records[record[2]] = content[record.end() : end - 1]
        position = end
    return records


def _after_sparse_map(file: BinaryIO, header: bytes, position: int) -> int:
    """Return where the content of an old GNU sparse file begins: its map may continue after the header."""
    goes_on = header[482]
    while goes_on:
        goes_on = _at(file, position, BLOCK)[504]
        position += BLOCK
    return position


def _member(
    entry: tarfile.TarInfo, position: int, length: int, attributes: dict[bytes, bytes], long_name: bytes
) -> Member:
    longer = attributes.get(b"path") or long_name
    name = longer.decode("utf-8", "surrogateescape") if longer else entry.name
    if len(name) > MAX_NAME:
        raise ValueError(f"a member's name has {len(name):,} characters")
    is_sparse = entry.type == tarfile.GNUTYPE_SPARSE or any(
        key.startswith(b"GNU.sparse.") for key in attributes
    )
    kind = "folder" if entry.isdir() else "file" if entry.isreg() and not is_sparse else "other"
    return Member(name, position, length, kind)
