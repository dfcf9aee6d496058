"""Protocol Buffers messages, the format of ONNX files: fields of a key (number, wire type) and a value."""

import mmap
from collections.abc import Iterator, Set
from typing import NamedTuple

__all__ = [
    "FIXED32",
    "VARINT",
    "Field",
    "encode_field",
    "encode_varint",
    "read_fields",
    "read_strings",
    "read_varints",
]

VARINT, _FIXED64, _BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """A field of a message, by its position in the file."""

    number: int
    wire: int
    start: int
    """where the field begins, including its key"""
    begin: int
    """where its value begins"""
    end: int
    value: int
    """a varint's number; 0 for other wire types"""


def read_fields(
    data: bytes | mmap.mmap, begin: int, end: int, allowed: Set[int] | None = None
) -> Iterator[Field]:
    """Iterate over the fields of the message from `begin` to `end`.

    Raises ValueError if it is malformed, and for a field that is not `allowed`: another reader, which may
    know more fields, must not find any that this one ignores.
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
            raise ValueError(f"there is no field at byte {start}")
        if stop > end or not number or key >> 32:  # other readers use only the key's last 32 bits
            raise ValueError(f"the field at byte {start} does not end where it should")
        if allowed is not None and number not in allowed:
            raise ValueError(f"field {number} at byte {start} must not be in a bundle's graph")
        yield Field(number, wire, start, begin, stop, value)
        begin = stop


def read_varints(data: mmap.mmap, field: Field) -> list[int]:
    """Return a field's packed varints."""
    values, begin = [], field.begin
    while begin < field.end:
        value, begin = _read_varint(data, begin, field.end)
        values.append(value)
    return values


def read_strings(data: bytes | mmap.mmap, message: Field, number: int) -> tuple[str, ...]:
    """Return the message's strings in field `number`. Raises ValueError if one is not a string."""
    fields = [field for field in read_fields(data, message.begin, message.end) if field.number == number]
    if any(field.wire != _BYTES for field in fields):
        raise ValueError(f"field {number} of the message at byte {message.start} is not a string")
    return tuple(data[field.begin : field.end].decode() for field in fields)


def _read_varint(data: bytes | mmap.mmap, begin: int, end: int) -> tuple[int, int]:
    """Return a varint, 7 bits per byte with the lowest first, and its end."""
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
    """Encode a varint, 7 bits per byte with the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def encode_field(number: int, content: bytes | str) -> bytes:
    """Encode text or a message as the field `number`."""
    data = content.encode() if isinstance(content, str) else content
    return encode_varint(number << 3 | _BYTES) + encode_varint(len(data)) + data
