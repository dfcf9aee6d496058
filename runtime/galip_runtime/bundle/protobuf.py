"""Messages of Protocol Buffers, as ONNX files are: fields of a key (number and wire type) and a value."""

import mmap
from collections.abc import Iterator, Set
from typing import NamedTuple

__all__ = [
    "VARINT",
    "Field",
    "encode_field",
    "encode_varint",
    "read_fields",
    "read_strings",
    "read_varints",
]

VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}


class Field(NamedTuple):
    """A field of a message, by its place in the file."""

    number: int
    wire: int
    start: int
    """of the whole field, its key included"""
    begin: int
    """of its value"""
    end: int
    value: int
    """of a varint; 0 for others"""


def read_fields(
    data: bytes | mmap.mmap, begin: int, end: int, allowed: Set[int] | None = None
) -> Iterator[Field]:
    """The fields of the message that lies at `begin` to `end`.

    Raises ValueError for what is none, and for a field that is not `allowed`: a reader that knows more fields
    than this one does must not find any.
    """
    while begin < end:
        start = begin
        key, begin = _read_varint(data, begin, end)
        number, wire, value = key >> 3, key & 7, 0
        if wire == VARINT:
            value, stop = _read_varint(data, begin, end)
        elif wire == _BYTES:
            length, begin = _read_varint(data, begin, end)
            stop = begin + length
        elif wire in _FIXED:
            stop = begin + _FIXED[wire]
        else:
            raise ValueError(f"byte {start} begins no field")
        if stop > end or not number or key >> 32:  # other readers take the key's last 32 bits
            raise ValueError(f"the field at byte {start} does not end where it should")
        if allowed is not None and number not in allowed:
            raise ValueError(f"the field {number} at byte {start} is none of a graph for a bundle")
        yield Field(number, wire, start, begin, stop, value)
        begin = stop


def read_varints(data: mmap.mmap, field: Field) -> list[int]:
    """Packed numbers."""
    values, begin = [], field.begin
    while begin < field.end:
        value, begin = _read_varint(data, begin, field.end)
        values.append(value)
    return values


def read_strings(data: bytes | mmap.mmap, message: Field, number: int) -> tuple[str, ...]:
    """The texts in field `number`, which has to be one of texts."""
    found = [field for field in read_fields(data, message.begin, message.end) if field.number == number]
    if any(field.wire != _BYTES for field in found):
        raise ValueError(f"the field {number} within byte {message.start} is no text")
    return tuple(data[field.begin : field.end].decode() for field in found)


def _read_varint(data: bytes | mmap.mmap, begin: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, least first, and where it ends."""
    value = 0
    for index in range(10):
        if begin + index >= end:
            break
        byte = data[begin + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, begin + index + 1
    raise ValueError(f"the number at byte {begin} does not end")


def encode_varint(value: int) -> bytes:
    """A number of 7 bits a byte, least first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def encode_field(number: int, content: bytes | str) -> bytes:
    """The field `number` of text or of another message."""
    data = content.encode() if isinstance(content, str) else content
    return encode_varint(number << 3 | _BYTES) + encode_varint(len(data)) + data
