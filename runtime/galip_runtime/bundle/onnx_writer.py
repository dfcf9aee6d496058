"""Parts of ONNX files, written without the onnx package: protobuf fields, nodes, tensors and values."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from galip_runtime.bundle.protobuf import VARINT, encode_field, encode_varint

__all__ = [
    "FLOAT",
    "UINT8",
    "external_tensor",
    "graph",
    "model",
    "node",
    "tensor",
    "value",
]

FLOAT, UINT8, _INT64 = 1, 2, 7  # of TensorProto.DataType
_TYPES = {"float32": FLOAT, "int64": _INT64}
_INT, _INTS = 2, 7  # of AttributeProto.AttributeType
_IR_VERSION = 8  # read by all that read opset 18


def node(
    operator: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: int | Sequence[int]
) -> bytes:
    """A field of `GraphProto`: a node, named like its first output; attributes are numbers from 0 on."""
    outputs = [output] if isinstance(output, str) else output
    content = b"".join(encode_field(1, name) for name in inputs)
    content += b"".join(encode_field(2, name) for name in outputs)
    content += encode_field(3, outputs[0]) + encode_field(4, operator)
    for name, given in attributes.items():
        numbers = [given] if isinstance(given, int) else given
        place, kind = (3, _INT) if isinstance(given, int) else (8, _INTS)
        fields = b"".join(_number(place, each) for each in numbers) + _number(20, kind)
        content += encode_field(5, encode_field(1, name) + fields)
    return encode_field(1, content)


def tensor(name: str, numbers: npt.ArrayLike, dtype: str) -> bytes:
    """A field of `GraphProto`: constant numbers, float32 or int64."""
    array = np.asarray(numbers, np.dtype(dtype).newbyteorder("<"))
    sizes = b"".join(_number(1, size) for size in array.shape)
    return encode_field(
        5, sizes + _number(2, _TYPES[dtype]) + encode_field(8, name) + encode_field(9, array.tobytes())
    )


def external_tensor(
    name: str, sizes: Sequence[int], kind: int, location: str, offset: int, length: int
) -> bytes:
    """A field of `GraphProto`: constant numbers of the DataType `kind`, which lie in the file `location`.

    `offset`, `length`: where they begin there and how many they are, bytes.
    """
    content = b"".join(_number(1, size) for size in sizes) + _number(2, kind) + encode_field(8, name)
    for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
        content += encode_field(13, encode_field(1, key) + encode_field(2, text))
    return encode_field(5, content + _number(14, 1))


def value(number: int, name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    """The field `number` of `GraphProto`: what a tensor is, such as an output (12)."""
    sizes = (_number(1, size) if isinstance(size, int) else encode_field(2, size) for size in shape)
    content = encode_field(2, b"".join(encode_field(1, size) for size in sizes))
    return encode_field(
        number, encode_field(1, name) + encode_field(2, encode_field(1, _number(1, kind) + content))
    )


def graph(fields: Sequence[bytes]) -> bytes:
    """A `ModelProto` of nothing but a graph. Appended to another's bytes, it adds to that one's graph."""
    return encode_field(7, b"".join(fields))


def model(name: str, fields: Sequence[bytes], opset: int) -> bytes:
    """A whole `ModelProto`."""
    head = _number(1, _IR_VERSION) + encode_field(8, _number(2, opset))
    return head + graph([encode_field(2, name), *fields])


def _number(number: int, content: int) -> bytes:
    return encode_varint(number << 3 | VARINT) + encode_varint(content)
